"""`RLABackbone`: networks by name as backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import mobilenet_v2, resnet18

import rlawrap
from rlawrap.integrations.mmdet import RLABackbone

OWN = """
import torchvision

def small(width):
    return torchvision.models.mobilenet_v2(weights=None, width_mult=width)
"""


def test_a_network_of_torchvision() -> None:
    net = MODELS.build(
        {
            "type": "RLABackbone",
            "model": "torchvision:resnet18",
            "k": 4,
            "rla": {"source": "branch"},
            "out_indices": (1, 3),
            "frozen_stages": 2,
            "norm_eval": True,
        }
    ).train()
    assert net.rla.splice.config.source == "branch" and net.rla.splice.config.k == 4
    assert [tuple(m.shape) for m in net(torch.zeros(1, 3, 64, 64))] == [
        (1, 128, 8, 8),
        (1, 512, 2, 2),
    ]
    assert not any(m.training for m in net.modules() if isinstance(m, _BatchNorm))
    frozen = {n.partition(".")[0] for n, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2", "rla"}


def test_it_starts_as_its_base() -> None:
    torch.manual_seed(1)
    base = resnet18().eval()
    net = RLABackbone("torchvision:resnet18", k=4).eval()
    net.load_state_dict(base.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    stem = base.maxpool(base.relu(base.bn1(base.conv1(x))))
    maps = []
    for layer in (base.layer1, base.layer2, base.layer3, base.layer4):
        stem = layer(stem)
        maps.append(stem)
    assert all(torch.equal(a, b) for a, b in zip(net(x), maps, strict=True))


def test_a_network_of_timm_keeps_its_weights() -> None:
    net: Any = RLABackbone("timm:regnetx_002", k=4, model_args={"num_classes": 3})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    # timm's layers have an `init_weights` of their own, which must not be called.
    assert any(hasattr(m, "init_weights") for m in net.modules())
    net.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.out_channels == [m.shape[1] for m in net(torch.zeros(1, 3, 64, 64))]


def test_a_function_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(OWN)
    place = f"{tmp_path / 'nets.py'}:small"
    net = RLABackbone(place, k=4, model_args={"width": 0.35}, out_indices=(-1,))
    assert net(torch.zeros(1, 3, 64, 64))[0].shape[2:] == (2, 2)


def test_weights_of_layers_behind_the_last_map_are_not_read(tmp_path: Path) -> None:
    state = mobilenet_v2(weights=None).state_dict()
    torch.save(state, tmp_path / "mobilenet.pth")
    entry = {"type": "Pretrained", "checkpoint": str(tmp_path / "mobilenet.pth")}
    net = RLABackbone("torchvision:mobilenet_v2", k=4, init_cfg=entry)
    net.init_weights()
    left = set(state) - set(net.state_dict())
    assert {"features.18.0.weight", "classifier.1.weight"} <= left
    assert all(torch.equal(net.state_dict()[name], state[name]) for name in set(state) - left)
    torch.save({**state, "features.9.conv.9.weight": torch.zeros(1)}, tmp_path / "mobilenet.pth")
    with pytest.raises(rlawrap.CheckpointError, match=r"unexpected: features\.9\.conv\.9\.weight"):
        RLABackbone("torchvision:mobilenet_v2", k=4, init_cfg=entry).init_weights()


def test_a_network_with_h_is_taken_as_it_is() -> None:
    net = RLABackbone("rla_mobilenetv2", model_args={"k": 5}, out_indices=(-1,))
    assert net.rla.splice.config.k == 5 and net.out_channels == [320]
    with pytest.raises(rlawrap.ConfigError, match=r"`model_args=dict\(k=16\)`"):
        RLABackbone("rla_cifar_resnet20", k=5)


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(rlawrap.ConfigError, match=r"Did you mean out_indices\?"):
        MODELS.build({"type": "RLABackbone", "model": "resnet18", "out_indexes": (1,)})
    with pytest.raises(rlawrap.ConfigError, match="no such network"):
        RLABackbone("resnet1888")
    with pytest.raises(rlawrap.ConfigError, match="no such option"):
        RLABackbone("torchvision:resnet18", rla={"kernl": 5})
