"""Blocks that have no module of their own, and networks without joins."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap


def plan_of(model: nn.Module) -> rlawrap.Plan:
    return rlawrap.inspect(model, example_input=torch.zeros(2, 3, 16, 16))


class Loop(nn.Module):
    """A stage whose forward loops over bare convolutions."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + F.relu(conv(x))
        return x


class TwoHalves(nn.Module):
    """One block with two residual additions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.relu(self.conv1(x))
        return x + F.relu(self.conv2(x))


class Whole(nn.Module):
    """Residual steps written in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, 2, 1)
        self.c = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.a(x))
        x = F.relu(x + self.b(x))
        x = F.relu(self.down(x))
        x = F.relu(x + self.c(x))
        return self.fc(x.mean((2, 3)))


def sequence(*body: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def test_each_step_of_a_looping_stage_is_a_block() -> None:
    plan = plan_of(sequence(Loop(3), Loop(2)))
    assert [b.path for b in plan.blocks] == ["1[0]", "1[1]", "1[2]", "2[0]", "2[1]"]
    assert [b.entries for b in plan.blocks[:2]] == [("1.convs.0",), ("1.convs.1",)]
    assert dict(plan.left_out)["1"] == "a stage: its forward loops over steps"


def test_two_additions_in_one_forward_are_one_block() -> None:
    plan = plan_of(sequence(TwoHalves(), TwoHalves()))
    assert [b.path for b in plan.blocks] == ["1", "2"]
    assert [b.entries for b in plan.blocks] == [("1.conv1",), ("2.conv1",)]
    assert plan.blocks[0].branch == "1:relu#1"


def test_steps_of_the_networks_own_forward() -> None:
    plan = plan_of(Whole())
    assert [b.path for b in plan.blocks] == ["[0]", "[1]", "[2]"]
    assert [b.entries for b in plan.blocks] == [("a",), ("b",), ("c",)]
    assert [b.output for b in plan.blocks] == [":relu", ":relu#1", ":relu#3"]
    assert [len(stage.blocks) for stage in plan.stages] == [2, 1]
    assert plan.head == ("fc",)


def test_a_concatenation_inside_a_branch_ends_no_step() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2))
            self.wide = nn.ModuleList(nn.Conv2d(4, 2, 3, padding=1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            y, z = (F.relu(conv(x)) for conv in self.first)
            y = torch.cat([self.wide[0](y), self.wide[1](y)], 1)
            z = torch.cat([self.wide[2](z), self.wide[3](z)], 1)
            return torch.cat([F.relu(y), F.relu(z)], 1)

    plan = plan_of(sequence(Branches(), Branches()))
    assert [b.path for b in plan.blocks] == ["1", "2"]
    assert plan.blocks[0].entries == ("1.first.0", "1.first.1")


def test_no_joins_a_class_that_repeats() -> None:
    class Unit(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
            self.pointwise = nn.Conv2d(inputs, outputs, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.pointwise(F.relu(self.depthwise(x))))

    plan = plan_of(sequence(Unit(8, 8), Unit(8, 12), Unit(12, 8)))
    assert [b.path for b in plan.blocks] == ["1", "2", "3"]
    assert plan.blocks[0].branch is None


def test_no_joins_no_repeats_the_layers_themselves() -> None:
    plan = plan_of(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
    )  # fmt: skip
    assert [b.path for b in plan.blocks] == ["0", "3"]
    assert [b.output for b in plan.blocks] == ["1", "5"]
    assert [b.size for b in plan.blocks] == [(16, 16), (8, 8)]


def test_a_looping_stage_at_the_place_of_a_block_is_not_one_as_well() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Sequential(nn.Identity(), Loop(2)), nn.Sequential(TwoHalves(), TwoHalves()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    assert [b.path for b in plan_of(net).blocks] == ["1.1[0]", "1.1[1]", "2.0", "2.1"]


def test_an_identity_in_place_of_a_norm_is_passed() -> None:
    def layer(inputs: int, norm: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.Dropout(0.1), norm, nn.GELU())

    net = nn.Sequential(layer(3, nn.GroupNorm(2, 8)), layer(8, nn.Identity()), nn.Conv2d(8, 4, 1))
    plan = plan_of(net)
    assert [b.path for b in plan.blocks] == ["0.0", "1.0"]
    assert [b.output for b in plan.blocks] == ["0.3", "1.3"]


def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(),
    ]  # fmt: skip


def test_a_depthwise_convolution_and_the_dense_one_behind_it_are_one_block() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    layers = [separable(8, 12, 1), separable(12, 16, 2), separable(16, 8, 1)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    nested = plan_of(nn.Sequential(stem, *(nn.Sequential(*part) for part in layers), *tail))
    assert [b.path for b in nested.blocks] == ["1", "2", "3"]
    assert nested.blocks[1].entries == ("2.0",)
    assert dict(nested.left_out) == {"0.0": "no separable convolution, as all blocks are"}
    flat = plan_of(nn.Sequential(stem, *(m for part in layers for m in part), *tail))
    assert [b.path for b in flat.blocks] == ["1", "7", "13"]
    assert [b.output for b in flat.blocks] == ["6", "12", "18"]


def test_layers_whose_outputs_the_network_concatenates_are_blocks() -> None:
    class Layer(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(inputs, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x))

    class Growing(nn.Module):
        """Dense stages written in the network's own forward."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 8, 2, 2)
            self.one = nn.ModuleList(Layer(8 + 4 * i) for i in range(2))
            self.two = nn.ModuleList(Layer(8 + 4 * i) for i in range(3))
            self.fc = nn.Linear(20, 4)

        def stage(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
            features = [x]
            for layer in layers:
                features.append(layer(torch.cat(features, 1)))
            return torch.cat(features, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.down(self.stage(self.one, self.stem(x)))
            return self.fc(self.stage(self.two, x).mean((2, 3)))

    plan = plan_of(Growing())
    assert [b.path for b in plan.blocks] == ["one.0", "one.1", "two.0", "two.1", "two.2"]
    assert [b.entries for b in plan.blocks[:2]] == [("one.0.conv",), ("one.1.conv",)]
    assert [len(stage.blocks) for stage in plan.stages] == [2, 3]


class OwnNorm(nn.Module):
    """A norm with a threshold for an activation, by operations that are known as neither."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))
        self.floor = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-6) * self.scale
        return torch.max(x, self.floor)


def test_convolutions_between_norms_of_the_networks_own_are_layers() -> None:
    widths = [3, 6, 6, 8]
    layers = [
        layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, padding=1), OwnNorm(b))
    ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    plan = rlawrap.inspect(net)
    assert [(b.path, b.entries, b.output) for b in plan.blocks] == [
        (path, (path,), path) for path in ("0", "2", "4")
    ]
    assert plan.head == ("8",)
    with pytest.raises(rlawrap.PlanError, match="no blocks found"):
        rlawrap.inspect(nn.Sequential(*layers[2:], nn.AdaptiveAvgPool2d(1)))


class Boxes(nn.Module):
    """A detector's head: two corners from one map of distances, as sequences of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.distances = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.distances(x).flatten(2).chunk(2, 1)
        near, far = near * 2, far * 3
        return torch.cat([(near + far) / 2, far - near], 1)


def test_a_sum_of_two_results_is_no_sequence_of_tokens() -> None:
    class Unit(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(inputs, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.silu(self.conv(x))

    plan = plan_of(nn.Sequential(Unit(3), Unit(8), Unit(8), Boxes()))
    assert [b.path for b in plan.blocks] == ["0", "1", "2"]
    assert plan.left_out == ()


class PooledFirst(nn.Module):
    """PyTorch's MNIST example of old: the activation follows the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.drop, self.fc = nn.Dropout2d(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        return self.fc(x.mean((2, 3)))


def test_an_activation_behind_a_pool_makes_a_layer() -> None:
    base = PooledFirst().eval()
    plan = plan_of(base)
    assert [b.path for b in plan.blocks] == ["conv1", "conv2"]
    assert plan.blocks[1].entries == ("conv2",)
    x = torch.randn(2, 3, 28, 28)
    assert torch.equal(rlawrap.apply(base, k=4)(x), base(x))


def test_convolutions_without_any_activation_are_no_layers() -> None:
    with pytest.raises(rlawrap.PlanError, match="no activation follows its convolutions"):
        rlawrap.inspect(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)))


class Complex(nn.Module):
    """A residual block of complex images: real layers on their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.re, self.im = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.complex(torch.relu(self.re(x.real)), torch.relu(self.im(x.imag)))


def test_complex_images_are_no_images() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
            self.body = nn.Sequential(Complex(), Complex(), Complex())

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(torch.fft.fft2(self.stem(x))).abs().mean((2, 3)))

    base = Spectral().eval()
    with pytest.raises(rlawrap.PlanError, match=r"are no images of 4 axes.* 'body.0.re'"):
        plan_of(base)
    model = rlawrap.apply(base, k=4, blocks="body.*.[ri]*")
    assert len(model.plan.blocks) == 6
    x = torch.randn(2, 3, 12, 12)
    assert torch.allclose(model(x), base(x))
