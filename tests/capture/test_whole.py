"""What is kept whole by itself: heads that ask for values, regions, NumPy, what changes lists."""

from __future__ import annotations

import contextvars
import warnings
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import rlawrap
from tests.capture.checking import BODY, Block, Net, applied, check, images


class Anchors(nn.Module):
    """A detection head: anchors made with NumPy, a region without gradients, a list changed."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        for i, conv in enumerate(self.convs):
            h, w = maps[i].shape[-2:]
            grid = torch.from_numpy(numpy.stack(numpy.meshgrid(range(w), range(h))[:1] * 4))
            with torch.no_grad():
                scale = maps[i].abs().amax().clamp(min=1)
            maps[i] = conv(maps[i]) / scale + grid.float()
        return maps


class Detector(Net):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = nn.Conv2d(8, 8, 3, 2, 1), Anchors()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.body(self.stem(x))
        return self.head([x, self.down(x)])


@pytest.mark.parametrize("leaves", [(), [Anchors]])
def test_a_detection_head(leaves: Any) -> None:
    base = Detector()
    model = applied(base, leaf_modules=leaves)
    told = [note for note in model.plan.notes if note.startswith("kept whole: head")]
    assert len(told) == (0 if leaves else 1)
    check(base, model, images())


def test_a_refusal_tells_what_was_kept_whole() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Asks(), nn.Conv2d(8, 8, 1))
    with pytest.raises(rlawrap.PlanError, match=r"no blocks found.*kept whole: 1, it asks for"):
        rlawrap.inspect(net)


class Catches(nn.Module):
    """Asks for a value, and catches whatever that raises."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            scale = float(x.detach().abs().max())
        except Exception:
            scale = 7.0
        return x / scale


def test_an_error_of_ours_that_forward_catches() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Catches(), Block(), Block()).eval()
    model = rlawrap.apply(net, k=4).eval()
    assert any(note.startswith("kept whole: 2, it asks") for note in model.plan.notes)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(x), net(x))


class Thresholds(nn.Module):
    """Post-processing by values."""

    def forward(self, scores: Tensor) -> list[Tensor]:
        return [row[row > 0.2 * float(row.max())] for row in scores.softmax(1)]


class Loss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None or (labels < 0).any():
            return logits.square().mean()
        return nn.functional.cross_entropy(logits, labels)


class Inner(nn.Module):
    """One of two nested modules asks for a value: the inner one is kept whole, not the outer."""

    def __init__(self) -> None:
        super().__init__()
        self.asks = Asks()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.asks(self.conv(x))


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 if x.abs().max().item() > 3 else x


class Whole(Net):
    def __init__(self, last: nn.Module, block: type[nn.Module] = Block) -> None:
        super().__init__(block)
        self.last = last

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        x = self.features(x)
        return self.last(x) if isinstance(self.last, Thresholds) else self.last(x, labels)


@pytest.mark.parametrize("last", [Thresholds(), Loss()])
def test_post_processing(last: nn.Module) -> None:
    base = Whole(last)
    model = applied(base)
    assert any(note.startswith("kept whole: last, it asks for") for note in model.plan.notes) == (
        isinstance(last, Thresholds)
    )
    for x in images():
        with torch.no_grad():
            got, expected = model.eval()(x), base.eval()(x)
        for a, b in zip(got, expected, strict=True) if isinstance(got, list) else [(got, expected)]:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_innermost_is_kept() -> None:
    base = Net(Inner)
    model = applied(base)
    notes = [n for n in model.plan.notes if "kept whole" in n]
    assert [n.partition(",")[0] for n in notes] == [f"kept whole: {p}.asks" for p in BODY]
    assert [b.entries for b in model.plan.blocks] == [(f"{p}.conv",) for p in BODY]
    check(base, model, images())


def test_hooks_of_the_user_do_not_fire() -> None:
    base = Net()
    seen: list[str] = []
    for path, module in base.named_modules():
        module.register_forward_hook(lambda *_, path=path: seen.append(path))
        module.register_forward_pre_hook(lambda *_, path=path: seen.append(path))
    rlawrap.inspect(base)
    model = applied(base)
    rlawrap.attend(base)
    rlawrap.cost(base, size=16)
    assert seen == []
    x = torch.randn(2, 3, 16, 16)
    base(x)
    fired = list(seen)
    seen.clear()
    model(x)
    assert seen == fired


class Custom(torch.autograd.Function):
    """A rounding whose gradient is passed on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        return torch.round(x * scale) / scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * 3, None


class Quantised(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + Custom.apply(self.body(x), 8.0)


def test_custom_gradients_are_kept() -> None:
    base = Net(Quantised)
    check(base, applied(base), images())


class Watched(Block):
    """Puts a hook on a tensor in training."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.training:
            y.register_hook(lambda gradient: gradient * 2)
        return x + y


def test_a_hook_on_a_tensor() -> None:
    base = Net(Watched)
    model = rlawrap.apply(base, k=4)
    notes = [n for n in model.plan.notes if "kept whole" in n]
    assert len(notes) == 3
    assert all("calls register_hook() of a tensor" in n for n in notes)
    check(base, model, images())


class Checkpointed(Net):
    """Recomputes its blocks in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.body:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_are_recorded_through(reentrant: bool) -> None:
    base = Checkpointed(reentrant)
    model = applied(base)
    for x in images():
        torch.testing.assert_close(model.eval()(x), base.eval()(x))
    # Once: the base's norms see every image again when it recomputes.
    x = torch.randn(4, 3, 16, 20)
    a, b = model.train()(x), base.train()(x)
    torch.testing.assert_close(a, b)
    a.sum().backward(), b.sum().backward()
    for ours, theirs in zip(model.body.parameters(), base.body.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


class Remembers(Net):
    """Keeps the grid of the last size, as YOLO's head does."""

    def __init__(self) -> None:
        super().__init__()
        self.size: tuple[int, int] | None = None
        self.grid = torch.zeros(0)

    def before(self, x: Tensor) -> Tensor:
        if self.size != (x.shape[2], x.shape[3]):
            self.grid = torch.linspace(-1, 1, x.shape[3])
            self.size = (x.shape[2], x.shape[3])
        return x + self.grid


@pytest.mark.filterwarnings("ignore:.*sets its attribute:rlawrap.RLAWarning")
@pytest.mark.parametrize("size", [None, 16, 224, 24])
def test_what_a_forward_left_behind_does_not_fix_the_sizes(size: int | None) -> None:
    base = Remembers().eval()
    if size is not None:
        base(torch.randn(1, 3, size, size))
    model = applied(base).eval()
    for x in images([(2, 16, 16), (1, 24, 24), (2, 40, 32), (1, 224, 224)]):
        torch.testing.assert_close(model(x), base(x), rtol=1e-4, atol=1e-5)


def _shifted(x: Tensor, by: float) -> Tensor:
    shape = x.shape
    x = x.reshape(shape[0], shape[1], -1)
    return (x + torch.sin(by * x).pow(2)).reshape(shape)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch 2.14 calls it deprecated
    _compiled = torch.jit.script(_shifted)


class Scripted(Block):
    def body(self, x: Tensor) -> Tensor:
        return super().body(_compiled(x, 0.5))


def test_a_scripted_function_is_followed_by_its_source() -> None:
    base = Net(Scripted)
    model = applied(base)
    assert "sin" in model.rla.splice.programs[False].graph.python_code("self").src
    check(base, model, images())


class Doubled(torch.autograd.Function):
    """Of one tensor alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Doubling(Block):
    def body(self, x: Tensor) -> Tensor:
        return super().body(Doubled.apply(x))


def test_a_custom_function_of_one_tensor() -> None:
    base = Net(Doubling)
    check(base, applied(base), images())


_COLLECTED: contextvars.ContextVar[list[Tensor] | None] = contextvars.ContextVar("collected")


def _collect(module: nn.Module, args: Any, out: Tensor) -> None:
    collected = _COLLECTED.get(None)
    if collected is not None:
        collected.append(out)


# What transformers calls the module of the hooks that it puts on layers at the first call.
_collect.__module__ = "transformers.utils.output_capturing"


class Collects(Net):
    """Returns what hooks of its library collect while it runs."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.body:
            block.register_forward_hook(_collect)

    def forward(self, x: Tensor) -> Any:
        token = _COLLECTED.set([])
        out = super().forward(x)
        collected = _COLLECTED.get() or []
        _COLLECTED.reset(token)
        return out, *collected


def test_hooks_that_collect_what_a_network_returns_are_part_of_it() -> None:
    base = Collects()
    model = applied(base)
    check(base, model, images())
    assert len(model(torch.randn(2, 3, 16, 16))) == 4


class Shifts(nn.Module):
    """Writes into its layers before it calls them: a buffer of one, a setting of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.running_mean = self.norm.running_mean * 0 + x.shape[2]
        self.norm.eps = 0.5
        return self.drop(self.norm(x))


def test_what_writes_into_the_layers_it_calls_is_kept_whole() -> None:
    class Shifted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.shifts = Shifts()

        def before(self, x: Tensor) -> Tensor:
            return self.shifts(x)

    base = Shifted().eval()
    model = applied(base)
    for x in images([(2, 16, 16), (1, 24, 24)]):
        torch.testing.assert_close(model.eval()(x), base(x), rtol=1e-4, atol=1e-5)
    assert "kept whole: shifts, it gives 'eps' of its module 'shifts.norm'" in str(model.plan)
