"""`RLAResNet` against `rlawrap.backbone`, the official detection backbone, and mmdet's ResNet."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import rlawrap
from rlawrap.integrations.mmdet import RLAResNet
from rlawrap.official.layout import official_layout
from tests.nets import relative
from tests.official.golden import filled, images, layout_digest

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "official" / "detection.json").read_text("utf-8")
)
NETWORKS = FACTS["models"]
HEAD = ("fc.", "bn2.")


def detector_state(whole: nn.Module) -> dict[str, Tensor]:
    """What the official detection backbone has of a classifier's official state dict."""
    state = rlawrap.official_state_dict(whole)
    return {name: value for name, value in state.items() if not name.startswith(HEAD)}


def pretrained(path: Path | str) -> dict[str, str]:
    return {"type": "Pretrained", "checkpoint": str(path)}


def test_it_is_the_backbone(classifier: rlawrap.RLAModel) -> None:
    net = MODELS.build({"type": "RLAResNet", "depth": 50}).eval()
    ours = rlawrap.backbone(classifier)
    assert list(net.state_dict()) == list(ours.state_dict())
    net.load_state_dict(ours.state_dict())
    x = images().float()
    maps = net(x)
    assert isinstance(maps, tuple) and net.out_channels == [256, 512, 1024, 2048]
    for ours_, map_ in zip(ours(x).values(), maps, strict=True):
        assert torch.equal(ours_, map_)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x)[-1], maps[-1]) and twin.init_cfg is None


@pytest.mark.parametrize("name", ["r50", "r50_eca"])
def test_maps_of_the_official_backbone(name: str, tmp_path: Path) -> None:
    fact, attention = NETWORKS[name], "eca" if "eca" in name else None
    net: Any = RLAResNet(50, attention=attention, init_cfg=pretrained(tmp_path / "detector.pth"))
    state = filled(detector_state(net))
    assert layout_digest(state) == fact["layout"]
    # As MMDetection 2 saved it: with a neck, a head and what else a Runner keeps.
    others = {"neck.fpn_convs.0.conv.weight": torch.zeros(2, 2), "bbox_head.fc.bias": torch.ones(3)}
    content = {**{f"backbone.{key}": value for key, value in state.items()}, **others}
    torch.save({"meta": {"epoch": 12}, "state_dict": content}, tmp_path / "detector.pth")
    net.double().eval().init_weights()
    for got, wanted in zip(net(images()), fact["maps"], strict=True):
        assert list(got.shape) == wanted["shape"]
        first = torch.tensor(wanted["first8"], dtype=torch.float64)
        assert relative(got.flatten(1)[:, :8], first) < 1e-9
        assert got.mean((1, 2, 3)).tolist() == pytest.approx(wanted["mean"], rel=1e-9)
        assert got.abs().max().item() == pytest.approx(wanted["absmax"], rel=1e-9)
    # What the official detector does not use: the norm of the last update.
    assert sum(p.numel() for p in net.parameters()) == fact["params"] - 64


def test_squeeze_and_excitation_has_the_official_parameters() -> None:
    net = RLAResNet(50, attention="se")
    assert sum(p.numel() for p in net.parameters()) == NETWORKS["r50_se"]["params"] - 64


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1])
def test_frozen_stages_are_those_of_the_official_code(frozen_stages: int) -> None:
    net: Any = RLAResNet(50, frozen_stages=frozen_stages, norm_eval=False).train()
    stem = ("conv1.weight", "bn1.weight", "bn1.bias")
    official = {-1: (), 0: stem, 1: FACTS["frozen_stages_1"]}[frozen_stages]
    entries = official_layout(net)
    wanted = {part for entry in entries if entry.key in official for part in entry.parts}
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == wanted
    norms = {n for n, m in net.named_modules() if isinstance(m, _BatchNorm)}
    still = {n for n in norms if not net.get_submodule(n).training}
    assert still == {n for n in norms if f"{n}.weight" in wanted}
    assert net.training


def test_norm_eval_keeps_every_norm() -> None:
    net = RLAResNet(50, norm_eval=True).train()
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 53 + 15 and not any(m.training for m in norms)
    assert net.training and net.layer1.training


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
        {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "out_indices": (1, 3)},
        {"style": "caffe"},
    ],
    ids=["plain", "dilated", "twice", "caffe"],
)
def test_without_h_it_is_the_resnet_of_mmdet(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = MODELS.build({"type": "ResNet", "depth": 50, **options})
    theirs.eval()
    state = filled(theirs.state_dict())
    theirs.load_state_dict(state)
    # A classifier's file: the head is not read.
    torch.save({**state, "fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)},
               tmp_path / "resnet.pth")  # fmt: skip
    net = RLAResNet(
        50, rla={"init": "identity"}, init_cfg=pretrained(tmp_path / "resnet.pth"), **options
    ).eval()
    net.init_weights()
    x = images(side=65).float()
    for ours, map_ in zip(net(x), theirs(x), strict=True):
        assert ours.shape == map_.shape and relative(ours, map_) < 1e-5


def test_every_stage_has_its_own_h_where_the_last_ones_are_dilated() -> None:
    plain = RLAResNet(50)
    dilated = RLAResNet(50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    assert list(dilated.state_dict()) == list(plain.state_dict())
    assert [tuple(m.shape[2:]) for m in dilated(torch.zeros(1, 3, 64, 64))] == [
        (16, 16), (8, 8), (8, 8), (8, 8),
    ]  # fmt: skip


def test_every_parameter_that_is_not_frozen_gets_a_gradient() -> None:
    net = RLAResNet(50, frozen_stages=1, with_cp=True).train()
    sum(m.square().mean() for m in net(images().float())).backward()
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert {n for n, p in net.named_parameters() if p.grad is not None} == trained


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"detph": 50}, "takes no detph=50. Did you mean depth?"),
        ({"deep_stem": True}, "takes no deep_stem=True"),
        ({"depth": 34}, r"depth=34\): choose one of 50, 101, 152"),
        ({"attention": "cbam"}, "choose one of None, 'eca', 'se'"),
        ({"style": "tf"}, "choose one of 'pytorch', 'caffe'"),
        ({"num_stages": 3}, "choose one of 4"),
        ({"strides": (1, 2)}, "for each of the 4 stages"),
        ({"norm_cfg": {"type": "GN", "num_groups": 32}}, "its norms are batch norms"),
        ({"rla": {"kk": 3}}, "kk=3: no such option"),
        ({"out_indices": (4,)}, r"out_indices=\[4\]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_it_does_not_take_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(rlawrap.RLAError, match=told):
        MODELS.build({"type": "RLAResNet", **options})
