"""`AugmentConfig`: how training images are augmented and all images normalised, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlawrap.errors import ConfigError
from rlawrap.train.config.fields import check_fields

# Up to this image size a set is of thumbnails (CIFAR, Fashion-MNIST): images are padded and
# shifted at their own scale, where a random resized crop would leave too little to see.
THUMBNAIL = 64


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of the training images, and the normalisation of all of them.

    crop: "resized" (random area and aspect ratio, the ImageNet recipe), "padded" (pad by
    `padding`, cut at a random place, the CIFAR recipe) or "none".
    scale, ratio: range of area and aspect ratio of the resized crop.
    flip: probability of a horizontal flip. randaugment: operations per image, at `magnitude`.
    erase: probability of erasing a rectangle. mixup, cutmix: their alphas; 0 switches off.
    mean, std: per channel, for pixels in 0..1; None takes those of the data set.
    resize: shorter side before the centre crop in evaluation; None is 256/224 of the size.

    >>> AugmentConfig(crop="padded", padding=2).flip
    0.5
    """

    crop: Literal["resized", "padded", "none"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 4
    flip: float = 0.5
    randaugment: int = 0
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: a probability is in 0..1.")
        for name in ("padding", "randaugment", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"scale={self.scale}: give a range within 0..1, low end first.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"ratio={self.ratio}: give a positive range, low end first.")
        if self.resize is not None and self.resize < 1:
            raise ConfigError(f"resize={self.resize}: must be at least 1.")
        if not 0 <= self.magnitude <= 30:
            raise ConfigError(f"magnitude={self.magnitude}: RandAugment knows 0 to 30.")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"std={self.std}: standard deviations are positive.")

    @classmethod
    def for_size(cls, image_size: int, **changes: Any) -> AugmentConfig:
        """The usual augmentation at an image size: padded crop up to 64, resized crop above.

        >>> AugmentConfig.for_size(32).crop, AugmentConfig.for_size(224).crop
        ('padded', 'resized')
        """
        crop = "padded" if image_size <= THUMBNAIL else "resized"
        return cls(**{"crop": crop, **changes})
