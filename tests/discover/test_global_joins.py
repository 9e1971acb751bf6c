"""Blocks of no class of their own: plain Sequentials, functional steps, layers under one skip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.discover.renaming import renamed, translated
from tests.nets import Residual

IMAGE = torch.zeros(2, 3, 16, 16)


def double(inputs: int, outputs: int, *before: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        *before, nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Sequentials of the root; what pools lies in them, which changes no structure."""

    def __init__(self) -> None:
        super().__init__()
        self.d1, self.d2 = double(3, 8), double(8, 16, nn.MaxPool2d(2))
        self.d3 = double(16, 32, nn.MaxPool2d(2))
        self.u2, self.u1, self.out = double(48, 16), double(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.d1(x)
        b = self.d2(a)
        y = self.u2(torch.cat([b, F.interpolate(self.d3(b), scale_factor=2)], 1))
        return self.out(self.u1(torch.cat([a, F.interpolate(y, scale_factor=2)], 1)))


class First(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.last(F.relu(self.norm(self.conv(x)))))


class Second(First):
    pass


class UnlikeClasses(UNet):
    """One structure in three classes, none of which stands three times."""

    def __init__(self) -> None:
        super().__init__()
        self.d1, self.u1 = First(3, 8), First(24, 8)
        self.d2, self.u2 = nn.Sequential(nn.MaxPool2d(2), *double(8, 16)), Second(48, 16)


class Functional(nn.Module):
    """A UNet whose layers are called one by one in the root's forward."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 8), (8, 8), (8, 16), (16, 16), (24, 8), (8, 8))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in widths)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.convs[1](F.relu(self.convs[0](x))))
        b = F.relu(self.convs[3](F.relu(self.convs[2](F.max_pool2d(a, 2)))))
        y = torch.cat([a, F.interpolate(b, scale_factor=2)], 1)
        return self.out(F.relu(self.convs[5](F.relu(self.convs[4](y)))))


class Stack(nn.Module):
    """Layers in a list, and one skip around all (denoisers, super-resolution)."""

    def __init__(self, skip: bool = True, depth: int = 4) -> None:
        super().__init__()
        self.skip, self.body = skip, nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8)])
        for _ in range(depth):
            self.body += [nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(8)]
        self.body.append(nn.Conv2d(8, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.body:
            y = layer(y)
        y = F.pixel_shuffle(y, 2)
        return y + F.interpolate(x, scale_factor=2) if self.skip else y


class Pix2Pix(nn.Module):
    """Sequentials of one convolution, with the activation in front."""

    def __init__(self) -> None:
        super().__init__()

        def down(inputs: int, outputs: int) -> nn.Module:
            conv = nn.Conv2d(inputs, outputs, 4, 2, 1)
            return nn.Sequential(nn.LeakyReLU(0.2), conv, nn.BatchNorm2d(outputs))

        def up(inputs: int, outputs: int) -> nn.Module:
            conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
            return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))

        self.stem, self.out = nn.Conv2d(3, 8, 4, 2, 1), nn.ConvTranspose2d(16, 3, 4, 2, 1)
        self.d1, self.d2, self.d3 = down(8, 16), down(16, 16), down(16, 16)
        self.u3, self.u2, self.u1 = up(16, 16), up(32, 16), up(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.d1(a)
        c = self.d2(b)
        y = torch.cat([self.u3(self.d3(c)), c], 1)
        y = torch.cat([self.u2(y), b], 1)
        return self.out(F.relu(torch.cat([self.u1(y), a], 1)))


class Stages(nn.Module):
    """A plain chain, in Sequentials of one structure."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = double(3, 8), double(8, 8), double(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


def blocks(net: nn.Module, **options: object) -> list[str]:
    return [b.path for b in rlawrap.inspect(net, example_input=IMAGE, **options).blocks]


def sound(net: nn.Module, size: int = 16) -> rlawrap.RLAModel:
    model = rlawrap.apply(net, k=4, example_input=IMAGE).eval()
    x = torch.randn(3, 3, size, size)
    assert torch.allclose(model(x), net.eval()(x), atol=1e-5)
    return model


def test_sequentials_of_one_structure_are_blocks() -> None:
    assert blocks(UNet()) == ["d1", "d2", "d3", "u2", "u1"]
    plan = sound(UNet()).plan
    assert [b.entries for b in plan.blocks] == [
        ("d1.0",),
        ("d2.1",),
        ("d3.1",),
        ("u2.0",),
        ("u1.0",),
    ]
    assert plan.head == ("out",)


def test_one_structure_in_several_classes() -> None:
    assert blocks(UnlikeClasses()) == ["d1", "d2", "d3", "u2", "u1"]


def test_a_unet_of_sequentials_inside_a_module() -> None:
    net = nn.Sequential(UNet(), nn.Sigmoid())
    plan = sound(net).plan
    assert [b.path for b in plan.blocks] == ["0.d1", "0.d2", "0.d3", "0.u2", "0.u1"]
    assert dict(plan.left_out) == {"0": "joins around most of the network: a global skip"}


def test_functional_steps_of_the_root_are_blocks_layer_by_layer() -> None:
    assert blocks(Functional()) == [f"convs.{i}" for i in range(6)]
    assert sound(Functional(), size=24).plan.head == ("out",)


@pytest.mark.parametrize("wrap", [False, True])
def test_layers_under_one_global_skip_are_blocks_as_without_it(wrap: bool) -> None:
    def net(skip: bool) -> nn.Module:
        return nn.Sequential(Stack(skip)) if wrap else Stack(skip)

    with_skip, without = (rlawrap.inspect(net(skip), example_input=IMAGE) for skip in (True, False))
    at = "0." if wrap else ""
    assert [b.path for b in with_skip.blocks] == [f"{at}body.{i}" for i in range(0, 10, 2)]
    assert [b.output for b in with_skip.blocks] == [f"{at}body.{i}" for i in range(1, 11, 2)]
    assert with_skip.digest == without.digest
    assert with_skip.head == (f"{at}body.10",)
    sound(net(True))


def test_sequentials_of_one_convolution_that_is_no_layer() -> None:
    plan = sound(Pix2Pix(), size=32).plan
    assert [b.path for b in plan.blocks] == ["d1", "d2", "d3", "u3", "u2", "u1"]
    assert [b.entries for b in plan.blocks[:4]] == [("d1.1",), ("d2.1",), ("d3.1",), ()]


def test_in_a_plain_chain_the_layers_are_blocks_whatever_holds_them() -> None:
    assert blocks(Stages()) == ["a.0", "a.3", "b.0", "b.3", "c.0", "c.3"]


def test_a_skip_around_residual_blocks_changes_nothing() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.body = nn.Sequential(*(Residual(8, 8) for _ in range(3)))
            self.out = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return x + self.out(y + self.body(y))

    assert blocks(Around()) == ["body.0", "body.1", "body.2"]


def test_a_residual_block_of_four_convolutions_is_no_global_skip() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            y = x
            for conv in self.convs:
                y = F.relu(conv(y))
            return x + y

    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Deep(), Deep(), nn.Conv2d(8, 2, 1))
    assert blocks(body) == ["1", "2"]


@pytest.mark.parametrize("make", [UNet, UnlikeClasses, Functional, Stack, Pix2Pix])
def test_the_names_of_attributes_decide_nothing(make: type[nn.Module]) -> None:
    net = make()
    twin, paths = renamed(net, seed=5)
    ours = translated(rlawrap.inspect(twin, example_input=IMAGE), {p: p for p in paths.values()})
    assert ours == translated(rlawrap.inspect(net, example_input=IMAGE), paths)


class Skip(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def nested(depth: int, width: int) -> nn.Sequential:
    """Down, a skip around the next level or one convolution at the bottom, and up, as layers."""

    def layer(inputs: int, outputs: int, transposed: bool = False) -> nn.Sequential:
        if transposed:
            made: nn.Module = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
        else:
            made = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(made, nn.BatchNorm2d(outputs), nn.PReLU())

    inner = nested(depth - 1, width) if depth > 1 else layer(width, width)
    down = nn.Sequential(nn.AvgPool2d(2), layer(width, width))
    return nn.Sequential(down, Skip(inner), layer(2 * width, width, transposed=True))


def test_skips_that_hold_skips_are_no_block_and_no_class_that_repeats() -> None:
    base = nn.Sequential(nn.Conv2d(3, 4, 1), nested(3, 4), nn.Conv2d(4, 2, 1)).eval()
    plan = sound(base, size=32).plan
    skips = ["1", "1.1.body", "1.1.body.1.body"]
    down = [f"{path}.0.1.0" for path in skips]
    assert [b.path for b in plan.blocks] == [*down, f"{skips[-1]}.1.body.0"]
    assert ("1.1", "joins around most of the network: a global skip") in plan.left_out


def test_a_block_that_holds_one_of_its_class_and_few_layers_is_a_block() -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    outer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), Skip(inner))
    plan = rlawrap.inspect(nn.Sequential(
        nn.Conv2d(3, 4, 1), Skip(outer), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)
    ))  # fmt: skip
    assert [b.path for b in plan.blocks] == ["1"]
