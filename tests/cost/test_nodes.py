"""Networks whose blocks or weights are no modules: counted where they run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import rlawrap
from rlawrap.cost import Count, cost


class Functions(nn.Module):
    """Weights are parameters, layers are functions; the second kernel is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.w = nn.ParameterList([nn.Parameter(torch.randn(8, 8, 3, 3)) for _ in range(3)])
        self.fc = nn.Parameter(torch.randn(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.stem, padding=1)
        for i, w in enumerate(self.w):
            if i == 2:
                x = F.max_pool2d(x, 2)
            x = x + torch.relu(F.conv2d(x, w - w.mean() if i == 1 else w, padding=1))
        return torch.einsum("oc,nc->no", self.fc, x.mean((2, 3)))


class Steps(nn.Module):
    """Two stages of steps in the network's own forward, with a reduction between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.a = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.down = nn.Conv2d(4, 8, 2, 2, bias=False)
        self.b = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.fc = nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv in self.a:
            x = x + torch.relu(conv(x))
        x = self.down(x)
        for conv in self.b:
            x = x + torch.relu(conv(x))
        return self.fc(x.mean((2, 3)))


class Scales(nn.Module):
    """Modules in a row; the parameter that scales them belongs to none."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * self.body(x)


K = 3 * 3  # values of a kernel's plane
FUNCTIONS = {
    "stem": Count(params=8 * 3 * K, macs=8 * 3 * K * 64),
    "stage 0": Count(params=2 * 64 * K, macs=2 * 64 * K * 64),
    "stage 1": Count(params=64 * K, macs=64 * K * 16),
    "head": Count(params=40, macs=40),
}
STEPS = {
    "stem": Count(params=4 * 3 * K, macs=4 * 3 * K * 64),
    # What runs between two blocks belongs to the stage of the first of them.
    "stage 0": Count(params=2 * 16 * K + 4 * 8 * 4, macs=2 * 16 * K * 64 + 4 * 8 * 4 * 16),
    "stage 1": Count(params=2 * 64 * K, macs=2 * 64 * K * 16),
    "head": Count(params=24, macs=24),
}


@pytest.mark.parametrize(("net", "parts"), [(Functions(), FUNCTIONS), (Steps(), STEPS)])
def test_each_part_has_what_runs_in_it(net: nn.Module, parts: dict[str, Count]) -> None:
    plain = cost(net, size=8)
    assert plain.input_shape == (1, 3, 8, 8)
    assert {part.name: part.base for part in plain.parts} == parts
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 8, 8))
    assert plain.total.flops == counter.get_total_flops()


@pytest.mark.parametrize(("net", "parts"), [(Functions(), FUNCTIONS), (Steps(), STEPS)])
def test_the_hidden_state_of_steps_is_counted_beside_them(
    net: nn.Module, parts: dict[str, Count]
) -> None:
    model = rlawrap.apply(net, k=4)
    result = cost(model, size=8)
    assert {part.name: part.base for part in result.parts} == parts
    x = torch.zeros(1, 3, 8, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    assert result.total.flops == counter.get_total_flops()
    stage = model.rla.plan.stages[1]
    first = len(model.rla.plan.blocks) - len(stage.blocks)
    mine = ["rla.input.1_", "rla.cell.1."]
    mine += [f"rla.{p}.{first + i}." for p in ("inject", "block") for i in range(len(stage.blocks))]
    own = sum(p.numel() for name, p in model.named_parameters() if name.startswith(tuple(mine)))
    by_name = {part.name: part.rla for part in result.parts}
    assert by_name["stage 1"].params == own > 0
    assert by_name["stage 0"].macs > by_name["stage 1"].macs > by_name["stem"].macs == 0


def test_a_parameter_of_the_network_itself_runs_where_it_is_read() -> None:
    parts = {part.name: part.base.params for part in cost(Scales(), size=8).parts}
    assert "not run" not in parts
    assert sum(parts.values()) == 163


def test_the_first_convolution_that_runs_tells_the_channels() -> None:
    """A convolution of eight channels is the first among the modules."""

    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(8, 4, 3), nn.Conv2d(2, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert cost(Reversed(), size=9).input_shape == (1, 2, 9, 9)
