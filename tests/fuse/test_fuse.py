from __future__ import annotations

import copy
import io
import json
from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import rlawrap
from rlawrap.errors import ConfigError, PlanError
from rlawrap.fuse.layers import HalfTanh, PointConv2d
from rlawrap.splice import pointwise
from tests.fuse.shaken import difference, norms, shake
from tests.nets import Residual, Small


def resnet(**options: Any) -> nn.Module:
    base = torchvision.models.resnet18(weights=None, num_classes=7)
    model = rlawrap.apply(base, k=6, init="paper", **options)
    return shake(model).double().eval()


@torch.no_grad()
def check(model: nn.Module, x: Tensor, target: Any = "eager") -> nn.Module:
    """Fuse a float64 model, compare, and see that the model has stayed as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = rlawrap.fuse(model, target=target)
    assert difference(model(x), fused(x)) < 1e-12
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    return fused


OPTIONS: list[dict[str, Any]] = [
    {},
    {"update": "post"},
    {"update": "split"},
    {"cell": "dwconv"},
    {"cell": "convgru"},
    {"cell": "convlstm"},
    {"source": "branch"},
    {"source": "input"},
    {"share": "network"},
    {"share": "none"},
    {"norm": "group"},
    {"norm": "none"},
    {"inject": "none"},
    {"initial_state": "none"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_gives_equal_outputs(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = resnet(**options)
    x = torch.randn(2, 3, 67, 71, dtype=torch.float64)
    fused = check(model, x)
    with torch.no_grad():  # then more is written over what nobody else reads
        assert difference(model(x), fused(x)) < 1e-12
    if options.get("update") != "split":
        assert norms(fused) == 0


PRESETS = ["rla_cifar_resnet20", "dsrla_mobilenetv2", "rla_mobilenetv2", "rla_eca_resnet50"]


@pytest.mark.parametrize("name", [n for n in PRESETS if n in rlawrap.models.list_models()])
@pytest.mark.parametrize("target", ["eager", "onnx"])
def test_presets(name: str, target: str) -> None:
    torch.manual_seed(0)
    model = shake(getattr(rlawrap.models, name)(num_classes=5)).double().eval()
    fused = check(model, torch.randn(1, 3, 40, 40, dtype=torch.float64), target)
    assert norms(fused) == 0
    halved = sum(isinstance(m, HalfTanh) for m in fused.modules())
    updates = sum(len(stage.blocks) for stage in model.rla.plan.stages)
    assert halved == (updates if target == "eager" else 0)


def test_float32_is_equal_to_rounding() -> None:
    torch.manual_seed(0)
    model = resnet().float()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert difference(model(x), rlawrap.fuse(model)(x)) < 1e-5


def test_convolutions_of_single_pixels_ask_for_the_faster_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = resnet().float().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    fused: Any = rlawrap.fuse(model)
    points = {name: m for name, m in fused.named_modules() if isinstance(m, PointConv2d)}
    # Conv1x1 of each block; its ways into blocks are 3x3, as their convolutions are.
    assert len(points) == 8 and all(name.startswith("rla.input.") for name in points)
    assert all(type(m) is not PointConv2d for m in rlawrap.fuse(model, target="onnx").modules())
    found = []
    monkeypatch.setattr(pointwise, "PIXELS", 1)
    with torch.no_grad():
        for least in (1, 10**12):
            monkeypatch.setattr(pointwise, "LARGE", least)
            found.append(fused(x))
        assert not torch.equal(*found), "both went to the same library"
        assert all(difference(model(x), out) < 1e-5 for out in found)


def test_an_update_that_nobody_reads_goes() -> None:
    model = resnet(head="none")
    fused = check(model, torch.randn(1, 3, 64, 64, dtype=torch.float64))
    names = [name for name, m in fused.named_modules() if isinstance(m, HalfTanh)]
    assert len(names) == 7  # of 8 blocks


def test_backbones_and_parts_of_a_model() -> None:
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    check(rlawrap.backbone(resnet(), out_indices=(1, 3)).eval(), x)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torchvision.models.resnet18(weights=None, num_classes=4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    whole = shake(rlawrap.apply(Two(), k=4, init="paper", at="body")).double().eval()
    fused = check(whole, x)
    assert type(fused) is Two and norms(fused) == 0
    assert all(step.where.startswith("body.") for step in fused.report.done)  # type: ignore


def test_a_layer_with_a_hook_keeps_its_weights_and_its_hook() -> None:
    model = resnet()
    seen: list[Tensor] = []
    model.layer2[0].conv1.register_forward_hook(lambda m, a, y: seen.append(y))  # type: ignore
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fused = check(model, x)
    assert len(seen) == 2
    assert difference(*seen) < 1e-12
    assert norms(fused) == 1
    assert "Conv2d makes a value that would be scaled" in str(fused.report)


@pytest.mark.parametrize("path", ["", "layer2", "layer2.0"])
def test_hooks_that_would_not_run_are_refused(path: str) -> None:
    model = resnet()
    handle = model.get_submodule(path).register_forward_hook(lambda m, a, y: y * 2)
    named = f"'{path}'" if path else "the model"
    with pytest.raises(rlawrap.PlanError, match=rf"{named} has hooks, which would not run"):
        rlawrap.fuse(model)
    handle.remove()
    check(model, torch.randn(1, 3, 64, 64, dtype=torch.float64))


def test_a_call_of_its_own_that_would_not_run_is_refused() -> None:
    class Doubled(Small):
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(2 * x)

    part = rlawrap.apply(Doubled(Residual(8, 8), Residual(8, 8)).eval(), k=4)
    for model, where in ((part, "the model"), (nn.Sequential(part).eval(), "its part '0'")):
        with pytest.raises(rlawrap.PlanError, match=f"{where} has a `__call__` of its own"):
            rlawrap.fuse(model)


def test_gradients_of_the_input_are_the_same() -> None:
    model = resnet()
    fused = rlawrap.fuse(model)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (of_model,) = torch.autograd.grad(model(x).sum(), x)
    (of_fused,) = torch.autograd.grad(fused(x).sum(), x)
    assert difference(of_model, of_fused) < 1e-10


def test_copies_and_pickles() -> None:
    model = resnet()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fused: Any = rlawrap.fuse(model)
    with torch.no_grad():
        expected = fused(x)
        assert torch.equal(copy.deepcopy(fused)(x), expected)
        file = io.BytesIO()
        torch.save(fused, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x), expected)
        other: Any = rlawrap.fuse(shake(resnet(), seed=1))
        other.load_state_dict(fused.state_dict())
        assert torch.equal(other(x), expected)


def test_the_report_counts_what_was_done() -> None:
    report = rlawrap.fuse(resnet()).report  # type: ignore[union-attr]
    counts = Counter(step.what for step in report.done)
    assert counts["norm folded"] == 20 + 8 + 1  # the base's, the blocks', the head's
    assert counts["tanh computed by sigmoid"] == 8
    assert counts["1x1 convolution by oneDNN where it is large"] == 8
    assert not report.kept
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert "29  norm folded" in str(report)


def test_what_cannot_be_fused_is_refused() -> None:
    model = resnet()
    with pytest.raises(ConfigError, match=r"in train mode.*Call `model.eval\(\)` first"):
        rlawrap.fuse(model.train())
    with pytest.raises(ConfigError, match="choose from eager, inductor, onnx"):
        rlawrap.fuse(model.eval(), target="cuda")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"expected a model made by rlawrap\.apply"):
        rlawrap.fuse(torchvision.models.resnet18(weights=None))
    with pytest.raises(PlanError, match="wraps the model"):
        rlawrap.fuse(nn.DataParallel(model))


def test_a_scale_above_zero_passes_relu_and_maximum() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.conv = nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.norm(self.conv(self.relu(x)))

    base = nn.Sequential(
        nn.Conv2d(3, 8, 3), Block(), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip
    model = shake(rlawrap.apply(base, k=5, init="paper")).double().eval()
    x = torch.randn(1, 3, 16, 17, dtype=torch.float64)
    kept = check(model, x).report.kept  # type: ignore[union-attr]
    assert any("not above zero" in step.why for step in kept)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.abs_()
    assert norms(check(model, x)) == 0
