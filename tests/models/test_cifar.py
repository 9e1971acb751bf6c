from __future__ import annotations

import pytest
import torch

from rlawrap.errors import ConfigError
from rlawrap.models import cifar, get_model, list_models

DEPTHS = (20, 32, 56, 110, 164)


# Depths 20 to 110: the sizes in table 6 of He et al. 2016 (0.27M, 0.46M, 0.85M, 1.7M) to the
# last integer; 164: 1.7M in "Identity mappings".
@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (56, 853_018), (110, 1_727_962), (164, 1_703_258)],
)
def test_parameters(depth: int, parameters: int) -> None:
    model = get_model(f"cifar_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_weight_layers(depth: int) -> None:
    """The depth in the name counts convolutions on the main path and the classifier."""
    model = get_model(f"cifar_resnet{depth}")
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet164"])
def test_shapes_and_gradients(name: str) -> None:
    model = get_model(name, num_classes=7, in_channels=1)
    logits = model(torch.randn(2, 1, 29, 32))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_stage_resolutions() -> None:
    model = get_model("cifar_resnet20")
    x = model.stem(torch.zeros(1, 3, 32, 32))
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_pad_shortcut_keeps_the_values() -> None:
    x = torch.randn(2, 16, 5, 6)
    out = cifar.PadShortcut(16, 32, stride=2)(x)
    assert out.shape == (2, 32, 3, 3)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == 0
    assert out[:, 24:].abs().sum() == 0


def test_residual_branch_is_added() -> None:
    """With its branch at zero, a pre-activation block is the identity."""
    block = cifar.PreActBottleneck(64, 16, stride=1)
    torch.nn.init.zeros_(block.conv3.weight)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), x)


def test_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="no published weights"):
        get_model("cifar_resnet20", weights="DEFAULT")


def test_every_depth_is_listed() -> None:
    assert set(list_models("cifar_resnet*")) == {f"cifar_resnet{d}" for d in DEPTHS}
    assert set(list_models("rla_cifar_resnet*")) == {f"rla_cifar_resnet{d}" for d in DEPTHS}


@pytest.mark.parametrize("depth", [20, 110, 164])
def test_rla_parameters(depth: int) -> None:
    """What k = 8 adds to the stages, counted by hand; the base keeps its own."""
    plain = get_model(f"cifar_resnet{depth}")
    model = get_model(f"rla_cifar_resnet{depth}")
    blocks, k = len(plain.layer1), 8
    added = 0
    for width in (16, 32, 64):
        basic = depth != 164
        channels = width if basic else 4 * width
        added += channels * k + 9 * k * k  # Conv1x1 and Conv3x3 of the stage
        injection = 9 * k * width if basic else 2 * k + k * width  # norm before the 1x1 entry
        added += blocks * (2 * k + injection)  # norm of the update
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    base = sum(n for name, n in sizes.items() if not name.startswith("rla."))
    head = sum(n for name, n in sizes.items() if name.startswith("rla.head."))
    assert base == sum(p.numel() for p in plain.parameters())
    assert sum(sizes.values()) - base - head == added
    assert [len(stage.blocks) for stage in model.plan.stages] == [blocks] * 3


def test_rla_options_and_base_arguments() -> None:
    model = get_model("rla_cifar_resnet20", k=4, num_classes=7, in_channels=1, source="branch")
    assert (model.config.k, model.config.source, model.config.init) == (4, "branch", "paper")
    logits = model(torch.randn(2, 1, 33, 31))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_rla_of_an_unknown_option() -> None:
    with pytest.raises(ConfigError, match="no such option"):
        get_model("rla_cifar_resnet20", sauce="branch")
