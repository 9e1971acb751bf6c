"""torchvision's detectors: the body of the backbone rewritten, the rest as it was."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import ResNet, resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation import FCN
from torchvision.models.segmentation.fcn import FCNHead

import rlawrap
from tests.advice import calls_told
from tests.nets import random_rla

SIZE = {"min_size": 32, "max_size": 48, "num_classes": 3}
IMAGES = [torch.rand(3, 40, 32), torch.rand(3, 32, 36)]
TARGETS = [
    {"boxes": torch.tensor([[2.0, 3.0, 20.0, 24.0]]), "labels": torch.tensor([label])}
    for label in (1, 2)
]


def outputs(model: nn.Module, training: bool) -> list[Tensor]:
    """Detections in eval mode, losses in train mode, for one random state."""
    torch.manual_seed(1)
    model.train(training)
    found: Any = model(IMAGES, TARGETS) if training else model(IMAGES)
    return torch.utils._pytree.tree_leaves(found)


def check_equal(base: nn.Module, model: nn.Module) -> None:
    for training in (False, True):
        a, b = outputs(base, training), outputs(model, training)
        assert len(a) == len(b) and all(map(torch.equal, a, b))
    assert len(outputs(base, False)[0]) > 0


def check_steps(model: nn.Module) -> None:
    """Two steps under DDP, which raises in the second for a parameter without a gradient."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/s", rank=0, world_size=1)
        try:
            wrapped = DistributedDataParallel(model.train())
            for _ in range(2):
                wrapped.zero_grad()
                sum(wrapped(IMAGES, TARGETS).values()).backward()
        finally:
            dist.destroy_process_group()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def pyramid() -> nn.Module:
    """A small body, and a pyramid of few channels over three of its maps."""
    maps = {"layer2": "0", "layer3": "1", "layer4": "2"}
    return BackboneWithFPN(ResNet(BasicBlock, [1, 1, 1, 2]), maps, [128, 256, 512], 16)


def anchors() -> AnchorGenerator:
    sizes = ((8,), (16,), (32,), (64,))  # the pyramid adds a pooled map
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))


def test_retinanet_by_what_the_refusal_tells() -> None:
    torch.manual_seed(0)
    base = RetinaNet(pyramid(), **SIZE, anchor_generator=anchors(), score_thresh=0.0)
    with pytest.raises(rlawrap.TraceError) as refusal:
        rlawrap.apply(base)
    assert calls_told(refusal.value) == ["rlawrap.apply(model, at='backbone.body')"]
    model: Any = rlawrap.apply(base, k=4, at="backbone.body")
    assert type(model) is RetinaNet and len(model.backbone.body.plan.blocks) == 5
    check_equal(base, model)
    before = outputs(model, False)
    random_rla(model.backbone.body)
    assert not all(map(torch.equal, before, outputs(model, False)))
    check_steps(model)


def test_faster_rcnn() -> None:
    torch.manual_seed(0)
    base = FasterRCNN(pyramid(), **SIZE, rpn_anchor_generator=anchors(), box_score_thresh=0.0)
    model: Any = rlawrap.apply(base, k=4, at="backbone.body", source="branch", update="split")
    check_equal(base, model)
    random_rla(model.backbone.body)
    sum(model.train()(IMAGES, TARGETS).values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_segmentation_with_an_auxiliary_map() -> None:
    maps = IntermediateLayerGetter(resnet18(), {"layer4": "out", "layer3": "aux"})
    base = FCN(maps, FCNHead(512, 3), FCNHead(256, 3)).eval()
    x = torch.rand(1, 3, 48, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = rlawrap.apply(base, k=4, at="backbone")
        before, after = base(x), model(x)
        assert list(after) == ["out", "aux"]
        assert all(torch.equal(before[name], after[name]) for name in before)
        random_rla(model.backbone)
        assert not torch.equal(model(x)["aux"], after["aux"])
    assert [b.path for b in model.backbone.plan.blocks][-1] == "layer4.1"
