"""FCN and DeepLabV3 on rewritten networks, dilated ones too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import segmentation
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

import rlawrap
from rlawrap.detection import segmenter
from tests.nets import Residual, Small, relative, uneven


def dilated() -> ResNet:
    return ResNet(Bottleneck, [1, 2, 1, 1], replace_stride_with_dilation=[False, True, True])


def theirs(kind: str, base: nn.Module) -> nn.Module:
    from torchvision.models._utils import IntermediateLayerGetter

    body = IntermediateLayerGetter(base, {"layer4": "out", "layer3": "aux"})
    if kind == "fcn":
        return segmentation.FCN(body, FCNHead(2048, 3), FCNHead(1024, 3))
    return segmentation.DeepLabV3(body, DeepLabHead(2048, 3), FCNHead(1024, 3))


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3"])
def test_it_is_torchvisions_segmenter_until_it_is_trained(kind: str) -> None:
    expected = uneven(theirs(kind, dilated())).eval()
    layers = [f"layer{i}" for i in range(1, 5)]
    net = rlawrap.apply(dilated(), k=4, stages=layers)
    model = segmenter(kind, net, num_classes=3, aux_loss=True)
    left = model.load_state_dict(expected.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all(k.startswith("backbone.rla.") for k in left.missing_keys)
    x = torch.rand(2, 3, 65, 64)
    a, b = expected(x), model.eval()(x)
    assert list(a) == list(b) == ["out", "aux"]
    assert all(relative(a[name], b[name]) < 1e-5 for name in a)
    assert model.backbone.feature_info.reduction() == [8, 8]


def test_a_dilated_preset_has_the_tensors_of_the_undilated_one() -> None:
    plain = rlawrap.models.rla_resnet50(num_classes=4)
    model = rlawrap.detection.fcn_rla_resnet50(
        num_classes=4, aux_loss=True, weights_backbone=plain.state_dict()
    )
    state = plain.state_dict()
    body = model.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in body.items())
    assert set(model.not_used) == set(state) - set(body)
    assert model.backbone.feature_info.reduction() == [8, 8]
    assert model(torch.rand(2, 3, 32, 32))["aux"].shape == (2, 4, 32, 32)


def test_what_cannot_be_is_refused() -> None:
    net = rlawrap.apply(Small(Residual(8, 8), Residual(8, 8)), k=4)
    with pytest.raises(rlawrap.ConfigError, match=r"'unet'.*choose one of fcn, deeplabv3"):
        segmenter("unet", net)
    with pytest.raises(rlawrap.ConfigError, match="one stage only"):
        segmenter("fcn", net, aux_loss=True)
    with pytest.raises(rlawrap.ConfigError, match=r"mobilenet_v2\(output_stride=8\).* be 32\."):
        rlawrap.models.mobilenet_v2(output_stride=8)
    with pytest.raises(rlawrap.ConfigError, match=r"resnet50\(output_stride=4\).* be 8, 16, 32\."):
        rlawrap.models.rla_resnet50(output_stride=4)
