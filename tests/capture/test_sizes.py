"""What forward computes from sizes, at every size and batch that the base takes."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.capture.checking import Block, Net, applied, check, images


class IsInstance(Net):
    def before(self, x: Tensor) -> Tensor:
        return x * 2 if isinstance(x, Tensor) and torch.is_tensor(x) else x * 3


class TypeOf(Net):
    def before(self, x: Tensor) -> Tensor:
        return x * 2 if type(x) is Tensor and not isinstance(x, nn.Parameter) else x * 3


class HasAttributes(Net):
    def before(self, x: Tensor) -> Tensor:
        known = hasattr(x, "shape") and callable(x.size) and not hasattr(x, "node")
        return x * 2 if known and torch.is_floating_point(x) and "Proxy" not in repr(x) else x * 3


class RankAsKey(Net):
    def before(self, x: Tensor) -> Tensor:
        return {3: x[None], 4: x}[x.ndim] * {4: 2.0}[len(x.shape)]


class Device(Net):
    def before(self, x: Tensor) -> Tensor:
        if x.is_cuda or x.device.type != "cpu" or x.dtype != torch.float32:
            x = x.float() * 0
        return x + torch.ones(1, device=x.device, dtype=x.dtype)


class ShapeTensor(Net):
    def before(self, x: Tensor) -> Tensor:
        h, w = (int(v) for v in torch.tensor(x.shape)[2:] // 2)
        return F.interpolate(x, size=[h, w])


class Rounded(Net):
    """Sizes that pass through Python's numbers."""

    def before(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        a, b = int(h * 0.75), round(w / 1.5)
        c, d = math.ceil(h / 3), math.floor(w / 3)
        x = F.interpolate(x, size=(max(a, c, 4), min(b, d, 30) + 5))
        return F.adaptive_avg_pool2d(x, (divmod(h, 2)[0], abs(-w) - w // 2))


class Math(Net):
    """Sizes that pass through the module `math`."""

    def before(self, x: Tensor) -> Tensor:
        n = math.isqrt(math.prod(x.shape[2:]))
        scale = math.sqrt(x.shape[2]) + math.log2(x.shape[3])
        return F.interpolate(x, size=(n, 2 + int(math.sqrt(n)))) / scale


class NumPy(Net):
    """Pads to a multiple by NumPy's numbers and functions, as audio codecs do."""

    def __init__(self) -> None:
        super().__init__()
        self.hop = numpy.prod([2, 2])

    def before(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        below = math.ceil(h / self.hop) * self.hop - h
        right = int(numpy.ceil(w / self.hop)) * self.hop - w
        x = F.pad(x, (0, right, 0, self.hop - 4 + below))
        return x / float(numpy.sqrt(w)) + numpy.floor(self.hop * h / numpy.float64(3))


class Strided(nn.Module):
    """Pads by whole numbers that it keeps in buffers, as audio codecs do."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, (1, kernel))
        self.register_buffer("padding", torch.tensor(kernel - 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.padding // 2, self.padding - self.padding // 2)))


class ByBuffers(Net):
    """Pads and cuts by the values of buffers; layers of one shape differ in them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pads = nn.Sequential(Strided(3), Strided(1))
        self.short = Strided(1)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.pads(x) + self.short(x)
        x = x[..., self.pads[0].padding // 2 :]
        return self.fc(self.body(x).mean((2, 3)))


class PythonTypes(Net):
    """Python's types as types of tensors."""

    def before(self, x: Tensor) -> Tensor:
        return x * torch.ones(1, dtype=int).to(dtype=float).float() + x.to(float).float()


class Padded(Net):
    """Pads to a multiple of 8, as detectors do, without a branch."""

    def before(self, x: Tensor) -> Tensor:
        bottom, right = -x.size(2) % 8, (8 - x.size(3) % 8) % 8
        return F.pad(x, (0, right, 0, bottom))


@functools.lru_cache
def _half(n: int) -> int:
    return n // 2


class Cached(Net):
    def before(self, x: Tensor) -> Tensor:
        return x[:, :, : _half(x.shape[2]) + 2]


class Grid(Net):
    """Coordinates of the pixels, made from the sizes."""

    def before(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = torch.linspace(0, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        z = torch.arange(w, device=x.device).float().repeat(n, h).view(n, 1, h, w)
        return x + y - z / w


class Windows(Net):
    def before(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        x = F.interpolate(x, (h // 4 * 4, w // 4 * 4))
        n, c, h, w = x.shape
        rows = x.reshape(n, c, h // 4, 4, -1, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        rows = rows - rows.mean(1, keepdim=True)
        rows = rows.view(n, h // 4, w // 4, 4, 4, c)
        return rows.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


class BuildsModules(Net):
    def before(self, x: Tensor) -> Tensor:
        return nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2))(x)


class Slices(Net):
    """Runs slices of its own containers as modules."""

    def features(self, x: Tensor) -> Tensor:
        x = self.body[:2](self.stem(x))
        return self.fc(self.body[2:](x).mean((2, 3)))


class Filled(Net):
    """Fills with, counts up to, and unpacks numbers that its own tensors hold."""

    def __init__(self) -> None:
        super().__init__()
        self.strides, self.two = torch.tensor([8.0, 4.0]), [torch.tensor(2)]

    def before(self, x: Tensor) -> Tensor:
        for stride in self.strides:
            grid = torch.full((x.size(2), 1), stride) + x.new_full((1, x.size(3)), self.strides[1])
            x = x + grid / stride
        steps = torch.arange(0, self.two[0])
        return x * steps.sum() + int(self.two[0]) * self.strides.tolist()[0]


class PlainAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.full((1, 3, 1, 1), 0.5)
        self.scales = [torch.tensor(2.0), torch.tensor([[[3.0]]])]

    def before(self, x: Tensor) -> Tensor:
        return (x - self.mean.type_as(x)) * self.scales[0] + self.scales[1]


FOLLOWED = [
    IsInstance, TypeOf, HasAttributes, RankAsKey, Device, ShapeTensor, Rounded, Math, NumPy,
    ByBuffers, PythonTypes, Padded, Cached, Grid, Windows, BuildsModules, Slices, PlainAttribute,
    Filled,
]  # fmt: skip


@pytest.mark.parametrize("net", FOLLOWED)
@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 24, 24)])
def test_followed_at_every_size(net: type[Net], example: Any) -> None:
    base = net()
    check(base, applied(base, example_input=example), images())


# The batch


class DropPath(Block):
    """Draws one number for each image, made of its batch."""

    def draw(self, n: int) -> Tensor:
        return torch.empty(n, 1, 1, 1).bernoulli_(0.8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + (y * self.draw(x.size(0)) if self.training else y)


class Rand(DropPath):
    def draw(self, n: int) -> Tensor:
        return torch.rand((n, 1, 1, 1)) * torch.rand(n)[:, None, None, None]


class Normal(DropPath):
    def draw(self, n: int) -> Tensor:
        return torch.normal(0.0, 1.0, (n, 1, 1, 1)) + torch.zeros(n, 1, 1, 1)


class Full(DropPath):
    def draw(self, n: int) -> Tensor:
        ones = torch.full((n, 1, 1, 1), 0.5)
        return ones.new_tensor(list(range(2)))[torch.randint(0, 2, (n,))].view(n, 1, 1, 1)


class Arange(DropPath):
    def draw(self, n: int) -> Tensor:
        return torch.arange(n)[torch.randperm(n)].view(-1, 1, 1, 1) / n


class EvenSizes(Net):
    """Refuses odd sizes, as U-Nets and detectors do."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__(block)
        self.down = nn.Conv2d(8, 8, 2, 2)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + F.interpolate(self.down(x), scale_factor=2)
        return self.fc(self.body(x).mean((2, 3)))


EVEN = ((2, 16, 16), (1, 32, 24), (6, 20, 18))


@pytest.mark.parametrize("block", [DropPath, Rand, Normal, Full, Arange])
@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 16, 16)])
@pytest.mark.parametrize("net", [Net, EvenSizes])
def test_the_batch_is_no_constant(block: type[nn.Module], example: Any, net: type[Net]) -> None:
    base = net(block)
    check(base, applied(base, example_input=example), images(EVEN))


class Loops(Net):
    """Goes through the images one by one."""

    def before(self, x: Tensor) -> Tensor:
        return torch.stack([x[i] - x[i].mean() for i in range(x.shape[0])])


class ByNumPy(Net):
    def before(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=tuple((numpy.array(x.shape[2:]) * 3 // 2).tolist()))


class RoundedByNumPy(Net):
    """Sizes that lie side by side have the same third."""

    def before(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=[int(numpy.trunc((n + 2) / 3)) for n in x.shape[2:]])


class AsksTheBatch(Net):
    """Goes the same way at most batches, and another at those of two images and fewer."""

    def before(self, x: Tensor) -> Tensor:
        return x * 2 if all(n > 2 for n in x.shape) else x


class Cache(Net):
    """Keeps its coordinates for every size, in a dict and by a method that is cached."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[int, int], Tensor] = {}

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def columns(self, n: int) -> Tensor:
        return torch.linspace(0, 1, n)

    def before(self, x: Tensor) -> Tensor:
        key = x.shape[2], x.shape[3]
        if key not in self.rows:
            self.rows[key] = torch.linspace(0, 1, x.shape[2])[:, None]
        return x + self.rows[key] * self.columns(x.shape[3])


@pytest.mark.filterwarnings("ignore:.*sets its attribute 'rows':rlawrap.RLAWarning")
@pytest.mark.parametrize("size", [None, 16, 224])
def test_caches_of_sizes(size: int | None) -> None:
    base = Cache()
    if size is not None:
        base.eval()(torch.randn(1, 3, size, size))
    check(base, applied(base), images())


def test_a_condition_on_the_batch_leaves_the_size_free() -> None:
    base = AsksTheBatch().eval()
    model = applied(base).eval()
    for x in images([(2, 16, 16), (1, 20, 24)]):
        torch.testing.assert_close(model(x), base(x))
    with pytest.raises(AssertionError, match="another size"):
        model(torch.randn(3, 3, 16, 16))


def test_a_batch_that_escapes_is_held() -> None:
    base = Loops().eval()
    model = applied(base, example_input=torch.randn(3, 3, 16, 16)).eval()
    assert "the network takes batches of 3 alone" in " ".join(model.plan.notes)
    for size in ((3, 16, 16), (3, 20, 24)):
        (x,) = images([size])
        torch.testing.assert_close(model(x), base(x))
    with pytest.raises(AssertionError, match=r"batch size of .3, 3, 16, 16."):
        model(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("net", [ByNumPy, RoundedByNumPy])
def test_a_size_that_escapes_is_held(net: type[Net]) -> None:
    base = net().eval()
    model = applied(base, example_input=torch.randn(2, 3, 16, 16)).eval()
    assert "recorded at 16x16" in " ".join(model.plan.notes)
    for n in (2, 5):
        x = torch.randn(n, 3, 16, 16)
        torch.testing.assert_close(model(x), base(x))
    with pytest.raises(AssertionError, match=r"image size of .2, 3, 16, 16."):
        model(torch.randn(2, 3, 20, 16))


# Checks and branches


class Multiple(Net):
    def before(self, x: Tensor) -> Tensor:
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise ValueError("sizes are multiples of 8")
        return x


class Residues(Net):
    """Pads by the residue, in a branch that stride 1 always takes the same way."""

    def before(self, x: Tensor) -> Tensor:
        for size in x.shape[2:]:
            if size % 1:
                x = x * 3
        return x


class PadsOdd(Net):
    """Pads an upsampled image only where it does not fit."""

    def before(self, x: Tensor) -> Tensor:
        up = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
        if up.shape != x.shape:
            up = F.pad(up, (0, x.shape[3] - up.shape[3], 0, x.shape[2] - up.shape[2]))
        return torch.cat([x, up], 1)[:, :3] + up


def test_checks_of_sizes_are_kept() -> None:
    base = Multiple().eval()
    model = applied(base).eval()
    for x in images([(2, 16, 24), (5, 40, 8)]):
        torch.testing.assert_close(model(x), base(x))
    count = int(model.body[0].norm.num_batches_tracked)
    with pytest.raises(AssertionError):
        model.train()(torch.randn(2, 3, 20, 16))
    assert int(model.body[0].norm.num_batches_tracked) == count


def test_hooks_fire_beside_a_check_that_stands_before_everything() -> None:
    class Checked(Block):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] % 8:
                raise ValueError("multiples of 8")
            return x + self.body(x)

    base = Multiple(Checked).eval()
    model = applied(base).eval()
    x = torch.randn(2, 3, 16, 24)
    for net in (base, model):
        seen: list[Tensor] = []
        net.body[0].register_forward_hook(lambda m, args, out, seen=seen: seen.extend((*args, out)))
        net(x)
        assert len(seen) == 2
        torch.testing.assert_close(seen[0], net.stem(x))
        torch.testing.assert_close(seen[1], seen[0] + net.body[0].body(seen[0]))


def test_a_branch_that_all_sizes_take_the_same_way() -> None:
    base = Residues()
    check(base, applied(base), images())


def test_conditional_padding_at_the_sizes_of_its_way() -> None:
    base = PadsOdd().eval()
    model = applied(base).eval()
    for x in images([(2, 16, 24), (3, 32, 18)]):
        torch.testing.assert_close(model(x), base(x))
    with pytest.raises(AssertionError, match="another size"):
        model(torch.randn(2, 3, 17, 16))
    odd = torch.randn(2, 3, 17, 16)
    model = applied(base, example_input=odd).eval()
    torch.testing.assert_close(model(odd), base(odd))


class LateStem(Net):
    """The stem is registered last."""

    def __init__(self) -> None:
        super().__init__()
        stem = self.stem
        del self.stem
        self.stem = stem


def test_the_input_is_that_of_the_convolution_that_runs_first() -> None:
    model = applied(LateStem())
    assert model.plan.input_shape[1] == 3


def test_another_device_or_type_later() -> None:
    base = Grid()
    model = applied(base).double().eval()
    x = torch.randn(2, 3, 20, 20, dtype=torch.double)
    assert model(x).dtype == base.double().eval()(x).dtype
    code = rlawrap.apply(Device(), k=4).rla.splice.programs[False].graph.python_code("self").src
    assert "device = " in code and "'cpu'" not in code and "float32" not in code
