"""References name the same values in the graphs of eval and of train mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.discover.inspect import trace_model
from rlawrap.discover.refs import References
from tests.nets import random_rla, relative


class Dropping(nn.Module):
    """A residual block that drops its branch by hand: train mode multiplies and subtracts more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.conv1(x)))
        if self.training:
            keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.9)
            y = y * keep
        y = y * 0.5
        y = y - y.mean((2, 3), keepdim=True)
        return x + y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Dropping(), Dropping())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def test_a_value_has_the_name_that_it_has_in_eval_mode() -> None:
    traced = trace_model(Net())
    assert traced.training is not None
    plain, trained = References(traced.trace), References(traced.training.trace)
    scaled = trained.node("body.0:mul")
    assert scaled.args[1] == 0.5
    assert trained.node("body.0:sub").args[0] is scaled
    assert plain.node("body.0:mul").args == (plain.node("body.0.conv2"), 0.5)


def test_what_train_mode_alone_computes_has_no_name() -> None:
    traced = trace_model(Net())
    assert traced.training is not None
    with pytest.raises(rlawrap.PlanError, match=r"bernoulli'.*does not compute in training mode"):
        References(traced.training.trace).node("body.0:bernoulli")


@pytest.mark.parametrize("source", ["branch", "output", "input"])
def test_both_graphs_are_rewritten_at_the_same_values(source: str) -> None:
    net = Net()
    model = rlawrap.apply(net, k=4, source=source)
    x = torch.randn(2, 3, 16, 16)
    for training in (False, True):
        net.train(training)
        model.train(training)
        torch.manual_seed(1)
        expected = net(x)
        torch.manual_seed(1)
        assert relative(expected, model(x)) < 1e-6
        assert relative(expected, random_rla(copy.deepcopy(model))(x)) > 1e-4
