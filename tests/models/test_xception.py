"""Xceptions: timm's by our names, and one for 32x32 images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.models import get_model
from rlawrap.models.xception import TIMM
from tests.nets import random_rla

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(("name", "blocks"), [("rla_xception", 12), ("rla_xception41", 13)])
def test_timms_networks_with_a_hidden_state(name: str, blocks: int) -> None:
    with torch.device("meta"):
        model = get_model(name, k=8, num_classes=5)
    base = timm.create_model(TIMM[name], num_classes=5)
    own = model.state_dict()
    assert {k: v.shape for k, v in base.state_dict().items()} == {
        k: v.shape for k, v in own.items() if not k.startswith("rla.")
    }
    assert model.config == rlawrap.variant("rla_xception", k=8)
    assert len(model.plan.blocks) == blocks
    for i, block in enumerate(model.plan.blocks[1:], 1):
        way = model.rla.inject[str(i)]
        depthwise = model.get_submodule(block.entries[0])
        assert way.depthwise.groups == way.depthwise.in_channels == 8
        assert way.depthwise.stride == depthwise.stride and depthwise.groups > 1


def test_all_four_are_listed() -> None:
    assert set(TIMM) <= set(rlawrap.models.list_models("rla_xception*"))
    with pytest.raises(rlawrap.ConfigError, match=r"weights='none'\): choose DEFAULT or "):
        rlawrap.models.rla_xception41(weights="none")


def test_timm_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(rlawrap.ConfigError, match=r"rla_xception65: .* 'rlawrap\[timm\]'"):
        rlawrap.models.rla_xception65()


def test_the_small_one() -> None:
    base = get_model("cifar_xception", num_classes=7, in_channels=1)
    assert sum(p.numel() for p in base.parameters()) == 2_074_759
    sizes = []
    for stage in (base.layer1, base.layer2, base.layer3):
        stage.register_forward_hook(lambda m, a, out: sizes.append(tuple(out.shape[1:])))
    base(torch.zeros(1, 1, 32, 32))
    assert sizes == [(128, 32, 32), (256, 16, 16), (512, 8, 8)]
    with pytest.raises(rlawrap.ConfigError, match="no published weights"):
        get_model("cifar_xception", weights="DEFAULT")


def test_the_small_one_with_h_learns_everywhere() -> None:
    model = random_rla(get_model("rla_cifar_xception", num_classes=3)).train()
    x = torch.randn(2, 3, 31, 32)
    model(x).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert [len(stage.blocks) for stage in model.plan.stages] == [2, 5, 2]
    with torch.no_grad(), rlawrap.disabled(model.eval()):
        without = model(x)
    assert not torch.allclose(model(x), without)


def test_a_checkpoint_names_it(tmp_path: object) -> None:
    model = get_model("rla_cifar_xception", k=4)
    again = rlawrap.load(rlawrap.save(model, f"{tmp_path}/x.safetensors"))
    assert isinstance(again, rlawrap.models.xception.CifarXception)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())
    assert isinstance(model.fc, nn.Linear)
