"""Whether images can be trained on at all, before the first step."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rlawrap.errors import ConfigError, DataError, few
from rlawrap.train.config.train_config import MIN_DIFFERENT
from rlawrap.train.data.loader import Images
from rlawrap.train.data.opening import place_of
from rlawrap.train.data.splits import folders_in, read_layout, slashed


def check_fitness(images: Images, batch_size: int) -> None:
    """Raise `DataError` for fewer than two classes, or images; `ConfigError` for batches of one."""
    where = getattr(images, "description", "the training images")
    check_classes(images)
    if len(images) < MIN_DIFFERENT:
        raise DataError(
            f"{where}: {len(images)} image to train on. A step needs {MIN_DIFFERENT} different "
            "images, or the norms of the network have nothing to compare; give more of them."
        )
    if batch_size < MIN_DIFFERENT:
        raise ConfigError(
            f"batch_size={batch_size}: a step needs {MIN_DIFFERENT} different images, or the norms "
            f"of the network have nothing to compare. Set --batch-size to {MIN_DIFFERENT} or more."
        )


def check_output_apart(data: str, root: str | None, output: str) -> None:
    """Raise `ConfigError` for a new run folder that would be taken for a class, or lie in one.

    Beside folders of splits, tar shards, and as a hidden folder it is in nobody's way.
    """
    place, folder = Path(place_of(data, root)), Path(output).resolve()
    if not place.is_dir() or not folder.is_relative_to(place):
        return
    below = folder.relative_to(place).parts
    if any(part.startswith(".") for part in below) or (folder / "metrics.jsonl").exists():
        return  # hidden, or a run that goes on
    splits = [split.name for split in read_layout(place).folders]
    if below and below[0] not in splits and (splits or any(place.glob("*.tar"))):
        return
    apart = place.parent / "runs" / (folder.name if below else "train")
    raise ConfigError(
        f"--output {output}: inside the data, {place}, where the run's folders would be taken for "
        f"classes. Choose one outside of it: --output {apart}"
    )


def check_classes(images: Images) -> None:
    """Raise `DataError`, which shows what was found, for images of fewer than two classes."""
    labels = getattr(images, "labels", None)
    used = len(images.classes) if labels is None else len(np.unique(np.asarray(labels)))
    if used > 1 and len(images.classes) > 1:
        return
    where = getattr(images, "description", "the images")
    source = getattr(images, "source", None)
    root = getattr(source, "root", None)
    if len(images.classes) > 1:
        alone = images.classes[int(np.asarray(labels)[0])] if len(images) else "none"
        raise DataError(
            f"{where}: {len(images)} images, all of one class ({alone}) of "
            f"{len(images.classes)} ({few(images.classes, 5)}). A classifier needs two classes "
            "or more."
        )
    raise DataError(
        f"{where}: one class, {few(images.classes)}, with {len(images)} images. A classifier needs "
        f"two classes or more{'' if root is None else ', each in a folder of its own'}."
        + _one_level_down(root)
    )


def _one_level_down(root: Path | None) -> str:
    """What lies in the only class folder below `root`, when that is folders."""
    if root is None:
        return ""
    names = folders_in(root)
    inside = folders_in(root / names[0]) if len(names) == 1 else []
    if not inside:
        return ""
    return (
        f" In {slashed(names)} are {len(inside)} folders ({slashed(inside, 5)}): if those are the "
        f"classes or splits, give {os.path.join(root, names[0])}."
    )
