"""Calls of rlawrap that are refused, and the calls that their messages tell to make instead."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual

IMAGE = torch.rand(2, 3, 12, 12) + 0.1
PART = "rlawrap.apply(model, at='body')"


@dataclass(frozen=True)
class Row:
    """A refused call. `told` are the calls in its message, `says` is a part of it.

    `last` is a part of the refusal without advice that it ends in, where nothing can be done.
    """

    name: str
    make: Callable[[], Any]
    told: tuple[str, ...]
    says: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    x: Any = None
    call: Callable[..., Any] = rlawrap.apply
    names: dict[str, Any] = field(default_factory=dict)
    last: str = ""


def features() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), Residual(4, 4), Residual(4, 4))


def classifier() -> nn.Sequential:
    return nn.Sequential(*features(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def grouped() -> nn.Sequential:
    return nn.Sequential(*features(), nn.Conv2d(4, 4, 1, groups=4))


def forward(net: nn.Sequential, x: Tensor) -> Tensor:
    return nn.Sequential.forward(net, x * 2)


def with_forward() -> nn.Sequential:
    net = classifier()
    net.forward = lambda x: forward(net, x)  # type: ignore[method-assign]
    return net


class Around(nn.Module):
    """Does something to the image before the body; `parts` are further children."""

    def __init__(self, does: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.body, self.does = classifier(), does
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.body(self.does(self, x))


class OfBoth(nn.Module):
    """Takes an image and its scale, and is of one size: no guess suits it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()
        self.grid = torch.ones(8)

    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        y: Tensor = self.net(image * self.grid * scale)
        return y


class Cut(nn.Module):
    """Cuts images to a length that it asks of a tensor."""

    def __init__(self, by_name: bool) -> None:
        super().__init__()
        self.both, self.by_name = OfBoth(), by_name
        self.calls = 0

    def forward(self, image: Tensor, length: Tensor) -> Tensor:
        self.calls += 1
        cut, scale = image[..., : int(length)], torch.tensor(2.0)
        cut = cut + torch.rand(()) * 0
        y: Tensor = self.both(cut, scale=scale) if self.by_name else self.both(cut, scale)
        return y.relu_()


def doing(name: str, does: Callable[[Any, Tensor], Any], says: str, **parts: Any) -> Row:
    """What no graph does, in the network's own forward: the body alone is rewritten."""
    return Row(name, lambda: Around(does, **parts), (PART,), says, x=IMAGE)


def without_gradients(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


def catching(net: nn.Module, x: Tensor) -> Tensor:
    try:
        return x * 2 if x.sum() > 0 else x
    except Exception:
        return x


def raising_another(net: nn.Module, x: Tensor) -> Tensor:
    try:
        return x * 2 if x.sum() > 0 else x
    except Exception as error:
        raise ValueError("no image") from error


def writing_where(net: nn.Module, x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0.5] = x[x > 0.5] * 2
    return y


class One:
    """An object that torch takes for a number."""

    def __index__(self) -> int:
        return 1


def counting(net: Any, x: Tensor) -> Tensor:
    net.side.steps = net.side.steps + 1
    return x


def shifting(net: Any, x: Tensor) -> Tensor:
    net.norm.running_mean = net.norm.running_mean + 1
    return net.norm(x)


def with_steps() -> nn.Module:
    side = nn.Module()
    side.register_buffer("steps", torch.zeros(()))
    return side


NO_GRAPH = [
    doing("a value", lambda net, x: x * 2 if x.sum() > 0 else x, "asks for a tensor's value"),
    doing("equal", lambda net, x: x if torch.equal(x, x + 1) else x * 2, "tensor's value"),
    doing("many values", lambda n, x: x * (torch.arange(70000).sum() > 0).item(), "asks for"),
    doing("vmap", lambda n, x: torch.vmap(lambda y: y * 2)(x), "in a transform of torch.func"),
    doing("a mask", lambda n, x: x + x[x > 0.5].sum(), "asks for a tensor's value"),
    doing("a masked write", writing_where, "asks for a tensor's value"),
    doing("Python draws", lambda net, x: x * random.random(), "draws random numbers of Python"),
    doing("torch draws", lambda n, x: x if torch.rand(1).item() > 2 else x * 2, "goes on with"),
    doing("no gradients", without_gradients, "switches gradients for a part"),
    doing("requires_grad", lambda net, x: x if x.requires_grad else x * 2, "'requires_grad'"),
    doing("a hook", lambda n, x: (n.body[0](x).register_hook(abs), x)[1], "acts on its gradient"),
    doing("data", lambda n, x: (setattr(y := x * 2, "data", x), y)[1], "changes more than what"),
    doing(
        "an object",
        lambda n, x: torch.narrow(x, 0, 0, One()).repeat(2, 1, 1, 1),
        "gives a One to a",
    ),
    doing("caught", catching, "asks for a tensor's value"),
    doing("caught and raised", raising_another, "asks for a tensor's value"),
    doing("a buffer", counting, "another value", side=with_steps()),
    doing("a layer's buffer", shifting, "of its module 'norm'", norm=nn.BatchNorm2d(3)),
]


class Called(nn.Module):
    """A body, with a forward from outside."""

    def __init__(self, does: Callable[..., Any], body: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.does = classifier() if body is None else body, does


class OfTwo(Called):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.does(self, x, y)


class OfOne(Called):
    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


class OfNone(Called):
    def forward(self) -> Any:
        return self.does(self)


class OfTokens(Called):
    """Rows of numbers become an image of one channel."""

    def __init__(self) -> None:
        body = nn.Sequential(Residual(4, 4), Residual(4, 4), nn.Conv2d(4, 4, 1))
        super().__init__(nn.Identity(), body)
        self.table, self.stem = nn.Embedding(10, 6), nn.Conv2d(1, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(self.table(x).unsqueeze(1)))


class OfKernels(nn.Module):
    """Makes the kernels of its convolutions out of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Linear(2, 81)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.maker(x.mean((2, 3))[:, :2].mean(0)).view(3, 3, 3, 3)
        for _ in range(3):
            x = x + F.conv2d(F.relu(x), kernel, padding=1)
        return x


class Tokens(nn.Module):
    """A patch embedding and residual steps over rows of tokens."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(F.gelu(self.a(x)))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.steps = nn.Sequential(*(self.Step() for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


def only_one(net: Any, x: Tensor) -> Tensor:
    """The body is called beside the way to the output, on single pixels."""
    return net.body(x.mean((2, 3), keepdim=True)).flatten(1)


def plain(*widths: int) -> nn.Sequential:
    """Convolutions in a row."""
    return nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))


def two() -> nn.Module:
    """Two networks in a dict, of which the model around calls none."""
    return inside(towers=nn.ModuleDict({"a": classifier(), "b": classifier()}))


def at_a_size() -> nn.Sequential:
    return nn.Sequential(*features(), nn.Flatten(), nn.Linear(4 * 144, 2))


def inside(**parts: nn.Module) -> nn.Module:
    return Around(lambda net, x: x, **parts)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3, padding=1), *features()[1:])


class NormByHand(nn.Module):
    """Does one thing in train mode and another in eval mode."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_mean.lerp_(x.detach().mean((0, 2, 3)).view(-1, 1, 1), 0.1)
            return x - x.mean((0, 2, 3), keepdim=True)
        return x - self.running_mean


def norm_by_hand() -> Any:
    return rlawrap.apply(nn.Sequential(*features(), NormByHand(4), *classifier()[3:]), k=2)


def compiled() -> Any:
    return torch.compile(classifier(), backend="eager")


def saved(folder: Path) -> dict[str, Path]:
    """Files of a network of a class that no name builds, and of tensors alone."""
    from safetensors.torch import save_file

    ours, theirs = folder / "ours.safetensors", folder / "theirs.safetensors"
    rlawrap.save(rlawrap.apply(classifier(), k=2), ours)
    save_file({"x": torch.zeros(1)}, theirs)
    return {"ours": ours, "theirs": theirs}
