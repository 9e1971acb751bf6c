"""Scenes for detection and segmentation: readers of annotations, a data set, transforms, tiles.

`open_scenes` opens a folder; `read_coco`, `read_voc` and `read_masks` read one split each.
"""

from __future__ import annotations

from rlawrap.train.data.scenes.augment import SceneAugment
from rlawrap.train.data.scenes.coco import read_coco
from rlawrap.train.data.scenes.dataset import SceneDataset, Wanted
from rlawrap.train.data.scenes.grouping import grouped_order
from rlawrap.train.data.scenes.mask_files import read_masks
from rlawrap.train.data.scenes.opening import open_scenes
from rlawrap.train.data.scenes.records import LeftOut, Rle, Scene, SceneIndex, Thing
from rlawrap.train.data.scenes.transforms import IGNORED
from rlawrap.train.data.scenes.voc import read_voc

__all__ = [
    "IGNORED",
    "LeftOut",
    "Rle",
    "Scene",
    "SceneAugment",
    "SceneDataset",
    "SceneIndex",
    "Thing",
    "Wanted",
    "grouped_order",
    "open_scenes",
    "read_coco",
    "read_masks",
    "read_voc",
]
