"""Which kind of annotations a data folder holds, and where those of each split are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlawrap.errors import DataError
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.scenes.coco import read_coco
from rlawrap.train.data.scenes.mask_files import read_masks
from rlawrap.train.data.scenes.records import SceneIndex
from rlawrap.train.data.scenes.voc import read_voc
from rlawrap.train.data.splits import exact_split, folders_in, likely_split, slashed

#: Names of a COCO file beside the images of its split; the second is Roboflow's.
BESIDE = ("annotations.json", "_annotations.coco.json", "instances.json", "labels.json")
#: VOC's lists of the splits, the first that is there.
LISTS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval"),
    "test": ("val", "test"),
}
#: Reads a split, with the classes of the training split or without.
Reader = Callable[[Sequence[str] | None], SceneIndex]

LOOKED_FOR = (
    "COCO: annotations/instances_train2017.json and instances_val2017.json beside train2017/ and "
    "val2017/, or train/ and val/ with annotations.json (or _annotations.coco.json) in each; "
    "VOC: JPEGImages/ and Annotations/ (ImageSets/Main/train.txt and val.txt for the splits), or "
    "images and XML files side by side, below train/ and val/ or not; "
    "masks of classes: images/ and masks/, with train/ and val/ in both or above both"
)


@dataclass(frozen=True, kw_only=True)
class SceneLayout:
    """kind: "coco", "voc" or "masks". readers: of each split, or of all of it where that is one."""

    kind: str
    readers: dict[Split, Reader]
    whole: Reader | None = None


def find_layout(root: Path) -> SceneLayout:
    """The layout of a data folder. Raises `DataError`, which says what was looked for."""
    if not root.is_dir():
        raise DataError(
            f"{root}: {'is not a folder' if root.exists() else 'no such folder'}. Give a folder of "
            f"scenes: {LOOKED_FOR}."
        )
    for find in (_coco_lists, _masks, _voc, _split_folders):
        found = find(root)
        if found is not None:
            return found
    inside = folders_in(root)
    raise DataError(
        f"{root}: no scenes as they were looked for. It has "
        f"{slashed(inside) if inside else 'no folders'}. Looked for {LOOKED_FOR}."
    )


def _coco_lists(root: Path) -> SceneLayout | None:
    """annotations/instances_NAME.json with the images in NAME/, images/NAME/ or images/."""
    readers: dict[Split, Reader] = {}
    for path in sorted((root / "annotations").glob("*.json")):
        kind, _, name = path.stem.partition("_")
        split = _split_of(name if kind == "instances" else path.stem)
        if split is None or (kind != "instances" and "_" in path.stem):
            continue  # captions, key points, panoptic segmentation
        name = name if kind == "instances" else path.stem
        folders = [root / name, root / "images" / name, root / "images"]
        images = next((folder for folder in folders if folder.is_dir()), None)
        if images is None:
            raise DataError(
                f"{path}: its images were looked for in {name}/, images/{name}/ and images/ below "
                f"{root}; none of them is there."
            )
        if split not in readers:
            readers[split] = partial(_read_coco, images, path)
    return SceneLayout(kind="coco", readers=readers) if readers else None


def _read_coco(images: Path, path: Path, classes: Sequence[str] | None) -> SceneIndex:
    return read_coco(images, path, classes=classes)


def _read_voc(root: Path, subset: str | None, classes: Sequence[str] | None) -> SceneIndex:
    return read_voc(root, subset=subset, classes=classes)


def _read_masks(images: Path, masks: Path, classes: Sequence[str] | None) -> SceneIndex:
    return read_masks(images, masks, classes=classes)


def _split_of(name: str) -> Split | None:
    """The split that a name such as train2017 or Validation is for."""
    exact = exact_split(name)
    if exact is not None:
        return exact[0]
    likely = likely_split(name)
    return likely[0] if likely is not None and likely[1] == ("*",) else None


def _masks(root: Path) -> SceneLayout | None:
    """images/ and masks/, with the splits in both or without any."""
    images, masks = root / "images", root / "masks"
    if not (images.is_dir() and masks.is_dir()):
        return None
    readers: dict[Split, Reader] = {}
    for name in folders_in(masks):
        split = _split_of(name)
        if split is not None and (images / name).is_dir() and split not in readers:
            readers[split] = partial(_read_masks, images / name, masks / name)
    if readers:
        return SceneLayout(kind="masks", readers=readers)
    return SceneLayout(kind="masks", readers={}, whole=partial(_read_masks, images, masks))


def _voc(root: Path) -> SceneLayout | None:
    """VOC's folders with its lists of the splits or without, or XML files beside images."""
    if (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir():
        readers: dict[Split, Reader] = {}
        for split, names in LISTS.items():
            lists = root / "ImageSets" / "Main"
            there = [name for name in names if (lists / f"{name}.txt").is_file()]
            if there:
                readers[split] = partial(_read_voc, root, there[0])
        whole = None if readers else partial(_read_voc, root, None)
        return SceneLayout(kind="voc", readers=readers, whole=whole)
    if any(root.glob("*.xml")):
        return SceneLayout(kind="voc", readers={}, whole=partial(_read_voc, root, None))
    return None


def _split_folders(root: Path) -> SceneLayout | None:
    """A folder for each split, each with a COCO file, images/ and masks/, or XML files."""
    readers: dict[Split, tuple[int, str, Reader]] = {}
    for name in folders_in(root):
        exact = exact_split(name)
        found = _of_split(root / name) if exact is not None else None
        if exact is None or found is None:
            continue
        split, group = exact
        if split not in readers or group < readers[split][0]:
            readers[split] = (group, *found)
    if not readers:
        return None
    kinds = {kind for _, kind, _ in readers.values()}
    if len(kinds) > 1:
        raise DataError(f"{root}: its splits are of different kinds: {', '.join(sorted(kinds))}.")
    return SceneLayout(
        kind=kinds.pop(), readers={split: reader for split, (_, _, reader) in readers.items()}
    )


def _of_split(folder: Path) -> tuple[str, Reader] | None:
    for name in BESIDE:
        if (folder / name).is_file():
            images = folder / "images"
            return "coco", partial(_read_coco, images if images.is_dir() else folder, folder / name)
    for find in (_masks, _voc):
        found = find(folder)
        if found is not None and found.whole is not None:
            return found.kind, found.whole
    return None
