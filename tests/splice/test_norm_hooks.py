"""Networks whose weights are computed by hooks, and modules that keep computed tensors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import rlawrap
from tests.capture.checking import BODY, Block, Net, check, images

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


def normed(norm: Callable[[nn.Module], nn.Module]) -> Net:
    net = Net()
    for block in net.body:
        block.a, block.b = norm(block.a), norm(block.b)
    return net


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", amount=0.3)


class Remembers(Block):
    """Keeps an activation as an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.body(x)
        return x + self.last


KINDS: dict[str, Callable[[], Net]] = {
    "weight": lambda: normed(nn.utils.weight_norm),
    "spectral": lambda: normed(nn.utils.spectral_norm),
    "pruned": lambda: normed(pruned),
    "remembers": lambda: Net(Remembers),
}


def step(net: nn.Module) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.train()(torch.randn(4, 3, 16, 16)).square().mean().backward()
    optimizer.step()


@pytest.mark.filterwarnings("ignore:.*sets its attribute 'last':rlawrap.RLAWarning")
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("trained", [False, True])
def test_at_any_time(kind: str, trained: bool, tmp_path: Path) -> None:
    base = KINDS[kind]()
    if trained:
        step(base)
    model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == BODY
    if kind != "spectral":  # each forward in training moves the estimate of a spectral norm
        check(base, model, images([(2, 16, 16), (3, 20, 18)]))
    step(model)
    model.eval()
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), expected)
    with rlawrap.disabled(model):
        plain = model(x)
    torch.testing.assert_close(rlawrap.unwrap(model).eval()(x), plain)
    assert rlawrap.cost(model, size=16).total.params == sum(p.numel() for p in model.parameters())
    file = tmp_path / "model.safetensors"
    rlawrap.save(model, file)
    torch.testing.assert_close(rlawrap.load(file, base=KINDS[kind]()).eval()(x), expected)
    step(twin)
    step(model)


def test_a_copy_shares_nothing() -> None:
    model: Any = rlawrap.apply(KINDS["weight"](), k=4)
    step(model)
    twin = copy.deepcopy(model)
    step(twin)
    assert not torch.equal(twin.body[0].a.weight_v, model.body[0].a.weight_v)
