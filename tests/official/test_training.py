from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.resnet import Bottleneck, ResNet

import rlawrap
from rlawrap.models import get_model
from tests.nets import without_init
from tests.official.golden import filled, images
from tests.official.reading import mobilenet, resnet

RATE, DECAY = 0.1, 1e-4
VARIANTS = [
    *("rla", "rlav1", "rlav2", "rlav3", "rlav4", "rlav5", "rlav6", "rlav1p"),
    *("rlaus", "rlarh", "rlalstm", "rlagru"),
]
#: Blocks and stride of MobileNetV2's rows.
ROWS = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)]


class _Narrow(ResNet):
    """A bottleneck ResNet of a quarter of the planes and five classes; a plain one once built."""

    def __init__(self, blocks: list[int], **kwargs: Any) -> None:
        super().__init__(Bottleneck, blocks, **kwargs)
        self.fc = nn.Linear(self.inplanes, 5)
        self.__class__ = ResNet  # type: ignore[assignment]

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 4, *args, **kwargs)


def _small_resnet(variant: str, attention: str | None = None, groups: int = 1) -> nn.Module:
    width = 4 if groups > 1 else 64
    base: nn.Module = _Narrow([2, 1, 1, 2], groups=groups, width_per_group=width)
    if attention is not None:
        base = rlawrap.attend(base, attention)  # type: ignore[arg-type]
    return rlawrap.apply(base, config=rlawrap.variant(variant, k=4))


def _step_of(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and, under official keys, gradients of one SGD step on the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    logits = model(x)
    F.cross_entropy(logits, labels).backward()
    optimizer.step()
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        # The converter joins weights; let it join gradients.
        for p in model.parameters():
            assert p.grad is not None
            p.copy_(p.grad)
        gradients = rlawrap.official_state_dict(model)
        for name, p in model.named_parameters():
            p.copy_(kept[name])
    return logits.detach(), gradients


def _compare(model: nn.Module, read, side: int) -> None:  # type: ignore[no-untyped-def]
    """One step of the model against one of the reading: logits, gradients, all tensors after."""
    model = model.double().train()
    state = filled(rlawrap.official_state_dict(model))
    shared = [key for key in state if key.startswith(("recurrent_convs", "recurrent_dsconvs"))]
    if "classifier.1.weight" in state:  # MobileNetV2 lists one convolution five times
        for key in shared:
            state[key] = state[shared[-1]]
    rlawrap.load_official(model, state)
    x, labels = images(batch=4, side=side), torch.tensor([0, 3, 1, 4])
    logits, gradients = _step_of(model, x, labels)

    leaves: dict[int, Tensor] = {}
    mine: dict[str, Tensor] = {}
    for key, value in state.items():
        trained = value.is_floating_point() and "running_" not in key
        leaf = leaves.setdefault(id(value), value.clone().requires_grad_(trained))
        mine[key] = leaf
    expected = read(mine, x)
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-9, atol=1e-9)
    after = rlawrap.official_state_dict(model)
    for key, value in mine.items():

        def name(text: str, key: str = key) -> str:
            return f"{key}: {text}"

        slack = 1e-10
        if value.grad is not None:
            # Sums of many products: relative to the largest of a tensor, not to each element.
            # The norms of a deep network over few pixels enlarge what summation orders differ by.
            # A bias that a norm takes away again has a gradient of rounding errors alone.
            slack = max(1e-10, 1e-6 * float(value.grad.abs().max()))
            torch.testing.assert_close(gradients[key], value.grad, rtol=1e-7, atol=slack, msg=name)
            value = value.detach() - RATE * (value.grad + DECAY * value.detach())
        else:
            assert "running_" in key or key.endswith("num_batches_tracked"), key
        torch.testing.assert_close(after[key], value, rtol=1e-8, atol=slack, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_of_every_variant(variant: str) -> None:
    _compare(_small_resnet(variant), lambda s, x: resnet(s, x, variant, 4, [2, 1, 1, 2]), 64)


@pytest.mark.parametrize(("attention", "groups"), [("eca", 1), ("se", 32)])
def test_one_step_with_attention(attention: str, groups: int) -> None:
    model = _small_resnet("rla", attention, groups)
    _compare(model, lambda s, x: resnet(s, x, "rla", 4, [2, 1, 1, 2], groups), 64)


@pytest.mark.parametrize("name", ["dsrla_mobilenetv2_k12", "rla_mobilenetv2_k6_eca"])
def test_one_step_of_mobilenet(name: str) -> None:
    with without_init():
        model = get_model(name, num_classes=5)
    model.get_submodule("classifier.0").p = 0.0  # type: ignore[assignment]
    k = 12 if "k12" in name else 6
    _compare(model, lambda s, x: mobilenet(s, x, k, ROWS), 64)


def test_one_step_of_resnet50() -> None:
    with without_init():
        model = get_model("rla_resnet50", num_classes=5)
    _compare(model, lambda s, x: resnet(s, x, "rla", 32, [3, 4, 6, 3]), 64)


def test_as_drawn_is_another_network() -> None:
    """`source="branch"` reads y before the addition; the released form reads x behind it."""
    base = _Narrow([1, 1, 1, 1])
    x = images(side=64)
    logits = []
    for source in ("output", "branch"):
        config = rlawrap.variant("rla", k=4, source=source)
        model = rlawrap.apply(base, config=config).double().eval()
        rlawrap.load_official(model, filled(rlawrap.official_state_dict(model)))
        logits.append(model(x))
    assert not torch.allclose(*logits, rtol=1e-3)


def test_dropout_stays_where_it_was() -> None:
    base, model = mobilenet_v2(weights=None), get_model("dsrla_mobilenetv2_k6")
    assert model.get_submodule("classifier.0").p == base.classifier[0].p == 0.2
