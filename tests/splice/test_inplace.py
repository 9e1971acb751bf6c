"""Tapped values survive in-place writers: right values forward, no autograd error backward."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import random_rla, relative


class Net(nn.Module):
    """Two residual blocks whose writer of y is chosen by name."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(how), Block(how))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.conv1(x)))
        if self.how == "iadd":
            y += x
        elif self.how == "dropped result":
            y.add_(x)
            self.relu(y)
        elif self.how == "view read later":
            view = y.view(y.shape)
            z = y.add_(x)
            return z + 0.1 * view
        elif self.how == "functional":
            y = F.relu(y.add(x), inplace=True)
        elif self.how == "assigned parts":
            y[:, :2] = torch.relu(y[:, :2] + x[:, :2])
            y[:, 2:] = y[:, 2:] + x[:, 2:]
        elif self.how == "written parts":
            y[:, :2] += x[:, :2]
            y[:, 2:].add_(x[:, 2:])
        return y


HOWS = [
    "iadd", "dropped result", "view read later", "functional", "assigned parts", "written parts",
]  # fmt: skip


def spliced(how: str, source: str) -> tuple[nn.Module, rlawrap.RLAModel]:
    """The network and its rewrite; both blocks' branch is what their second convolution returns."""
    torch.manual_seed(0)
    base = Net(how)
    plan = rlawrap.inspect(base)
    blocks = [replace(b, branch=f"{b.path}.conv2") for b in plan.blocks]
    plan = rlawrap.Plan.of(plan.model, [blocks], head=plan.head)
    return base, rlawrap.apply(base, k=4, source=source, plan=plan)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("source", ["output", "branch"])
def test_values_and_gradients(how: str, source: str) -> None:
    base, model = spliced(how, source)
    x = torch.randn(2, 3, 8, 8)
    assert relative(base(x), model(x)) < 1e-6
    random_rla(model)(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("how", HOWS)
def test_the_branch_is_read_before_the_shortcut_is_added(how: str) -> None:
    _, model = spliced(how, "branch")
    read: list[Tensor] = []
    written: list[Tensor] = []
    model.rla.input["0_4"].register_forward_hook(lambda m, i, o: read.append(i[0].clone()))
    model.blocks[0].conv2.register_forward_hook(lambda m, i, o: written.append(o.clone()))
    model(torch.randn(2, 3, 8, 8))
    assert torch.equal(read[0], written[0])


def test_a_writer_that_only_the_base_needs_stays_in_place() -> None:
    _, model = spliced("iadd", "branch")
    relus = [m for n, m in model.named_modules() if n.startswith("blocks") and type(m) is nn.ReLU]
    assert len(relus) == 2 and all(m.inplace for m in relus)


def test_what_was_turned_out_of_place_is_the_bases_own_to_turn_back() -> None:
    base = Net("iadd")
    plan = rlawrap.inspect(base)
    blocks = [replace(b, branch=f"{b.path}.conv1") for b in plan.blocks]
    plan = rlawrap.Plan.of(plan.model, [blocks], head=plan.head)
    model = rlawrap.apply(base, k=4, source="branch", plan=plan)
    relus = [path for path, m in base.named_modules() if isinstance(m, nn.ReLU)]
    twins = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        assert [twin.get_submodule(path).inplace for path in relus] == [False, True]
        bare = rlawrap.unwrap(twin)
        assert [bare.get_submodule(path).inplace for path in relus] == [True, True]
