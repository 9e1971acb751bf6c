"""Activation checkpointing: same outputs, gradients and statistics, blocks really run again."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.splice.checkpointing import segments
from tests.nets import Small, family, random_rla


@pytest.mark.parametrize("name", ["block_net", "convnext_tiny", "googlenet", "functional_net"])
def test_equal_to_the_plain_model(name: str) -> None:
    base, x = family(name)
    plain = random_rla(rlawrap.apply(base.train(), k=4, source="output"))
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    results = []
    for model in (plain, saving):
        torch.manual_seed(3)
        out = model(x)
        assert isinstance(out, Tensor) or type(out).__name__ == "GoogLeNetOutputs"
        out = out if isinstance(out, Tensor) else out[0] + out[1] + out[2]
        out.square().sum().backward()
        results.append(out)
    assert torch.equal(*results)
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), key
    for (key, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), key


class Writing(nn.Module):
    """A residual block that overwrites its output, or the output of the one before, by a view."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "input":
            x.view(x.shape).mul_(0.9)
        y = x + self.conv2(torch.relu(self.conv1(x)))
        if self.how == "output":
            y.view_as(y).clamp_(max=0.3)
        elif self.how == "twice":
            view = y.flatten(1)
            view.mul_(0.9)
            view.view(y.shape).add_(0.1)
        elif self.how == "part":
            y[:, :2].relu_()
        return y


@pytest.mark.parametrize("how", ["input", "output", "twice", "part"])
@pytest.mark.parametrize("source", ["output", "branch"])
def test_outputs_that_are_overwritten_through_views(how: str, source: str) -> None:
    base = Small(*(Writing(how) for _ in range(3)))
    plain = random_rla(rlawrap.apply(base.train(), k=4, source=source))
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    calls: list[int] = []
    saving.body[1].conv1.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 16, 16)
    for model in (plain, saving):
        model(x).square().sum().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), key
    assert len(calls) == 2
    modules = dict(saving.named_modules())
    assert len(segments(saving.rla.splice.graph, modules)) == 4


def test_layers_run_twice_in_training_and_once_in_evaluation() -> None:
    base, x = family("block_net")
    model = rlawrap.apply(base, k=4)
    model.set_grad_checkpointing()
    calls: list[int] = []
    model.body[1].conv2.register_forward_hook(lambda *_: calls.append(1))
    model.train()(x).sum().backward()
    assert len(calls) == 2
    model.eval()(x)
    assert len(calls) == 3
    model.set_grad_checkpointing(False)
    model.train()(x).sum().backward()
    assert len(calls) == 4


def test_copies_and_pickles_keep_it() -> None:
    base, x = family("block_net")
    model = rlawrap.apply(base.train(), k=4)
    model.set_grad_checkpointing()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        calls: list[int] = []
        twin.body[0].conv1.register_forward_hook(lambda *_, seen=calls: seen.append(1))
        twin(x).sum().backward()
        assert len(calls) == 2


def test_keys_are_untouched_and_sync_batchnorm_still_counts_once() -> None:
    base, x = family("block_net")
    model = rlawrap.apply(base.train(), k=4)
    keys = list(model.state_dict())
    model.set_grad_checkpointing()
    assert list(model.state_dict()) == keys
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):  # replaced after the switch, as SyncBN would be
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, copy.deepcopy(module))
    before = int(model.body[0].bn1.num_batches_tracked)
    model(x).sum().backward()
    assert int(model.body[0].bn1.num_batches_tracked) == before + 1


def test_a_base_that_checkpoints_keeps_doing_so() -> None:
    base, x = family("block_net")
    base.grad_checkpointing = True
    model = rlawrap.apply(base.train(), k=4)
    calls: list[int] = []
    model.body[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    model(x).sum().backward()
    assert len(calls) == 2
