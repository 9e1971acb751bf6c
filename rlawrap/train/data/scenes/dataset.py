"""`SceneDataset`: scenes by number with what is in them, changed by (seed, epoch, number) alone."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlawrap.errors import ConfigError, DataError, UnreadableError
from rlawrap.train.data.dataset import OnBadImage, Split
from rlawrap.train.data.decode import decode, unreadable
from rlawrap.train.data.scenes.augment import SceneAugment
from rlawrap.train.data.scenes.mask_files import read_classes
from rlawrap.train.data.scenes.outlines import masks_of
from rlawrap.train.data.scenes.records import Scene, SceneIndex, Thing
from rlawrap.train.data.scenes.transforms import as_boxes, eval_transform, training_transform
from rlawrap.train.data.seeding import local_randomness

log = logging.getLogger(__name__)

#: What a target holds: boxes; boxes and masks; a class for each pixel.
Wanted = Literal["detection", "instance", "segmentation"]


class SceneDataset(Dataset[tuple[Tensor, Any]]):
    """A map-style data set of scenes.

    An item is an image float32 [3, H, W] in 0..1, of the scene's own size where `augment` does not
    change it, and a target. "detection": a dict as torchvision's detectors take it: boxes float32
    [n, 4] (XYXY; n may be 0), labels int64 [n] from 1 on, area float32 [n], iscrowd int64 [n],
    image_id int64; "instance": with masks uint8 [n, H, W]; "segmentation": int64 [H, W], 255
    where no class is known.

    Training takes scenes with something to learn in them, and leaves crowds out; `keep_empty`
    takes the others, too. All randomness of `load` is a function of (seed, epoch, index).

    Raises `DataError` when nothing is left, or when masks are wanted that are not there.
    """

    in_channels = 3

    def __init__(
        self,
        index: SceneIndex,
        *,
        wanted: Wanted = "detection",
        split: Split = "train",
        augment: SceneAugment | None = None,
        on_bad_image: OnBadImage = "fatal",
        keep_empty: bool = False,
    ) -> None:
        if wanted not in ("detection", "instance", "segmentation"):
            raise ConfigError(
                f"wanted={wanted!r}: choose 'detection', 'instance' or 'segmentation'."
            )
        if split not in ("train", "test"):
            raise ConfigError(f"split={split!r}: choose 'train' or 'test'.")
        _check_masks(index, wanted)
        training = split == "train"
        if training and wanted != "segmentation" and not keep_empty:
            index = _with_things(index)
        if not len(index):
            raise DataError(f"{index.source}: no scenes in the {split} split.")
        self.index = index
        self.wanted = wanted
        self.split = split
        self.augment = augment or SceneAugment()
        self.on_bad_image = on_bad_image
        self.classes = index.classes
        self.description = f"{index.source} ({len(index)} scenes, {split})"
        self.remarks = index.remarks
        self.transform = training_transform(self.augment) if training else eval_transform()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.load(index, seed=0, epoch=0)

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, Any]:
        """Image and target number `index`, changed as (seed, epoch, index) say.

        A damaged image, or one of another size than its annotations say, raises `DataError` with
        its name; with on_bad_image="skip" it is logged and comes as (zeros, None). A file that
        cannot be read at all raises `UnreadableError` in either case.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        try:
            image = read_image(self.index.path(index), self.index.scenes[index])
            target = self._target(index, image)
        except UnreadableError:
            raise  # a disk that is gone would make every image a bad one
        except DataError as error:
            if self.on_bad_image == "fatal":
                raise
            log.warning("skipped: %s", error)
            return torch.zeros(3, 1, 1), None
        with local_randomness("augment", seed, epoch, index):
            image, target = self.transform(image, target)
        return image.as_subclass(Tensor).float() / 255, self._plain(target)

    def for_judging(self) -> SceneDataset:
        """The same scenes as they are, with their crowds, as those of the test split come."""
        same = copy.copy(self)
        same.split, same.transform = "test", eval_transform()
        return same

    def name(self, index: int) -> str:
        """The file of scene `index`, for messages."""
        return str(self.index.path(index))

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when scenes, things or classes do."""
        return self.index.fingerprint()

    def groups(self) -> list[int]:
        """For `grouped_order`: 1 for a scene that is higher than wide, else 0."""
        return [int(scene.height > scene.width) for scene in self.index.scenes]

    def _target(self, index: int, image: Tensor) -> dict[str, Any]:
        from torchvision import tv_tensors

        scene = self.index.scenes[index]
        if self.wanted == "segmentation":
            assert scene.mask is not None
            classes = read_classes(Path(self.index.root, scene.mask), len(self.classes))
            if classes.shape != image.shape[1:]:
                raise DataError(
                    f"{self.index.root / scene.mask}: a mask of {_size(classes)} pixels for an "
                    f"image of {_size(image)}. Masks have the size of their image."
                )
            return {"classes": tv_tensors.Mask(classes)}
        things = [t for t in self.index.things[index] if self.split == "test" or not t.crowd]
        boxes = torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4)
        target: dict[str, Any] = {
            "boxes": as_boxes(boxes, (image.shape[1], image.shape[2])),
            "labels": torch.tensor([thing.label for thing in things], dtype=torch.int64),
            "area": torch.tensor([thing.area for thing in things], dtype=torch.float32),
            "iscrowd": torch.tensor([thing.crowd for thing in things], dtype=torch.int64),
            "image_id": torch.tensor(scene.id, dtype=torch.int64),
        }
        if self.wanted == "instance":
            target["masks"] = tv_tensors.Mask(self._masks(index, things))
        return target

    def _masks(self, index: int, things: list[Thing]) -> Tensor:
        scene = self.index.scenes[index]
        where = f"{self.index.source}: a thing in {scene.file} (id {scene.id})"
        shapes = [thing.shape for thing in things if thing.shape is not None]
        return masks_of(shapes, scene.height, scene.width, [where] * len(shapes))

    def _plain(self, target: dict[str, Any]) -> Any:
        plain = {
            name: value.as_subclass(Tensor) if isinstance(value, Tensor) else value
            for name, value in target.items()
        }
        return plain["classes"].long() if self.wanted == "segmentation" else plain


def read_image(path: Path, scene: Scene) -> Tensor:
    """The image of a scene, uint8 [3, H, W], as it was annotated.

    Photographs are brought upright by their EXIF data, which is how annotation tools show them;
    where only the pixels as they are stored have the size that the annotations say, they are taken
    so. Raises `DataError` for a damaged image and for one of neither size.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(str(path), error) from error
    image = decode(content, 3, str(path))
    size = (scene.height, scene.width)
    if image.shape[1:] == size:
        return image
    if image.shape[1:] == size[::-1]:
        stored = decode(content, 3, str(path), exif_orientation=False)
        if stored.shape[1:] == size:
            return stored
    raise DataError(
        f"{path}: an image of {_size(image)} pixels whose annotations are for "
        f"{scene.width} x {scene.height}. Annotate it again, or put the right image there."
    )


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"


def _with_things(index: SceneIndex) -> SceneIndex:
    """The scenes that have something to learn in them. Raises `DataError` when none has."""
    there = [n for n, things in enumerate(index.things) if any(not t.crowd for t in things)]
    if not there:
        raise DataError(
            f"{index.source}: no scene has anything to learn in it "
            f"({len(index)} scenes; {'; '.join(map(str, index.left_out)) or 'no things at all'})."
        )
    return index.chosen(there) if len(there) < len(index) else index


def _check_masks(index: SceneIndex, wanted: Wanted) -> None:
    """Raise `DataError` where what is wanted of an index is not in it."""
    for scene, things in zip(index.scenes, index.things, strict=True):
        if wanted == "segmentation" and scene.mask is None:
            raise DataError(
                f"{index.source}: {scene.file} has boxes but no mask of classes. For segmentation "
                "give a folder with images/ and masks/; or take task detection."
            )
        if wanted != "segmentation" and scene.mask is not None:
            raise DataError(
                f"{index.source}: {scene.file} has a mask of classes but no boxes. Take task "
                "segmentation, or give COCO or VOC annotations."
            )
        if wanted == "instance" and any(thing.shape is None for thing in things):
            raise DataError(
                f"{index.source}: a thing in {scene.file} (id {scene.id}) has a box but no mask "
                "(segmentation). Take task detection, or annotations with masks for all things."
            )
