"""Methods of `nn.Module` that the base's class overrides at its root work on after the rewrite."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import rlawrap
from tests.nets import BlockNet, random_rla, relative, uneven


class Frozen(BlockNet):
    """Its norms stay in eval mode, as do the first block and the classifier, which it names."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        self.body[0].eval()
        self.fc.eval()
        return self


class Evaluating(BlockNet):
    """Draws dropout in evaluation, too; its `eval` returns nothing."""

    def eval(self) -> None:  # type: ignore[override]
        super().eval()
        self.drop.train()


class Stateful(BlockNet):
    """Counts something that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


def modes(model: nn.Module) -> dict[str, bool]:
    return {n: m.training for n, m in model.named_modules() if not n.startswith("rla")}


def test_frozen_norms_stay_frozen() -> None:
    base = uneven(Frozen())
    made = random_rla(rlawrap.apply(base, k=4))
    for model in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        for mode in (True, False):
            assert model.train(mode) is model
            assert modes(model) == modes(base.train(mode))
            assert {m.training for m in model.rla.modules()} == {mode}
        before = copy.deepcopy(model.train().state_dict())
        model(torch.randn(2, 3, 32, 32))
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
        assert changed and all(k.startswith("rla.") for k in changed)


def test_frozen_norms_give_the_outputs_of_the_base() -> None:
    base = uneven(Frozen())
    model = rlawrap.apply(base, k=4).train()
    x = torch.randn(2, 3, 32, 32)
    outputs = []
    for net in (base.train(), model):
        torch.manual_seed(1)
        outputs.append(net(x))
    assert relative(*outputs) < 1e-6


@pytest.mark.parametrize("copied", [False, True])
def test_a_backbone_keeps_them_frozen_though_layers_are_gone(copied: bool) -> None:
    maps = rlawrap.backbone(rlawrap.apply(Frozen(), k=4), ["body.1"])
    maps = copy.deepcopy(maps) if copied else maps
    assert not hasattr(maps, "fc") and len(maps.body) == 2
    maps.train()
    norms = [m for n, m in maps.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.training for m in maps.body.modules() if m in norms} == {False}
    assert not maps.body[0].training and maps.body[1].training and maps.training
    assert all(m.training for m in maps.rla.modules())
    assert not any(m.training for m in maps.eval().modules())


def test_eval_is_the_bases_own_too() -> None:
    model = rlawrap.apply(Evaluating().train(), k=4)
    assert model.eval() is model
    assert [n for n, m in model.named_modules() if m.training] == ["drop"]
    assert all(m.training for m in model.train().modules())


def test_extra_state_is_saved_and_loaded() -> None:
    base = Stateful()
    base.count = 3
    model = rlawrap.apply(base, k=4)
    state = model.state_dict()
    assert list(state)[: len(base.state_dict())] == list(base.state_dict())
    assert state["_extra_state"] == {"count": 3}
    fresh = rlawrap.apply(Stateful(), k=4)
    assert fresh.load_state_dict(copy.deepcopy(state)).missing_keys == []
    assert rlawrap.unwrap(fresh).count == 3 and base.count == 3
    for twin in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh)), rlawrap.backbone(fresh)):
        assert twin.state_dict()["_extra_state"] == {"count": 3}
    assert "_extra_state" not in rlawrap.apply(BlockNet(), k=4).state_dict()


def test_extra_state_that_is_no_tensor_cannot_be_saved_without_pickle(tmp_path: Any) -> None:
    with pytest.raises(rlawrap.CheckpointError, match="'_extra_state' in the state dict is a dict"):
        rlawrap.save(rlawrap.apply(Stateful(), k=4), tmp_path / "model.safetensors")
