"""Deep copies of what `copy.deepcopy` refuses."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.copying import deep_copy
from tests.nets import Residual, random_rla

X = torch.randn(2, 3, 16, 16)


class Viewing(nn.Module):
    """Keeps views of its layers, of a dict of its own, and of one that nothing else has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleDict({"a": Residual(8, 8), "b": Residual(8, 8)})
        self.scales = self.layers.keys()
        self.blocks = self.layers.values()
        self.widths = OrderedDict(a=8)
        self.of_width = self.widths.items()
        self.lone = {"fc": 1}.keys()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in self.scales:
            x = self.layers[name](x)
        return self.fc(x.mean((2, 3)))


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Viewing()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_views_are_those_of_the_copied_dicts() -> None:
    net = Viewing()
    with pytest.raises(TypeError, match="dict_keys"):
        copy.deepcopy(net)
    twin = deep_copy(net)
    twin.layers["c"], twin.widths["b"] = nn.ReLU(), 9
    assert list(twin.scales) == ["a", "b", "c"] and list(net.scales) == ["a", "b"]
    assert next(iter(twin.blocks)) is twin.layers["a"] and next(iter(net.blocks)) is net.layers["a"]
    assert dict(twin.of_width) == {"a": 8, "b": 9} and dict(net.of_width) == {"a": 8}
    assert list(twin.lone) == ["fc"]


@pytest.mark.parametrize("make", [Viewing, Around])
def test_a_network_that_keeps_views_is_rewritten_copied_and_given_back(make: Any) -> None:
    base = make().eval()
    model: Any = random_rla(rlawrap.apply(base, k=4))
    assert len(model.plan.blocks) == 2
    twin = copy.deepcopy(model)
    assert torch.equal(twin(X), model(X)) and not torch.equal(model(X), base(X))
    bare: Any = rlawrap.unwrap(twin)
    inner = bare.net if make is Around else bare
    assert torch.equal(bare(X), base(X)) and next(iter(inner.blocks)) is inner.layers["a"]
