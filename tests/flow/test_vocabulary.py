"""What operations are known by: torch's own words, and the class names of other libraries."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model
from rlawrap.flow.vocabulary import is_dropout, is_norm


class DropPath(nn.Module):
    """As every package has one."""


class DroppedConv(nn.Module):
    """Only its name begins like dropout's."""


class MyNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner, self.dropped, self.whatever = nn.Identity(), nn.Dropout(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.whatever(x / x.std())


class NormFree(nn.Module):
    """Is called a norm's opposite, and convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.plain = nn.Conv2d(3, 8, 1), MyNorm(8), nn.BatchNorm2d(8)
        self.free, self.scale = NormFree(), nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.free(self.plain(self.norm(self.stem(x))))
        x = F.pad(x * self.scale, (1, 1, 1, 1)).flip(2)
        return torch.erf(x) * x + F.avg_pool2d(x, 3, 1, 1)


@pytest.fixture(scope="module")
def words() -> tuple[Flow, References]:
    net = Words()
    flow = trace_model(
        net, leaf_modules=[MyNorm, NormFree], example_input=torch.zeros(2, 3, 16, 16)
    ).flow
    return flow, References(flow.trace)


def test_classes_by_name() -> None:
    assert is_dropout(DropPath) and is_dropout(nn.Dropout2d) and is_dropout(nn.AlphaDropout)
    assert not is_dropout(DroppedConv)
    assert is_norm(MyNorm) and is_norm(nn.GroupNorm) and not is_norm(DropPath)


def test_a_norm_may_carry_an_activation_under_any_name(words: tuple[Flow, References]) -> None:
    flow, refs = words
    assert type(flow.ops.norm_activation(refs.node("norm"))) is nn.SiLU
    assert flow.ops.activation(refs.node("norm"))
    assert flow.ops.norm(refs.node("plain")) and not flow.ops.activation(refs.node("plain"))
    assert not flow.ops.norm(refs.node("free"))


def test_linear_is_what_stands_on_the_list(words: tuple[Flow, References]) -> None:
    flow, refs = words
    linear = {name: flow.linear(refs.node(name)) for name in (
        "stem", "norm", "plain", "free", ":mul", ":pad", ":flip", ":erf", ":mul#1", ":avg_pool2d",
        ":add",
    )}  # fmt: skip
    assert {name for name, yes in linear.items() if yes} == {
        "stem", "plain", ":mul", ":pad", ":flip", ":add",
    }  # fmt: skip
