"""Networks on several devices and of several types: each layer of h lies where it is used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, random_rla, relative

META, CPU = torch.device("meta"), torch.device("cpu")


class Halves(nn.Module):
    """The second half lies elsewhere or is of another type; forward brings x there."""

    def __init__(self, how: str = "name", second: torch.device | torch.dtype = META) -> None:
        super().__init__()
        self.how, self.second = how, second
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.last = nn.Sequential(Residual(8, 16, 2), Residual(16, 16)).to(second)
        self.fc = nn.Linear(16, 4).to(second)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        if self.how == "name":
            x = x.to(self.second)
        elif self.how == "asked":
            x = x.to(device=next(self.last.parameters()).device)
        elif self.how == "compared" and x.device != self.fc.weight.device:
            x = x.to(self.fc.weight.device)
        elif self.how == "alike":
            x = x.type_as(self.fc.weight)
        elif self.how == "double":
            x = x.double()
        return self.fc(self.last(x).mean((2, 3)))


WHERE = {
    "input.0_8": CPU, "cell.0": CPU, "block.0": CPU, "block.1": CPU, "inject.1": CPU,
    "inject.2": META, "input.1_16": META, "cell.1": META, "block.2": META, "block.3": META,
    "inject.3": META, "head.norm": META, "head.join": META,
}  # fmt: skip


@pytest.mark.parametrize("how", ["name", "asked", "compared"])
def test_each_layer_lies_where_the_base_is(how: str) -> None:
    model = rlawrap.apply(Halves(how), k=4)
    found = {
        path: tensor.device
        for path in WHERE
        for tensor in model.rla.get_submodule(path).state_dict().values()
    }
    assert found == WHERE
    x = torch.randn(2, 3, 16, 16)
    for mode in (False, True):
        assert model.train(mode)(x).device == META
    assert copy.deepcopy(model)(x).device == META
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)


def test_a_network_in_one_place_moves_nothing() -> None:
    graph = rlawrap.apply(Halves("name", CPU), k=4).rla.splice.graph
    assert [str(n.target) for n in graph.nodes].count("to") == 1


@pytest.mark.parametrize(
    ("how", "share"), [("name", "stage"), ("alike", "network"), ("double", "none")]
)
def test_each_layer_has_the_type_of_the_base(how: str, share: str) -> None:
    net = Halves(how, torch.float64)
    model = rlawrap.apply(net, k=4, share=share, head_norm="yes")
    x = torch.randn(2, 3, 16, 16)
    assert relative(net.eval()(x), model.eval()(x)) < 1e-12
    changed = random_rla(copy.deepcopy(model))
    assert changed(x).dtype == torch.float64
    assert relative(net(x), changed(x)) > 1e-4
    types = {n: p.dtype for n, p in model.rla.named_parameters()}
    assert types["inject.1.conv.weight"] == torch.float32
    assert types["inject.2.conv.weight"] == torch.float64
    assert types[f"input.{'2' if share == 'none' else '1_16'}.weight"] == torch.float64
    assert types["head.join.0.linear.weight"] == types["head.norm.weight"] == torch.float64
    cell, kind = {
        "stage": (1, torch.float64), "network": (0, torch.float32), "none": (2, torch.float64)
    }[share]  # fmt: skip
    assert types[f"cell.{cell}.conv.weight"] == kind
    changed.train()(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in changed.rla.parameters())


class Inside(nn.Module):
    """A block that computes its second half in another type."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1).double()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.one(x)).double()).float()


class Grid(nn.Module):
    """Makes a tensor where its weights are, and a filter that nothing learns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        where = self.conv.weight.device
        y = torch.relu(self.conv(x)) + torch.arange(x.shape[-1], device=where)
        blur = torch.ones(8, 1, 3, 3, device=where)
        return x + nn.functional.conv2d(y, blur, padding=1, groups=8)


def test_the_device_of_a_weight_is_read_anew() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), *(Grid() for _ in range(3)))
    model = rlawrap.apply(net, k=4)
    assert [b.entries for b in model.plan.blocks] == [(f"{i}.conv",) for i in (1, 2, 3)]
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(net.eval()(x), model.eval()(x))
    assert model.to(META)(x.to(META)).shape == net(x).shape


@pytest.mark.parametrize("source", ["output", "branch"])
def test_a_block_of_several_types(source: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Inside(), Inside(), Inside())
    model = rlawrap.apply(net, k=4, source=source, initial_state="zeros")
    x = torch.randn(2, 3, 16, 16)
    assert relative(net.eval()(x), model.eval()(x)) < 1e-6
    assert relative(net(x), random_rla(model)(x)) > 1e-4
