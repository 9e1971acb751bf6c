from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from rlawrap.cost import Count, cost
from rlawrap.errors import ConfigError, PlanError
from rlawrap.models import cifar


def resnext101_32x4d() -> nn.Module:
    bottleneck = torchvision.models.resnet.Bottleneck
    return torchvision.models.ResNet(bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)


# Exact at 224x224, batch 1: parameters, MACs of convolutions and linear layers, elements out of
# batch norms.
REFERENCE: list[tuple[Callable[[], nn.Module], int, int, int]] = [
    (torchvision.models.resnet50, 25_557_032, 4_089_184_256, 11_113_984),
    (torchvision.models.resnet101, 44_549_160, 7_801_405_440, 16_231_936),
    (torchvision.models.resnet152, 60_192_808, 11_513_626_624, 22_554_112),
    (torchvision.models.resnext50_32x4d, 25_028_904, 4_230_479_872, 14_400_512),
    (resnext101_32x4d, 44_177_704, 7_969_996_800, 21_224_448),
    (torchvision.models.mobilenet_v2, 3_504_872, 300_774_272, 6_678_112),
]


@pytest.mark.parametrize(
    ("build", "params", "macs", "norm_elements"), REFERENCE, ids=[r[0].__name__ for r in REFERENCE]
)
def test_exact_counts(
    build: Callable[[], nn.Module], params: int, macs: int, norm_elements: int
) -> None:
    total = cost(build(), size=224).total
    assert (total.params, total.macs, total.norm_elements) == (params, macs, norm_elements)
    assert total.flops == 2 * macs
    assert total.paper_ops == macs + 2 * norm_elements


def test_grouped_and_strided_by_hand() -> None:
    """Padding, stride, groups, a linear layer on every pixel: counted on paper."""
    net = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6))
    total = cost(net, size=(7, 5)).total
    outputs = 6 * 4 * 3
    assert total == Count(params=6 * 2 * 9 + 6 + 12, macs=outputs * 2 * 9, norm_elements=outputs)


@pytest.mark.parametrize(
    ("layer", "size", "macs"),
    [
        (nn.Conv1d(2, 3, 5), 9, 3 * 5 * 2 * 5),
        (nn.Conv3d(2, 3, 1), (2, 3, 4), 3 * 24 * 2),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), 4, 2 * 16 * 3 * 4),
    ],
    ids=["1d", "3d", "transposed"],
)
def test_other_dimensions(layer: nn.Module, size: int | tuple[int, ...], macs: int) -> None:
    assert cost(nn.Sequential(layer), size=size).total.macs == macs


def test_shared_layer_costs_parameters_once_and_operations_per_call() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    total = cost(nn.Sequential(layer, layer), size=8).total
    assert total.params == 81
    assert total.macs == 2 * 81 * 64


def test_functional_layers_are_counted() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.weight = nn.Parameter(torch.zeros(5, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.conv(x).mean((2, 3)), self.weight)

    total = cost(Functional(), size=8).total
    assert total.macs == 12 * 64 + 20
    assert total.params == 16 + 20


class Gate(nn.Module):
    """Squeeze by global pooling, then a convolution over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.excite(self.squeeze(x)))


def test_pooling_in_the_paper_count() -> None:
    """A gate's pooling counts its inputs, a windowed one its outputs, the last one nothing."""
    net = nn.Sequential(Gate(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1))
    total = cost(net, size=8).total
    assert total.pool_elements == 4 * 64 + 4 * 16
    assert total.paper_ops == total.macs + 4 * 64 + 4 * 16


def test_a_mean_over_channels_is_no_pooling() -> None:
    class ChannelMean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(1, keepdim=True)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), ChannelMean(), nn.Conv2d(4, 4, 1))
    assert cost(net, size=8).total.pool_elements == 0


def snapshot(model: nn.Module) -> dict[str, object]:
    return {
        "state": copy.deepcopy(model.state_dict()),
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "grads": [p.grad is None for p in model.parameters()],
    }


def test_the_model_is_untouched() -> None:
    model = torchvision.models.mobilenet_v2(num_classes=3)
    model.features[3].eval()
    seen: list[object] = []
    model.features[0].register_forward_hook(lambda *args: seen.append(args))
    before, random_state = snapshot(model), torch.get_rng_state()
    cost(model, size=64)
    after = snapshot(model)
    state, new_state = before.pop("state"), after.pop("state")
    assert before == after
    assert isinstance(state, dict) and isinstance(new_state, dict)
    assert list(state) == list(new_state)
    assert all(torch.equal(state[k], new_state[k]) for k in state)
    assert torch.equal(random_state, torch.get_rng_state())
    assert seen == []


def test_no_memory_is_needed() -> None:
    """A model on the meta device has no data at all, and is counted the same."""
    model = torchvision.models.resnet18()
    assert cost(model.to("meta"), size=224).total.macs == 1_814_073_344


def test_half_precision_and_large_inputs() -> None:
    model = torchvision.models.resnet18().to(torch.bfloat16)
    assert cost(model, size=2240).total.macs > 100 * 1_800_000_000


def test_input_channels_and_default_sizes() -> None:
    assert cost(cifar.cifar_resnet20(in_channels=1)).input_shape == (1, 1, 32, 32)
    assert cost("cifar_resnet20", size=(24, 40)).input_shape == (1, 3, 24, 40)
    assert cost(torchvision.models.squeezenet1_1()).input_shape == (1, 3, 224, 224)


def test_parameters_that_do_not_run_are_shown() -> None:
    model = torchvision.models.resnet18()
    model.spare = nn.Linear(10, 10)
    parts = {part.name: part.total.params for part in cost(model, size=64).parts}
    assert parts["not run"] == 110


def test_parts_add_up() -> None:
    result = cost(torchvision.models.resnet50(), size=64)
    assert sum((part.total for part in result.parts), Count()) == result.total
    assert result.rla == Count()


def test_bad_input() -> None:
    model = torchvision.models.resnet18()
    with pytest.raises(ConfigError, match="at least 1"):
        cost(model, size=0)
    with pytest.raises(ConfigError, match="2 spatial axes"):
        cost(model, size=(8, 8, 8))
    with pytest.raises(PlanError, match=r"does not run on an input of shape \(1, 4, 64, 64\)"):
        cost(model, size=64, in_channels=4)
    with pytest.raises(PlanError, match="no convolution module"):
        cost(nn.Linear(3, 3))
    with pytest.raises(PlanError, match="got int"):
        cost(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no such network"):
        cost("resnet_fifty")
