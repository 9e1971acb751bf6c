"""Names at the root of the base that a rewritten network or torch.fx has, too: all work."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import rlawrap
from rlawrap.cost import cost
from tests.nets import Residual, random_rla, relative


class Named(nn.Module):
    """Residual blocks, and last steps by modules, parameters or buffers of any names."""

    def __init__(self, names: Sequence[str], kind: str, twice: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8, 8), Residual(8, 8), Residual(8, 8))
        self.names, self.twice = names, twice
        for name in names:
            if kind == "module":
                self._modules[name] = nn.Conv2d(8, 8, 1)
            elif kind == "parameter":
                self._parameters[name] = nn.Parameter(torch.rand(()) + 0.5)
            else:
                self._buffers[name] = torch.rand(()) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        table = {**self._modules, **self._parameters, **self._buffers}
        x = self.body(self.stem(x))
        for own in (table[name] for name in self.names):
            x = own(x) if isinstance(own, nn.Module) else x * own
        if self.twice and self.training:
            x = x * 2
        return x.mean((2, 3))


OURS = ["plan", "config", "blocks", "out_channels", "graph", "code", "whole", "splice"]
OURS += ["recompile", "meta", "print_readable", "set_grad_checkpointing", "reset_classifier"]
KEPT = ["num_classes", "in_channels", "num_features"]


# Each name alone; and, with two graphs, one for each mode, a few names at once. Those in KEPT stay
# by themselves, as torch.fx takes no network that has others.
CASES = [([name], False) for name in OURS + KEPT]
CASES += [(OURS[:5], True), (OURS[5:9], True), (OURS[9:], True), (KEPT, True)]


@pytest.mark.parametrize("kind", ["module", "parameter", "buffer"])
@pytest.mark.parametrize(
    ("names", "twice"),
    CASES,
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_the_base_keeps_its_names(names: list[str], kind: str, twice: bool, tmp_path: Path) -> None:
    base = Named(names, kind, twice)
    model = rlawrap.apply(base, k=4)
    x = torch.randn(2, 3, 16, 16)
    for mode in (True, False):
        assert relative(base.train(mode)(x), model.train(mode)(x)) < 1e-6
    random_rla(model)
    y = model(x)
    table = {**model._modules, **model._parameters, **model._buffers}
    for name in names:
        assert getattr(model, name) is table[name]
    assert len(model.rla.plan.blocks) == 3 and model.rla.config.k == 4
    assert f"k=4, cell={model.rla.config.cell}, blocks=3" in repr(model)
    assert [k for k in model.state_dict() if not k.startswith("rla.")] == list(base.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), y)
    if names[0] in KEPT:  # a plain GraphModule cannot have most of the others
        assert torch.equal(fx.symbolic_trace(model)(x), y)
    assert torch.equal(rlawrap.load(rlawrap.save(model, tmp_path / "m.safetensors"), base)(x), y)
    assert torch.equal(rlawrap.unwrap(model)(x), base(x))
    assert rlawrap.backbone(model)(x)["0"].shape == (2, 8, 16, 16)
    for name in names:
        y, own = model(x), table[name]
        with torch.no_grad():
            (own.bias if kind == "module" else own).add_(1.0)
        assert not torch.equal(model(x), y)
    rlawrap.RLAModel.set_grad_checkpointing(model)
    model.train()(x).sum().backward()


@pytest.mark.parametrize("kind", ["module", "parameter"])
@pytest.mark.parametrize("name", ["plan", "graph", "code"])
@pytest.mark.filterwarnings("ignore")
def test_compilers_take_it(name: str, kind: str) -> None:
    model = random_rla(rlawrap.apply(Named([name], kind, twice=True).eval(), k=4))
    x = torch.randn(2, 3, 16, 16)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative(model(x), compiled(x)) < 1e-6
    if name not in ("graph", "code"):  # torch.export refuses these of the base, too
        assert relative(model(x), torch.export.export(model, (x,)).module()(x)) < 1e-6


def test_costs_and_classifier_of_a_base_with_a_plan() -> None:
    base = Named(["plan"], "module")
    base.config = nn.Identity()
    model = rlawrap.apply(base, k=4)
    assert cost(model, size=32).name == "Named with RLA, k=4"
    model.reset_classifier(3)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3) and model.plan.out_channels == 3


def test_only_rla_is_refused() -> None:
    base = Named(["rla"], "module")
    with pytest.raises(rlawrap.PlanError, match="attribute 'rla' of its own"):
        rlawrap.apply(base, k=4)
