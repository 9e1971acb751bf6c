"""Detection: boxes of objects, and with masks instance segmentation, judged as COCO does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import detection

from rlawrap import _torch
from rlawrap.errors import ConfigError
from rlawrap.train.data.loader import Batch, Images
from rlawrap.train.network.modes import evaluating
from rlawrap.train.network.outputs import device_of
from rlawrap.train.tasks.average_precision import AveragePrecision, names
from rlawrap.train.tasks.scene_networks import build_scene_network
from rlawrap.train.tasks.scene_task import SceneTask, first_image
from rlawrap.train.tasks.task import Losses, Network, Scores

_TWO_STAGES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
#: The parts of the loss of torchvision's detectors.
PARTS: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (detection.KeypointRCNN, (*_TWO_STAGES, "loss_keypoint")),
    (detection.MaskRCNN, (*_TWO_STAGES, "loss_mask")),
    (detection.FasterRCNN, _TWO_STAGES),
    (detection.FCOS, ("classification", "bbox_regression", "bbox_ctrness")),
    (detection.RetinaNet, ("classification", "bbox_regression")),
    (detection.ssd.SSD, ("classification", "bbox_regression")),
)


class Detection(SceneTask):
    """Boxes of objects. Average precisions are per cent, as COCO's evaluation has them."""

    name: ClassVar[str] = "detection"
    metric: ClassVar[str] = "box_ap"
    figures: ClassVar[tuple[str, ...]] = names("box")
    shown: ClassVar[tuple[str, ...]] = names("box")[:3]
    least: ClassVar[int] = 1  # the maps of a pyramid are never of one pixel alone
    #: What a detector finds in an image depends a little on the images it was padded with.
    judged_at_once: ClassVar[int | None] = 1
    kinds: ClassVar[tuple[str, ...]] = ("box",)
    heads: ClassVar[tuple[str, ...]] = ("fasterrcnn", "retinanet", "maskrcnn", "keypointrcnn")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "arch": "fasterrcnn_rla_resnet50_fpn",
            "epochs": 12,
            "batch_size": 2,
            "lr": 0.0025,  # 0.02 for a batch of 16
            "weight_decay": 1e-4,
            "schedule": "multistep",
            "milestones": (8, 11),
            "warmup_steps": 500,
            "warmup_start": 0.001,
        }
    )

    def collate(self, items: Sequence[tuple[Tensor, Any]]) -> tuple[Any, Any]:
        """Lists: images have sizes of their own, and the detector pads them itself."""
        return [image for image, _ in items], [target for _, target in items]

    def build(self, classes: Sequence[str], *, fill: bool = True) -> nn.Module:
        return build_scene_network(self.config, len(classes) + 1, self.heads, fill=fill)

    def meet(self, model: nn.Module, images: Images, *, own_code: bool) -> None:
        self.logged = next((parts for kind, parts in PARTS if isinstance(model, kind)), ())
        if own_code or not self.logged:
            self._try(model, first_image(images).to(device_of(model)))
        if "mask" in self.kinds and not gives_masks(model):
            raise ConfigError(
                f"{self.config.arch}: gives no masks, which the task {self.name} is about. Take a "
                "Mask R-CNN, or --task detection."
            )
        if not images.classes:
            raise ConfigError(f"{self.config.data}: has no classes.")

    def _try(self, model: nn.Module, image: Tensor) -> None:
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
                found = model([image])
            wrong = {"boxes", "labels", "scores"} - set(found[0])
        except Exception as error:
            raise ConfigError(
                f"{self.config.arch}: no detector as torchvision's are; it fails on a list of one "
                f"image: {type(error).__name__}: {_torch.first_line(error)}."
            ) from error
        if wrong:
            raise ConfigError(
                f"{self.config.arch}: no detector as torchvision's are; it gives no "
                f"{', '.join(sorted(wrong))}."
            )

    def loss(self, network: Network, batch: Batch) -> Losses:
        """The sum of the detector's own losses, which are means over the images of the part."""
        losses = network(batch.images, batch.targets)
        found = {name: value.float() for name, value in losses.items()}
        total = torch.stack([*found.values()]).sum() * batch.counted
        none = torch.zeros_like(total)
        parts = [found.get(name, none).detach() * batch.counted for name in self.logged]
        return Losses(total=total, parts=torch.stack(parts) if parts else total.new_zeros(0))

    def scores(self, device: torch.device) -> Scores:
        return AveragePrecision(self.classes, *self.kinds)


class InstanceSegmentation(Detection):
    """Boxes and masks of objects; the masks decide."""

    name: ClassVar[str] = "instance"
    metric: ClassVar[str] = "mask_ap"
    figures: ClassVar[tuple[str, ...]] = names("mask", "box")
    shown: ClassVar[tuple[str, ...]] = (*names("mask")[:3], *names("box")[:3])
    kinds: ClassVar[tuple[str, ...]] = ("box", "mask")
    heads: ClassVar[tuple[str, ...]] = ("maskrcnn",)
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**Detection.defaults, "arch": "maskrcnn_rla_resnet50_fpn"}
    )


def gives_masks(model: nn.Module) -> bool:
    """Whether a detector gives masks; those that are not torchvision's are taken at their word."""
    known = any(isinstance(model, kind) for kind, _ in PARTS)
    return isinstance(model, detection.MaskRCNN) or not known
