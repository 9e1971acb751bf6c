"""`SceneAugment`: what happens to a training scene, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from rlawrap.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SceneAugment:
    """Augmentation of training scenes; boxes and masks move along.

    flip: probability of turning left to right. sizes: shorter sides, one of which is drawn, and
    max_size the longest side then; without, a scene keeps its size, which a detector of torchvision
    changes itself. jitter: range of a factor on top (scale jitter). crop: height and width of a
    random piece; smaller scenes are filled up, with black and with pixels of no class.
    photometric: change brightness, contrast, saturation and hue. min_share, min_side: a thing cut
    by the crop stays when at least that share of its box and that many pixels each way are left.

    >>> SceneAugment(sizes=(640, 800), max_size=1333).flip
    0.5
    """

    flip: float = 0.5
    sizes: tuple[int, ...] = ()
    max_size: int | None = None
    jitter: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    photometric: bool = False
    min_share: float = 0.25
    min_side: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or not 0 <= self.min_share <= 1:
            raise ConfigError(
                f"flip={self.flip}, min_share={self.min_share}: both are from 0 to 1."
            )
        if any(size < 1 for size in (*self.sizes, self.max_size or 1, *(self.crop or ()))):
            raise ConfigError("sizes, max_size and crop: pixels, at least 1.")
        if self.max_size is not None and not self.sizes:
            raise ConfigError(f"max_size={self.max_size}: goes with sizes=(shorter side, ...).")
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise ConfigError(f"jitter={self.jitter}: give the low end first, above 0.")
        if self.min_side <= 0:
            raise ConfigError(f"min_side={self.min_side}: must be above 0.")
