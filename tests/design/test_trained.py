"""Heads and layers that train mode runs otherwise than eval mode."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model
from tests.nets import Residual, random_rla, relative

BLOCKS = ["body.0", "body.1", "body.2"]
ONE_LINE = "training mode runs another graph than eval mode; both are rewritten"


class Late(nn.Module):
    """In eval mode the classifier runs before the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.body = nn.Sequential(*(Residual(8, 8) for _ in range(3)))
        self.fc = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        if not self.training:
            return F.adaptive_avg_pool2d(self.fc(F.avg_pool2d(x, 2, 1)), 1)
        return self.fc(F.adaptive_avg_pool2d(x, 1))


class OtherLine(Late):
    """Both modes call the classifier on the same values, from two lines."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.body(self.stem(x)), 1)
        if not self.training:
            return self.fc(x).softmax(1)
        return self.fc(x)


class AtOneSize(Late):
    """Both modes leave one pixel of four, and of more only train mode does, by a kernel of its own.

    What they normalise before it is the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(F.avg_pool2d(self.body(self.stem(x)), 4)))
        if not self.training:
            return self.fc(F.avg_pool2d(x, 4, 1)).mean((2, 3))
        pool = F.max_pool2d if self.maximum else F.avg_pool2d
        return self.fc(pool(x, (x.shape[2], x.shape[3]))).flatten(1)

    maximum = False


class AtOneSizeMaximum(AtOneSize):
    maximum = True


class NoHead(Late):
    """Train mode returns features."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.body(self.stem(x)), 1)
        return x if self.training else self.fc(x)


class Wider(Late):
    """Train mode normalises what the classifier reads, which h would have to learn apart."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        if not self.training:
            return F.adaptive_avg_pool2d(self.fc(x), 1)
        return self.fc(F.adaptive_avg_pool2d(self.norm(x), 1))


class Folded(nn.Module):
    """A block whose first convolution is one in eval mode, and two in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.folded, self.last = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x) + self.two(x) if self.training else self.folded(x)
        return x + self.last(F.relu(y))


def both_modes(net: nn.Module, model: rlawrap.RLAModel, reads: tuple[bool, bool]) -> None:
    """Each mode computes what the base does, and something else where random weights are read."""
    for training, read in zip((False, True), reads, strict=True):
        for size in (16, 21):
            x = torch.randn(3, 3, size, size)
            want = copy.deepcopy(net).train(training)(x)
            assert relative(want, copy.deepcopy(model).train(training)(x)) < 1e-6
            changed = random_rla(copy.deepcopy(model)).train(training)
            assert (relative(want, changed(x)) > 1e-4) == read


@pytest.mark.parametrize("make", [Late, OtherLine])
def test_a_head_is_joined_where_each_mode_runs_it(make: type[nn.Module]) -> None:
    net = make()
    model = rlawrap.apply(net, k=4)
    assert [b.path for b in model.plan.blocks] == BLOCKS
    assert model.plan.head == ("fc",)
    assert model.plan.notes == (ONE_LINE,)
    both_modes(net, model, (True, True))
    heads = [n for n, p in model.rla.named_parameters() if n.startswith("head.join")]
    assert heads == ["head.join.0.conv.weight"]
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    weight = model.rla.get_parameter("head.join.0.conv.weight")
    assert weight.grad is not None and weight.grad.abs().max() > 0


@pytest.mark.parametrize("make", [AtOneSize, AtOneSizeMaximum])
def test_ways_that_are_alike_at_one_size_alone_are_told_apart(make: type[AtOneSize]) -> None:
    net = make()
    image = torch.zeros(2, 3, 16, 16)
    model = random_rla(rlawrap.apply(net, k=4, inject="none", example_input=image))
    for size in (16, 24):
        x = torch.randn(3, 3, size, size)
        for training in (False, True):
            model.train(training), net.train(training)
            assert model(x).shape == net(x).shape == (3, 5)
    states: list[Tensor] = []
    model.rla.head.act.register_forward_hook(lambda m, a, out: states.append(out))
    trained = model(x) - rlawrap.unwrap(model)(x)
    join = model.rla.head.join["0"]
    assert model.rla.splice.plan.notes == (ONE_LINE,)
    with torch.no_grad():
        twin = copy.deepcopy(join.norm)
        h = F.relu(twin(F.avg_pool2d(states[0], 4)))
        h = h.amax((2, 3)) if make.maximum else h.mean((2, 3))
        share = F.linear(h, join.conv.weight.flatten(1))
    assert torch.allclose(trained, share, atol=1e-5)


def test_each_mode_brings_h_to_the_classifier_as_it_brings_x() -> None:
    """What train mode adds is conv(pool(h)) of the very weights that eval mode has."""
    model = random_rla(rlawrap.apply(Late(), k=4, inject="none"))
    states: list[Tensor] = []
    model.rla.head.act.register_forward_hook(lambda m, a, out: states.append(out))
    weight = model.rla.head.join["0"].conv
    x = torch.randn(2, 3, 16, 16)
    base = copy.deepcopy(rlawrap.unwrap(model))
    evaluated = model.eval()(x) - base.eval()(x)
    share = F.adaptive_avg_pool2d(weight(F.avg_pool2d(states[0], 2, 1)), 1)
    assert torch.allclose(evaluated, share, atol=1e-5)
    trained = model.train()(x) - base.train()(x)
    assert torch.allclose(trained, weight(F.adaptive_avg_pool2d(states[1], 1)), atol=1e-5)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = random_rla(rlawrap.apply(Late(), k=4))
    rlawrap.save(model, tmp_path / "late.pt")
    twin = rlawrap.load(tmp_path / "late.pt", Late())
    x = torch.randn(2, 3, 16, 16)
    for training in (False, True):
        assert torch.equal(model.train(training)(x), twin.train(training)(x))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(NoHead, "eval mode alone computes it"), (Wider, "h learns otherwise on its way there")],
)
def test_a_head_that_train_mode_cannot_have_is_left_out_there(
    make: type[nn.Module], reason: str
) -> None:
    net = make()
    model = rlawrap.apply(net, k=4)
    assert model.plan.notes[1:] == (f"head: in training mode h does not join fc: {reason}",)
    both_modes(net, model, (True, True))  # h is read by the blocks in both


class Skipped(Folded):
    """Train mode leaves the first convolution out."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.relu(x if self.training else self.folded(x)))


class Reparametrised(Folded):
    """The filters of its branches are one filter in eval mode, made when it is called."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.relu(self.one(x) + self.two(x) + x)
        eye = torch.eye(x.shape[1], device=x.device)[:, :, None, None]
        filter_ = self.one.weight + F.pad(self.two.weight + eye, [1, 1, 1, 1])
        return F.relu(F.conv2d(x, filter_, self.one.bias + self.two.bias, padding=1))


class Kept(Folded):
    """The same, with the filter kept in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        filter_ = (self.one.weight + F.pad(self.two.weight, [1, 1, 1, 1])).detach()
        self.register_buffer("filter", filter_)
        self.register_buffer("bias", (self.one.bias + self.two.bias).detach())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x + F.relu(self.two(x) + self.one(x))
        return x + F.relu(F.conv2d(x, self.filter, self.bias, padding=1))


def three(block: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), *(block() for _ in range(3)))


@pytest.mark.parametrize("block", [Folded, Reparametrised, Kept])
def test_a_convolution_in_the_place_of_branches_is_entered_where_they_meet(
    block: type[nn.Module],
) -> None:
    net = three(block)
    model = rlawrap.apply(net, k=4)
    layer = ".folded" if block is Folded else ":conv2d"
    assert [b.entries for b in model.plan.blocks] == [(f"{i}{layer}",) for i in (1, 2, 3)]
    assert list(model.plan.notes) == [ONE_LINE]
    both_modes(net, model, (True, True))


@pytest.mark.parametrize("block", [Reparametrised, Kept])
def test_folded_branches_and_one_filter_make_one_model(block: type[nn.Module]) -> None:
    """The base computes the same in both modes, and so does the model, with one weight of h."""
    net = three(block)
    model = random_rla(rlawrap.apply(net, k=4, norm="none"))
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net.train()(x), net.eval()(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.train()(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    assert relative(net(x), model(x)) > 1e-3


def test_a_convolution_of_eval_mode_alone_is_entered_there_alone() -> None:
    net = three(Skipped)
    model = rlawrap.apply(net, k=4)
    assert [b.entries for b in model.plan.blocks] == [(f"{i}.folded",) for i in (1, 2, 3)]
    notes = [
        f"{i}: in training mode h does not enter {i}.folded, which eval mode alone computes so"
        for i in (2, 3)
    ]
    assert list(model.plan.notes[1:]) == notes
    both_modes(net, model, (True, False))


def test_a_layer_is_named_by_its_path_where_another_line_calls_it() -> None:
    traced = trace_model(OtherLine())
    assert traced.training is not None
    trained = References(traced.training.trace)
    assert trained.name(trained.node("fc")) == "fc"
    assert not traced.training.trace.elsewhere
    other = trace_model(Late()).training
    assert other is not None
    assert list(other.trace.elsewhere) == ["fc"]
    with pytest.raises(rlawrap.PlanError, match=r"'fc'.* on images of this size in training mode"):
        References(other.trace).node("fc")
