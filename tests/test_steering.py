"""Where discovery goes wrong or cannot trace: blocks=, stages=, leaf_modules=, a Plan by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap import Block, Plan


class Residual(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.norm(self.conv1(x)))))


class TwoWayDown(nn.Module):
    """Halves the image in two branches that are added: a transition that joins like a block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.point = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)) + self.point(F.avg_pool2d(x, 2, ceil_mode=True))


class Pyramid(nn.Module):
    """Three stages of residual blocks behind two-branch transitions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.downs = nn.ModuleList(TwoWayDown(8, 8) for _ in range(3))
        self.stages = nn.ModuleList(nn.Sequential(Residual(8), Residual(8)) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
        return self.head(x.mean((2, 3)))


def agrees(net: nn.Module, model: rlawrap.RLAModel, size: int = 20) -> bool:
    """Same outputs at identity init; others once the injections are not zero."""
    x = torch.randn(2, 3, size, size)
    same = torch.allclose(net.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("rla.inject", "rla.head.join")):
                parameter.normal_()
    return same and not torch.allclose(net(x), model(x))


@pytest.mark.parametrize(
    "choice",
    [
        Residual,
        (Residual, Residual),
        [f"stages.{i}.{j}" for i in range(3) for j in range(2)],
        "stages.*.*",
        lambda path, module: isinstance(module, Residual),
    ],
    ids=["class", "classes", "paths", "glob", "function"],
)
def test_blocks_leaves_out_what_only_looks_like_a_block(choice: object) -> None:
    net = Pyramid()
    alone = [b.path for b in rlawrap.inspect(net).blocks]
    assert [p for p in alone if p.startswith("downs")] == ["downs.0", "downs.1", "downs.2"]
    model = rlawrap.apply(net, k=4, blocks=choice)
    assert [b.path for b in model.plan.blocks] == [
        f"stages.{i}.{j}" for i in range(3) for j in range(2)
    ]
    assert [len(s.blocks) for s in model.plan.stages] == [2, 2, 2]
    assert agrees(net, model)


class Dilated(nn.Module):
    """The last two stages have one resolution, as in a segmentation backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Residual(8), Residual(8))
        self.layer2 = nn.Sequential(nn.MaxPool2d(2), Residual(8), Residual(8))
        self.layer3 = nn.Sequential(Residual(8, 2), Residual(8, 2), Residual(8, 2))
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))


@pytest.mark.parametrize("choice", [["layer1.*", "layer2.*", "layer3.*"], [2, 2, 3]])
def test_stages_separates_stages_of_one_resolution(choice: list[object]) -> None:
    net = Dilated()
    assert [len(s.blocks) for s in rlawrap.inspect(net).stages] == [2, 5]
    model = rlawrap.apply(net, k=4, stages=choice)  # type: ignore[arg-type]
    assert [len(s.blocks) for s in model.plan.stages] == [2, 2, 3]
    assert len(model.rla.cell) == 3  # one recurrent cell for each stage
    assert agrees(net, model)


class Routed(Residual):
    """Chooses its kernel by the brightest pixel: no graph does so."""

    def forward(self, x: Tensor) -> Tensor:
        brightest = x.detach().max()
        if brightest > 1.0:
            x = x / brightest
        return super().forward(x)


def test_leaf_modules_keeps_a_module_of_changing_control_flow_whole() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8), Routed(8), Residual(8), nn.Conv2d(8, 5, 1))
    assert any(note.startswith("kept whole: 2, it") for note in rlawrap.inspect(net).notes)
    model = rlawrap.apply(net, k=4, leaf_modules=[Routed], blocks=Residual)
    assert [b.path for b in model.plan.blocks] == ["1", "2", "3"]
    assert agrees(net, model)
    for factor in (0.01, 100.0):  # both ways through the control flow
        x = factor * torch.ones(1, 3, 9, 9)
        with rlawrap.disabled(model):
            torch.testing.assert_close(model(x), net(x))


class Products(nn.Module):
    """Steps of different form that multiply: nothing joins, nothing repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate1, self.value1 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.gate2, self.value2 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 5, padding=2)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.sigmoid(self.gate1(x)) * self.value1(x)
        x = torch.tanh(self.gate2(x)) * self.value2(x)
        return self.last(x.amax((2, 3)))


def test_plan_by_hand_for_a_network_without_joins() -> None:
    net = Products()
    assert [b.output for b in _found(net)] != [":mul", ":mul#1"]
    plan = Plan.of(
        "Products",
        [
            [
                Block(path="step1", entries=("value1", "gate1"), output=":mul"),
                Block(path="step2", entries=("value2", "gate2"), output=":mul#1"),
            ]
        ],
        head=("last",),
    )
    model = rlawrap.apply(net, k=4, plan=plan)
    assert model.plan.blocks == plan.blocks
    assert sorted(n for n, _ in model.rla.inject.named_children()) == ["1", "1_1"]
    assert agrees(net, model)


def _found(net: nn.Module) -> tuple[Block, ...]:
    try:
        return rlawrap.inspect(net).blocks
    except rlawrap.PlanError:
        return ()


def test_layers_chosen_as_blocks_are_entered_and_end_behind_their_activation() -> None:
    layers = [(nn.Conv2d(a, 8, 3, padding=1), nn.ReLU()) for a in (3, 8, 8)]
    net = nn.Sequential(*(layer for group in layers for layer in group)).eval()
    plan = rlawrap.inspect(net, blocks=nn.Conv2d)
    assert [(b.path, b.entries, b.output) for b in plan.blocks] == [
        (str(i), (str(i),), str(i + 1)) for i in (0, 2, 4)
    ]
    model = rlawrap.apply(net, k=4, blocks=nn.Conv2d)
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(model(x), net(x))


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (1, 2, 1, 1))


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


class CallsBefore(nn.Module):
    """A call changes the size of the image before the convolution that makes the logits."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8))
        self.last = nn.Conv2d(8, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.call(self.body(x)))


@pytest.mark.parametrize("call", [padded, enlarged])
def test_h_joins_a_classifier_behind_a_change_of_size(call: Callable[[Tensor], Tensor]) -> None:
    net = CallsBefore(call).eval()
    model = rlawrap.apply(net, k=4).eval()
    assert model.plan.head == ("last",)
    assert len(model.rla.head.join) == 1
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(model(x), net(x))
    torch.nn.init.ones_(model.rla.head.join["0"][-1].weight)
    with torch.no_grad():
        changed = model(x) - net(x)
    assert changed[:, :, 5, 5].abs().min() > 0
