"""torchvision's detectors around rewritten networks: the base's outputs, every gradient, names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, _default_anchorgen
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import rlawrap
from rlawrap.detection import detector, list_detectors, pyramid
from tests.nets import Residual, Small, random_rla, uneven

SIZE = {"min_size": 64, "max_size": 64}
#: Untrained, all scores are below the usual threshold.
DENSE = {**SIZE, "score_thresh": 0.0, "detections_per_img": 5}


def resnet18() -> nn.Module:
    return uneven(torchvision.models.resnet18(weights=None))


def body(levels: list[int], extra: Any = None) -> nn.Module:
    return resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=levels,
        extra_blocks=extra,
    )


def targets() -> list[dict[str, Tensor]]:
    target = {
        "boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
    }
    return [target, target]


def images() -> list[Tensor]:
    return [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]


def theirs(kind: str) -> nn.Module:
    if kind == "retinanet":
        return RetinaNet(
            body([2, 3, 4], LastLevelP6P7(512, 256)),
            3,
            anchor_generator=_default_anchorgen(),
            **DENSE,
        )
    return detection.FasterRCNN(body([1, 2, 3, 4]), 3, **SIZE)


@pytest.mark.parametrize("kind", ["fasterrcnn", "retinanet"])
def test_it_is_torchvisions_detector_until_it_is_trained(kind: str) -> None:
    expected = theirs(kind)
    uneven(expected)
    options = DENSE if kind == "retinanet" else SIZE
    model = detector(kind, rlawrap.apply(resnet18(), k=4), num_classes=3, **options)
    left = model.load_state_dict(expected.state_dict(), strict=False)
    assert not left.unexpected_keys and all(".rla." in key for key in left.missing_keys)
    x, y = images(), targets()
    losses = []
    for net in (expected, model):
        torch.manual_seed(0)
        losses.append(net.train()(x, y))
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)
    for a, b in zip(expected.eval()(x), model.eval()(x), strict=True):
        assert len(a["boxes"]) > 0
        for name in a:
            torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-3)


def test_every_parameter_that_learns_gets_a_gradient() -> None:
    net = random_rla(rlawrap.apply(resnet18(), k=4))
    few = {"box_batch_size_per_image": 8, "rpn_post_nms_top_n_train": 8, "out_channels": 16}
    model = detector(
        "maskrcnn", net, num_classes=2, trainable_layers=2, norm_eval=True, **SIZE, **few
    )
    losses = model.train()(images(), targets())
    assert "loss_mask" in losses
    sum(losses.values()).backward()
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in model.named_parameters() if p.grad is None} == {
        n for n, _ in model.named_parameters() if n not in learning
    }
    frozen = {n.partition(".body.")[2] for n, _ in model.named_parameters() if n not in learning}
    assert {n.partition(".")[0] for n in frozen} == {"conv1", "bn1", "layer1", "layer2", "rla"}
    assert not model.backbone.body.layer4[0].bn1.training
    assert model.backbone.body.layer4[0].training


def test_keypoints() -> None:
    head = {"keypoint_head": KeypointRCNNHeads(16, (16,)), "out_channels": 16}
    head["keypoint_predictor"] = KeypointRCNNPredictor(16, 2)
    few = {"rpn_post_nms_top_n_test": 4, "box_score_thresh": 0.0}
    net = rlawrap.apply(resnet18(), k=4)
    model = detector("keypointrcnn", net, **SIZE, **few, **head).eval()
    found = model(images()[:1])[0]
    assert len(found["boxes"]) > 0
    assert found["keypoints"].shape == (len(found["boxes"]), 2, 3)


def test_anchors_follow_the_strides() -> None:
    model = detector("retinanet", rlawrap.apply(resnet18(), k=4))
    assert model.anchor_generator.sizes == _default_anchorgen().sizes
    assert model.backbone.strides == [8, 16, 32]
    mobile = rlawrap.apply(torchvision.models.mobilenet_v2(weights=None), k=4, share="stage")
    faster = detector("fasterrcnn", mobile)
    assert faster.backbone.strides == [4, 8, 16, 32]
    assert faster.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    own = AnchorGenerator(((16,),) * 5, ((1.0,),) * 5)
    assert detector("fasterrcnn", mobile, rpn_anchor_generator=own).rpn.anchor_generator is own


def test_what_cannot_be_is_refused() -> None:
    net = rlawrap.apply(resnet18(), k=4)
    with pytest.raises(rlawrap.ConfigError, match=r"'fastrcnn'.*one of fasterrcnn, maskrcnn"):
        detector("fastrcnn", net)
    with pytest.raises(rlawrap.ConfigError, match=r"trainable_layers=6.* 4 stages and a stem"):
        detector("fasterrcnn", net, trainable_layers=6)
    with pytest.raises(
        rlawrap.ConfigError,
        match=r"takes no 'mini_size'\. Did you mean min_size",
    ):
        detector("fasterrcnn", net, mini_size=3)
    with pytest.raises(rlawrap.PlanError, match=r"expected a model made by rlawrap.apply"):
        detector("fasterrcnn", resnet18())
    flat = rlawrap.apply(Small(Residual(8, 8), Residual(8, 8)), k=4)
    with pytest.raises(rlawrap.PlanError, match=r"strides from 4 on.* have strides \[1\]"):
        pyramid(flat)


def test_names_are_those_of_the_networks() -> None:
    names = list_detectors()
    for kind in ("fasterrcnn", "retinanet", "maskrcnn"):
        for net in ("rla_resnet50", "rla_resnet101_eca", "dsrla_mobilenetv2_k6"):
            assert f"{kind}_{net}_fpn" in names
    assert "fcn_rla_resnet50" in names and "fasterrcnn_resnet50_fpn" not in names
    with pytest.raises(AttributeError, match="fasterrcnn_rla_resnet51_fpn"):
        _ = rlawrap.detection.fasterrcnn_rla_resnet51_fpn
    model = rlawrap.detection.retinanet_rla_mobilenetv2_k6_fpn(num_classes=4)
    assert model.backbone.body.rla.config.k == 6
    assert model.head.classification_head.num_classes == 4
    assert all(p.requires_grad for p in model.parameters()) and model.not_used == []
