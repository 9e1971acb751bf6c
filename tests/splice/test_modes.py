"""Modules in another mode than the model: exact where one graph serves both, else warned of."""

from __future__ import annotations

import copy
import pickle
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import random_rla


class ByHand(nn.Module):
    """Stochastic depth as many repositories write it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.5)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.drop = ByHand()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.conv2(torch.relu(self.conv1(x))))


class Doubling(Block):
    """Asks for its mode itself, convolutions and all."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.conv1(x)))
        return x + (y * 2 if self.training else y)


class Net(nn.Module):
    def __init__(self, block: type[nn.Module] = Block) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(block(), block())
        self.layer2 = nn.Sequential(block(), block())
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class PartlyFrozen(Net):
    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self.layer1.eval()
        return self


X = torch.randn(4, 3, 16, 16)
MIXED = r"train mode and its module 'layer1\.0\.drop' \(ByHand\) and 1 more in eval mode.*leaf_mod"


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_mixture_is_warned_of_once_and_named() -> None:
    model = rlawrap.apply(Net(), k=4)
    with silence():
        model.train()(X), model.eval()(X)
    model.train().layer1.eval()
    with pytest.warns(rlawrap.RLAWarning, match=MIXED):
        model(X)
    with silence():
        model(X)
        model.eval()(X)
    model.layer2.train()
    with pytest.warns(rlawrap.RLAWarning, match=r"eval mode and its module 'layer2\.0\.drop'"):
        model(X)
    with silence():
        model.eval()(X)
        model.train()(X)


def test_the_advice_makes_it_exact() -> None:
    base = Net()
    model = rlawrap.apply(base, k=4, leaf_modules=[ByHand])
    outputs = []
    with silence():
        for net in (base, model):
            net.train().layer1.eval()
            torch.manual_seed(3)
            outputs.append(net(X))
    torch.testing.assert_close(*outputs)


def test_blocks_with_a_mode_of_their_own_get_other_advice() -> None:
    model = rlawrap.apply(Net(Doubling), k=4).train()
    model.layer2[1].eval()
    with pytest.warns(rlawrap.RLAWarning, match=r"'layer2\.1' \(Doubling\) in eval.*of its own fi"):
        model(X)


def test_copies_files_backbones_and_checkpointing_warn_too() -> None:
    made = rlawrap.apply(Net(), k=4)
    saving = copy.deepcopy(made)
    saving.set_grad_checkpointing()
    for model in (
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        rlawrap.backbone(made),
        saving,
    ):
        model.train().layer1.eval()
        with pytest.warns(rlawrap.RLAWarning, match=MIXED):
            model(X)
    cut = rlawrap.backbone(made, ["layer1.0"])
    assert not hasattr(cut, "layer2")
    cut.train().layer1.eval()
    with pytest.warns(rlawrap.RLAWarning, match=r"'layer1\.0\.drop' \(ByHand\) in eval mode"):
        cut(X)


def test_what_the_bases_own_train_freezes_is_traced_so() -> None:
    base = PartlyFrozen()
    model = rlawrap.apply(base, k=4)
    outputs = []
    with silence():
        for net in (base, model):
            net.train()
            torch.manual_seed(3)
            outputs.append(net(X))
    torch.testing.assert_close(*outputs)
    nn.Module.train(model)
    model.layer1.train()
    with pytest.warns(rlawrap.RLAWarning, match=r"'layer1\.0\.drop' .* in train mode, but .* eval"):
        model(X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_exported_and_traced_as_before() -> None:
    model = random_rla(rlawrap.apply(Net(), k=4)).eval()
    model.layer1.train()
    expected = rlawrap.apply(Net(), k=4).eval()
    expected.load_state_dict(model.state_dict())
    y = expected(X)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", rlawrap.RLAWarning)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(X), y)
        torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), y)
    model.eval()
    assert torch.equal(torch.fx.symbolic_trace(model)(X), y)


def test_modules_put_in_later_are_not_mistaken() -> None:
    model = rlawrap.apply(Net(), k=4)
    model.layer1 = copy.deepcopy(model.layer1)
    with silence():
        model.train()(X), model.eval()(X)


def test_torch_is_as_it_was() -> None:
    rlawrap.inspect(Net())
    assert "training" not in vars(nn.Module)


def test_watching_costs_microseconds() -> None:
    net = Net()
    net.layer1 = nn.Sequential(*(Block() for _ in range(20)))
    watch = rlawrap.apply(net, k=4).rla.splice.watch
    assert len(watch.watched[True]) == 22
    start = time.perf_counter()
    for _ in range(1000):
        watch.check(True)
    assert time.perf_counter() - start < 0.1
