from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.show.cam import ClassMaps
from rlawrap.show.charts import blended
from rlawrap.show.drawing import Image, overlapping
from tests.nets import BlockNet, FunctionalNet

NAMES = ("cat", "dog", "owl", "fox", "hen")


def rewritten(base: nn.Module | None = None) -> nn.Module:
    return rlawrap.apply((base or BlockNet()).eval(), k=4).eval()


def test_without_training_both_maps_are_the_bases() -> None:
    model, x = rewritten(), torch.randn(3, 16, 16)
    grads = [p.grad for p in model.parameters()]
    picture = rlawrap.show(model, x, "cam", classes=NAMES)
    maps = picture.data
    assert isinstance(maps, ClassMaps)
    np.testing.assert_allclose(maps.rla.heat, maps.plain.heat, atol=1e-5)
    assert maps.plain.heat.shape == (16, 16)
    assert maps.plain.heat.std() > 0.01
    with torch.no_grad():
        shares = model(x[None]).softmax(1)[0]
    assert maps.label == NAMES[int(shares.argmax())] == maps.rla.first
    assert maps.rla.score == pytest.approx(shares.max().item(), rel=1e-5)
    assert maps.layer == "body"
    assert [p.grad for p in model.parameters()] == grads
    assert len([p for p in picture.drawing.parts if isinstance(p, Image)]) == 3
    assert overlapping(picture.drawing) == []
    assert f"{maps.label}: {maps.rla.score:.1%}" in picture.svg()
    assert picture.to_dict()["rla"]["first"] == maps.label


def test_with_h_the_score_is_another_and_the_model_is_as_before() -> None:
    model, x = rewritten(), torch.randn(3, 16, 16)
    with torch.no_grad():
        model.get_submodule("rla.head.join.0")[-1].weight.normal_()
    model.requires_grad_(False)
    maps = rlawrap.show(model, x, "cam", target=3).data
    with torch.no_grad():
        with_h = model(x[None]).softmax(1)[0, 3].item()
        with rlawrap.disabled(model):
            without = model(x[None]).softmax(1)[0, 3].item()
    assert maps.rla.score == pytest.approx(with_h, rel=1e-5)
    assert maps.plain.score == pytest.approx(without, rel=1e-5)
    assert abs(with_h - without) > 1e-4
    assert maps.label == "class 3"
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"target": "cow", "classes": NAMES},
            rlawrap.ConfigError,
            "no class of the 5; it knows cat",
        ),
        ({"target": 7}, rlawrap.ConfigError, "target=7 is no class of the 5"),
        ({"layer": "bod"}, rlawrap.ConfigError, "'bod' is no module of it. Near: body"),
        ({"layer": "fc"}, rlawrap.PlanError, "name another layer"),
    ],
)
def test_a_class_or_a_layer_that_is_not_there(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rlawrap.show(rewritten(), torch.randn(3, 16, 16), "cam", **options)


def test_a_network_without_classifier_is_refused() -> None:
    maps = rlawrap.backbone(rewritten())
    with pytest.raises(rlawrap.PlanError, match=r"a classifier, .* returns Ordered"):
        rlawrap.show(maps, torch.randn(3, 16, 16), "cam")


def test_a_network_without_layers_of_images_says_so() -> None:
    with pytest.raises(rlawrap.PlanError, match="name one with layer="):
        rlawrap.show(rewritten(FunctionalNet()), torch.randn(3, 16, 16), "cam")


def test_without_grad_cam_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pytorch_grad_cam"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.startswith("pytorch_grad_cam")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(rlawrap.RLAError, match=r"pip install 'rlawrap\[show\]'"):
        rlawrap.show(rewritten(), torch.randn(3, 16, 16), "cam")


def test_the_hotter_the_less_is_seen_of_the_photograph() -> None:
    model = rewritten()
    maps = rlawrap.show(model, torch.randn(3, 16, 16), "cam").data
    mixed = blended(np.full((16, 16, 3), 200, dtype=np.uint8), maps.rla)
    cold = maps.rla.heat == maps.rla.heat.min()
    assert mixed.shape == (16, 16, 3)
    assert mixed[cold].mean() == pytest.approx(0.75 * 200 + 0.25 * 4 / 3, abs=2)
