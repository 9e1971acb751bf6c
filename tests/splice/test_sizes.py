"""h reaches the entries of blocks that pad, slice or enlarge the image, at every size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import random_rla

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Before(nn.Module):
    """A residual block that does something to the image before its first convolution."""

    def __init__(self, change: Callable[[Tensor], Tensor], dims: int = 2, padding: int = 0) -> None:
        super().__init__()
        self.change = change
        self.a = CONVS[dims](8, 8, 3, padding=padding)
        self.b = CONVS[dims](8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.tanh(self.a(self.change(x))))


class Net(nn.Module):
    """A stem, three blocks and a classifier over signals, images or volumes."""

    def __init__(self, block: Callable[[], nn.Module], dims: int = 2) -> None:
        super().__init__()
        self.stem = CONVS[dims](3, 8, 3, padding=1)
        self.body = nn.Sequential(*[block() for _ in range(3)])
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).flatten(2).mean(2))


class Down(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return y + self.b(torch.tanh(y))


class Padding(nn.Conv2d):
    """A convolution that pads by itself, more behind than before; `up`: from odd sizes, too."""

    def __init__(self, up: bool) -> None:
        super().__init__(8, 8, 3, 2)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        sides = [1 + self.up * n % 2 for n in (x.shape[3], x.shape[2])]
        return super().forward(F.pad(x, [sides[0] - 1, 1, sides[1] - 1, 1]))


class DownByItself(nn.Module):
    def __init__(self, up: bool) -> None:
        super().__init__()
        self.a, self.down = nn.Conv2d(8, 8, 1), Padding(up)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.a(x)))


class Up(nn.Module):
    """A decoder block that enlarges its input, then joins the skip, if it joins one."""

    def __init__(self, how: str, join: str) -> None:
        super().__init__()
        self.how, self.join = how, join
        self.a = nn.Conv2d(16 if join == "cat" else 8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.module = nn.Upsample(scale_factor=2)
        self.transposed = nn.ConvTranspose2d(8, 8, 2, 2)
        self.shuffle = nn.Sequential(nn.Conv2d(8, 32, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.how == "scale":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.how == "size":
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
        else:
            x = getattr(self, self.how)(x)
        if self.how != "size":  # to the skip's size, as the original U-Net does
            h, w = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = F.pad(x, [w // 2, w - w // 2, h // 2, h - h // 2])
        if self.join == "cat":
            x = torch.cat([x, skip], 1)
        elif self.join == "add":
            x = x + skip
        return self.b(torch.tanh(self.a(x)))


class UNet(nn.Module):
    def __init__(self, how: str, join: str = "cat", ups: int = 3) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.down = nn.ModuleList([Down() for _ in range(ups)])
        self.up = nn.ModuleList([Up(how, join) for _ in range(ups)])

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, skips.pop())
        return self.out(x)


class Enlarging(nn.Module):
    """Blocks that enlarge by a transposed convolution and have no skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.body = nn.Sequential(*[Grow() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.stem(x)))


class Grow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 3, 2)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.up(x))
        return x + self.b(torch.tanh(self.a(x)))


def pad_to_even(x: Tensor) -> Tensor:
    """Two more pixels, three at odd sizes, of which all but two are cut off again."""
    h, w = x.shape[-2:]
    return F.pad(x, [1, 1 + w % 2, 1, 1 + h % 2], mode="replicate")[..., : h + 2, : w + 2]


def pad_same(x: Tensor) -> Tensor:
    """Padding as TensorFlow's SAME computes it."""
    need = [(-(-n // 1) - 1) * 1 + 3 - n for n in x.shape[2:]]
    return F.pad(x, [need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2])


def reaches(base: nn.Module, entered: list[str], sizes: list[tuple[int, ...]]) -> None:
    """h enters the blocks, nothing is dropped, and each entry changes the output at every size."""
    model = rlawrap.apply(base.eval(), k=4)  # a warning would be an error
    assert list(model.rla.inject._modules) == entered
    assert not any("h does not" in note for note in model.plan.notes)
    images = [torch.randn(batch, *size) for size in sizes for batch in (1, 3)]
    for x in images:
        assert torch.equal(model(x), base(x))
    random_rla(model, 0.3)
    for x in images:
        whole = model(x)
        for name in entered:
            *_, weight = model.rla.inject[name].parameters()
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.zero_()
            change = (model(x) - whole).abs().max()
            with torch.no_grad():
                weight.copy_(kept)
            assert change > 1e-6, (name, tuple(x.shape))


def sizes_of(dims: int) -> list[tuple[int, ...]]:
    return [(3, *range(n, n + dims)) for n in (8, 13, 16)]


PADS = {
    f"{kind}{dims}d": (dims, getattr(nn, f"{kind}Pad{dims}d"))
    for kind in ("Circular", "Reflection", "Replication", "Zero")
    for dims in (1, 2, 3)
}


@pytest.mark.parametrize(("dims", "pad"), PADS.values(), ids=PADS)
def test_modules_that_pad(dims: int, pad: type[nn.Module]) -> None:
    reaches(Net(lambda: Before(pad(1), dims), dims), ["1", "2"], sizes_of(dims))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "circular function": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "reflect function": lambda x: F.pad(x, (2, 0, 0, 2), "reflect"),
    "computed": pad_same,
    "computed, then cut": pad_to_even,
    "pad then slice": lambda x: F.pad(x, (2, 1, 1, 2))[:, :, :-1, 1:],
    "shift by slices": lambda x: F.pad(x[:, :, 2:], (1, 1, 2, 2)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_functions_that_pad_and_slices(change: Callable[[Tensor], Tensor]) -> None:
    reaches(Net(lambda: Before(change)), ["1", "2"], sizes_of(2))


ENLARGED = [(how, "cat") for how in ("scale", "size", "module", "transposed", "shuffle")]


@pytest.mark.parametrize(("how", "join"), [*ENLARGED, ("scale", "add"), ("size", "add")])
def test_decoder_blocks_that_enlarge(how: str, join: str) -> None:
    odd = [(3, 16, 24), (3, 19, 21), (3, 29, 33)]
    reaches(UNet(how, join, ups=2), ["1", "2", "3"], odd)


def test_a_transposed_convolution_before_the_first_dense_one() -> None:
    reaches(Enlarging(), ["1", "2"], [(3, 8, 8), (3, 9, 11)])


class Unlike(nn.Module):
    """Train mode scales the enlarged image by a random number, eval mode does not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2)
        if self.training:
            x = x * x.new_empty(()).uniform_(0.5, 1.5)
        return x + self.b(torch.tanh(self.a(x)))


def test_h_is_enlarged_in_both_modes() -> None:
    base = Net(Unlike)
    model = random_rla(rlawrap.apply(base, k=4), 0.3)
    assert list(model.rla.inject._modules) == ["1", "2"]
    for training in (False, True):
        model.train(training)(torch.randn(2, 3, 8, 9)).sum().backward()
        assert all(p.grad.abs().max() > 0 for p in model.rla.inject.parameters())
        model.zero_grad()


class LastAxis(nn.Module):
    """A block over images whose channels are the last axis, padded and cut along the others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (0, 0, 1, 2, 0, 1))
        return x + self.b(torch.tanh(self.a(y)))[:, :-1, 1:-2]


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.body = nn.Sequential(*[LastAxis() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_images_whose_channels_come_last() -> None:
    reaches(ChannelsLast(), ["1", "2"], sizes_of(2))


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_deep_maps_round_as_the_network_does(up: bool) -> None:
    blocks = [nn.Sequential(Before(torch.tanh, padding=1), DownByItself(up)) for _ in range(5)]
    base = nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, Before(torch.tanh, padding=1)).eval()
    model = rlawrap.apply(base, k=4, blocks=(Before, DownByItself))
    down = [layer for layer in model.rla.down.values() if isinstance(layer, nn.AvgPool2d)]  # type: ignore[union-attr]
    assert [layer.ceil_mode for layer in down] == [up] * 5
    random_rla(model)
    for size in [(77, 69), (64, 64), (63, 65)]:
        x = torch.randn(1, 3, *size)
        deepest = [-(-n // 32) if up else n // 32 for n in size]
        assert model(x).shape == base(x).shape == (1, 8, *deepest)


def pad_to_half(x: Tensor) -> Tensor:
    """As much as a kernel of 5 and stride 2 need for half of the pixels, rounded up."""
    need = 3 + x.shape[2] % 2
    return F.pad(x, [need // 2, need - need // 2])


def cut_to_half(x: Tensor) -> Tensor:
    """One pixel less of odd sizes, which rounds half of them down."""
    return F.pad(x[..., x.shape[2] % 2 :], [2, 2])


class Halves(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change
        self.a = nn.Conv1d(8, 8, 5, 2)
        self.b = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.a(self.change(x)))
        return y + self.b(y)


@pytest.mark.parametrize("change", [pad_to_half, cut_to_half])
def test_amounts_that_are_the_same_at_all_probes_by_chance(
    change: Callable[[Tensor], Tensor],
) -> None:
    # Signals of 1024, 1056, 1061 and 1043 have even thirds, all of them.
    body = [Before(torch.tanh, 1, padding=1), Halves(change), Before(torch.tanh, 1, padding=1)]
    base = nn.Sequential(nn.Conv1d(3, 8, 3, 3, 1), *body).eval()
    model = rlawrap.apply(base, k=4, blocks=(Before, Halves))
    assert "1" in model.rla.inject and "2" in model.rla.inject  # type: ignore[operator]
    random_rla(model)
    for size in range(30, 42):
        x = torch.randn(1, 3, size)
        assert model(x).shape == base(x).shape


def test_a_map_of_one_size_is_reached_from_images_of_any() -> None:
    body = [Before(torch.tanh, padding=1), nn.AdaptiveAvgPool2d(2), Before(torch.tanh, padding=1)]
    base = nn.Sequential(nn.Conv2d(3, 8, 1), *body).eval()
    model = random_rla(rlawrap.apply(base, k=4))
    for size in [(224, 224), (352, 96), (7, 9), (2, 2)]:
        assert model(torch.randn(1, 3, *size)).shape == (1, 8, 2, 2)


class LosesAPixel(nn.Module):
    """Pools round down, so that 17 becomes 8 and then 16; the concatenation takes no odd 8."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 8), (8, 8), (16, 8), (8, 4))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in widths)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = self.convs
        x = self.pool(torch.relu(first(x)))
        x = torch.cat((x, self.up(torch.relu(second(self.pool(x))))), 1)
        return torch.relu(last(self.up(torch.relu(third(x)))))


def test_maps_that_differ_at_sizes_that_are_one_above_even_alone() -> None:
    base = LosesAPixel().eval()
    model = random_rla(rlawrap.apply(base, k=4, example_input=torch.zeros(1, 3, 16, 16))).eval()
    for size in [(16, 16), (17, 16), (20, 21), (21, 25), (32, 48)]:
        x = torch.randn(1, 3, *size)
        assert model(x).shape == base(x).shape
