"""Hooks that are part of a network run while it is recorded; those for others do not."""

from __future__ import annotations

import functools
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.capture.checking import check, images
from tests.nets import Double


class Store:
    """Keeps what a module returned."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.inner: Any = None

    def hook(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.kept = out

    def __call__(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.kept = out


class UNet(nn.Module):
    """Its one skip comes by a hook: a method, a function around it, an object or a closure."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.down, self.pool, self.deep = Double(3, 8), nn.MaxPool2d(2), Double(8, 8)
        self.up, self.head = Double(16, 8), nn.Conv2d(8, 2, 1)
        self.store, self.found = Store(), {}
        hook: Any = self.store.hook
        if how == "partial":
            hook = functools.partial(Store.hook, self.store)
        if how == "object":
            hook = self.store
        if how == "closure":
            found = self.found

            def hook(module: nn.Module, args: Any, out: Tensor) -> None:
                found["skip"] = out

        self.down.register_forward_hook(hook)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.interpolate(self.deep(self.pool(self.down(x))), scale_factor=2)
        skip = self.found["skip"] if self.found else self.store.kept
        return self.head(self.up(torch.cat((y, skip), 1)))


@pytest.mark.parametrize("how", ["method", "partial", "object", "closure"])
@pytest.mark.parametrize("ran", [False, True])
def test_what_a_hook_keeps_for_the_network(how: str, ran: bool) -> None:
    base = UNet(how)
    if how == "closure" or ran:
        base(torch.randn(1, 3, 8, 8))
    told = pytest.warns(rlawrap.RLAWarning, match="sets its attribute 'found'")
    with told if how == "closure" else nullcontext():
        model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == ["down", "deep", "up"]
    kept = [base.store.kept, *base.found.values()]
    assert not any(isinstance(t, Tensor) and t.is_meta for t in kept)
    for x in images([(2, 16, 16), (1, 16, 16), (5, 24, 16), (3, 18, 22)]):
        torch.testing.assert_close(model(x), base(x))


def test_what_such_a_hook_changes_is_changed_once() -> None:
    base = UNet("method")

    def doubled(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        base.store.inner = out
        return out * 2

    base.deep.register_forward_hook(doubled)
    model = rlawrap.apply(base, k=4)
    assert base.store.inner is None
    x = torch.randn(2, 3, 16, 16)
    out = model(x)
    inner = base.store.inner  # the hook of the model writes where it did
    torch.testing.assert_close(out, base(x))
    torch.testing.assert_close(inner, base.store.inner)


class Logging(nn.Module):
    """Its own hook notes a number of every output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 1), nn.Sequential(*(Double(8, 8) for _ in range(4)))
        self.means: list[float] = []
        self.body[1].register_forward_hook(self.note)

    def note(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.means.append(out.mean().item())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


def test_a_hook_that_asks_for_values_stands_in_no_way() -> None:
    base = Logging()
    model = rlawrap.apply(base, k=4)
    assert not any("kept whole" in note for note in model.plan.notes)
    assert [b.path for b in model.plan.blocks] == [f"body.{i}" for i in range(4)]
    assert base.means == model.means == []
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(model(x), base(x))
    assert model.means == base.means != []


class Scaled:
    """Equalized learning rate: the weight is made of another one before every call."""

    def __call__(self, module: Any, args: Any) -> None:
        module.weight = module.weight_orig * math.sqrt(2 / module.weight_orig[0].numel())


def _scaled(conv: nn.Conv2d) -> nn.Conv2d:
    weight = conv.weight
    del conv._parameters["weight"]
    conv.register_parameter("weight_orig", nn.Parameter(weight.data))
    conv.register_forward_pre_hook(Scaled())
    return conv


class Equal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (_scaled(nn.Conv2d(8, 8, 3, padding=1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


def test_weights_that_a_hook_makes() -> None:
    base = nn.Sequential(nn.Conv2d(3, 8, 3), Equal(), Equal(), Equal())
    model = rlawrap.apply(base, k=4)
    assert [b.entries for b in model.plan.blocks] == [("1.a",), ("2.a",), ("3.a",)]
    check(base, model, images())


def test_hooks_for_others_run_around_what_was_recorded_alone() -> None:
    base = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(Double(8, 8) for _ in range(3)))
    calls: list[str] = []
    base[1].register_forward_hook(lambda *_: calls.append("1"))
    base[2].register_forward_hook(lambda module, args, out: out * 2)
    model = rlawrap.apply(base, k=4).eval()
    assert calls == []
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(model(x), base(x))
    assert calls == ["1", "1"]
