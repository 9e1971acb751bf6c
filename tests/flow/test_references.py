"""References name the same values in the graphs of eval and of train mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import rlawrap
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model
from tests.capture.checking import check
from tests.nets import Dropping, Residual, Small, random_rla, relative


def test_a_value_has_the_name_that_it_has_in_eval_mode() -> None:
    traced = trace_model(Small(Dropping(), Dropping()))
    assert traced.training is not None
    plain, trained = References(traced.trace), References(traced.training.trace)
    scaled = trained.node("body.0:mul")
    assert scaled.args[1] == 0.5
    assert trained.node("body.0:sub").args[0] is scaled
    assert plain.node("body.0:mul").args == (plain.node("body.0.conv2"), 0.5)


def test_what_train_mode_alone_computes_has_no_name() -> None:
    traced = trace_model(Small(Dropping(), Dropping()))
    assert traced.training is not None
    with pytest.raises(rlawrap.PlanError, match=r"bernoulli'.*does not compute in training mode"):
        References(traced.training.trace).node("body.0:bernoulli")


class Rounds(Small):
    """Before its blocks it rounds in eval mode and adds noise in train mode, as codecs do."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + (torch.rand_like(x) - 0.5) if self.training else torch.round(x)
        return self.fc(self.body(x).mean((2, 3)))


def test_a_value_that_each_mode_computes_in_its_own_way_is_told_by_its_readers() -> None:
    net = Rounds(Residual(8, 8), Residual(8, 8))
    traced = trace_model(net)
    assert traced.training is not None
    noisy = References(traced.training.trace).node(":round")
    assert (noisy.target.__name__, noisy.args[0].target) == ("add", "stem")
    model = rlawrap.apply(net, k=4)
    assert model.plan.blocks[0].input == ":round"
    check(net, model, [torch.randn(2, 3, 16, 16), torch.randn(3, 3, 17, 21)])


@pytest.mark.parametrize("source", ["branch", "output", "input"])
def test_both_graphs_are_rewritten_at_the_same_values(source: str) -> None:
    net = Small(Dropping(), Dropping())
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
