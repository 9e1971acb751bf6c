"""From what the user wrote to a `SceneDataset`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.data.dataset import OnBadImage, Split
from rlawrap.train.data.scenes.augment import SceneAugment
from rlawrap.train.data.scenes.dataset import SceneDataset, Wanted
from rlawrap.train.data.scenes.layout import SceneLayout, find_layout
from rlawrap.train.data.scenes.records import SceneIndex
from rlawrap.train.data.seeding import derive_seed

#: The share of the scenes that is held out for testing where data comes without splits.
HOLDOUT = 0.1


def open_scenes(
    root: str | os.PathLike[str],
    *,
    split: Split = "train",
    wanted: Wanted = "detection",
    augment: SceneAugment | None = None,
    subset: int | None = None,
    on_bad_image: OnBadImage = "fatal",
    keep_empty: bool = False,
    whole: bool = False,
) -> SceneDataset:
    """Open one split of a folder of scenes.

    root: COCO's, VOC's or a folder of masks, as `docs/data.md` lists them. Labels are those of the
    training split, whose classes the test split must have. Without splits a tenth of the scenes is
    held out for testing, chosen by a hash of their names. subset: so many scenes, always the same.
    whole: all of data without splits. Others as in `SceneDataset`.

    Raises `DataError` when nothing like that is there (it says what was looked for), or what the
    readers do; `ConfigError` for an option that makes no sense.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"split={split!r}: choose 'train' or 'test'.")
    path = Path(root).expanduser()
    layout = find_layout(path)
    index = read_split(path, layout, split, whole=whole)
    dataset = SceneDataset(
        index,
        wanted=wanted,
        split=split,
        augment=augment,
        on_bad_image=on_bad_image,
        keep_empty=keep_empty,
    )
    if subset is None or subset >= len(dataset):
        return dataset
    if subset < 1:
        raise ConfigError(f"subset={subset}: ask for at least one scene.")
    order = np.random.default_rng(derive_seed("subset")).permutation(len(dataset))
    dataset.index = dataset.index.chosen(sorted(order[:subset].tolist()))
    return dataset


def read_split(root: Path, layout: SceneLayout, split: Split, *, whole: bool = False) -> SceneIndex:
    """The scenes of a split of a layout. Raises `DataError` for a split that is not there."""
    if layout.whole is not None:
        index = layout.whole(None)
        return index if whole else _held_out(index, split)
    if split not in layout.readers:
        there = " and ".join(layout.readers)
        raise DataError(
            f"{root}: {layout.kind.upper() if layout.kind != 'masks' else 'masks'} with a {there} "
            f"split, but none for {split}. Name its folder or file for it, such as "
            f"{'train' if split == 'train' else 'val'}."
        )
    known: Sequence[str] | None = None
    if split == "test" and "train" in layout.readers:
        known = layout.readers["train"](None).classes
    return layout.readers[split](known)


def _held_out(index: SceneIndex, split: Split) -> SceneIndex:
    """A tenth of the scenes, at least one, or the others."""
    keys = [hashlib.blake2b(scene.file.encode(), digest_size=8).digest() for scene in index.scenes]
    order = sorted(range(len(index)), key=keys.__getitem__)
    held = set(order[: max(1, round(HOLDOUT * len(index)))]) if len(index) > 1 else set()
    numbers = [n for n in range(len(index)) if (n in held) == (split == "test")]
    words = f"{index.source} (a tenth held out)"
    return replace(index.chosen(numbers), source=words)
