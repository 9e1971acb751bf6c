"""Weights of a classification network in a detector's backbone, and what of them is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.detection import detector, load_backbone
from tests.nets import Residual, Small, random_rla

NAME = "rla_mobilenetv2_k6"


@pytest.fixture(scope="module")
def classifier() -> Any:
    return random_rla(rlawrap.models.get_model(NAME, num_classes=7))


def same(model: nn.Module, classifier: nn.Module) -> bool:
    state = classifier.state_dict()
    return all(torch.equal(v, state[k]) for k, v in model.backbone.body.state_dict().items())


@pytest.mark.parametrize("kind", ["ours", "state", "official"])
def test_weights_by_name(kind: str, classifier: Any, tmp_path: Path) -> None:
    source: Any = {"state_dict": classifier.state_dict()}
    if kind == "ours":
        source = rlawrap.save(classifier, tmp_path / "net.safetensors")
    elif kind == "official":
        source = tmp_path / "net.pth.tar"
        state = rlawrap.official_state_dict(classifier)
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, source)
    build = rlawrap.detection.fasterrcnn_rla_mobilenetv2_k6_fpn
    model = build(weights_backbone=source, num_classes=3)
    assert same(model, classifier)
    unused = set(classifier.state_dict()) - set(model.backbone.body.state_dict())
    if kind == "official":
        assert "module.classifier.1.weight" in model.not_used
        assert not any("stages.0" in name for name in model.not_used)
    else:
        assert set(model.not_used) == unused and "classifier.1.weight" in unused
    learning = {n.partition(".body.")[2] for n, p in model.named_parameters() if p.requires_grad}
    assert "features.0.0.weight" not in learning and "features.17.conv.2.weight" in learning
    assert not any(
        m.training for m in model.train().backbone.body.modules() if isinstance(m, nn.BatchNorm2d)
    )


def small() -> nn.Module:
    down = nn.Conv2d(8, 8, 3, 4, 1)
    return rlawrap.apply(Small(Residual(8, 8), down, Residual(8, 8)), k=4)


def test_what_does_not_fit_is_listed_and_changes_nothing() -> None:
    net = small()
    model = detector("fasterrcnn", net, num_classes=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = dict(random_rla(small()).state_dict())
    del state["stem.bias"]
    state["body.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(rlawrap.CheckpointError) as caught:
        load_backbone(model, state)
    assert "in 2 places" in str(caught.value) and "missing: stem.bias [8]" in str(caught.value)
    assert "shape: body.0.conv1.weight is [1], the backbone has [8, 8, 3, 3]" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(rlawrap.CheckpointError, match="Sequential holds 0 backbones"):
        load_backbone(nn.Sequential(), state)
    with pytest.raises(rlawrap.ConfigError, match=r"weights_backbone='nothing.pth': no such file"):
        rlawrap.detection.retinanet_rla_resnet50_fpn(weights_backbone="nothing.pth")
