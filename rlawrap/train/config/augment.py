"""`AugmentConfig`: how training images are augmented and all images normalised, as plain data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rlawrap.errors import ConfigError
from rlawrap.train.config.checked import Checked, option_group

# Up to this image size a set is of thumbnails (CIFAR, Fashion-MNIST): images are padded and
# shifted at their own scale, where a random resized crop would leave too little to see.
THUMBNAIL = 64


def resize_at(resize: int, before: int, size: int) -> int:
    """The `resize` that belongs to images of another size: the same multiple of it.

    >>> resize_at(256, before=224, size=288)
    329
    """
    return round(resize * size / before)


_option = option_group("Augmentation")
_Share = Annotated[float, Field(gt=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]


class AugmentConfig(Checked):
    """Augmentation of the training images, and the normalisation of all of them.

    crop: "resized" (random area and aspect ratio, the ImageNet recipe), "padded" (pad by
    `padding`, cut at a random place, the CIFAR recipe) or "none".
    scale, ratio: range of area and aspect ratio of the resized crop.
    flip: probability of a horizontal flip. trivialaugment: one operation per image, of a strength
    drawn for it. randaugment: operations per image, at `magnitude`.
    erase: probability of erasing a rectangle. mixup, cutmix: their alphas; 0 switches off.
    mean, std: per channel, for pixels in 0..1; None takes those of the data set.
    resize: shorter side before the centre crop in evaluation; None is 256/224 of the size.

    Fields with a help text are options of the command line; `--config` sets the others, too.

    >>> AugmentConfig(crop="padded", padding=2).flip
    0.5
    """

    crop: Literal["resized", "padded", "none"] = _option("resized", "crop of training images")
    scale: tuple[_Share, _Share] = Field(default=(0.08, 1.0), strict=False)
    ratio: tuple[_Positive, _Positive] = Field(default=(3 / 4, 4 / 3), strict=False)
    padding: int = _option(4, "pixels around the image before a padded crop", ge=0)
    flip: float = _option(0.5, "probability of a horizontal flip", ge=0, le=1)
    trivialaugment: bool = _option(False, "TrivialAugment: one operation of a random strength")
    randaugment: int = _option(0, "RandAugment operations per image", ge=0)
    magnitude: int = _option(9, "magnitude of RandAugment, 0 to 30", ge=0, le=30)
    erase: float = _option(0.0, "probability of erasing a rectangle", ge=0, le=1)
    mixup: float = _option(0.0, "alpha of mixup; 0: none", ge=0)
    cutmix: float = _option(0.0, "alpha of CutMix; 0: none", ge=0)
    mean: tuple[float, ...] | None = Field(default=None, strict=False)
    std: tuple[_Positive, ...] | None = Field(default=None, strict=False)
    resize: int | None = _option(None, "shorter side before the centre crop in evaluation", ge=1)

    @field_validator("scale", "ratio")
    @classmethod
    def _low_end_first(cls, ends: tuple[float, float], info: Any) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ConfigError(f"{info.field_name}={ends}: give the low end first.")
        return ends

    @model_validator(mode="after")
    def _one_policy(self) -> AugmentConfig:
        if self.trivialaugment and self.randaugment:
            raise ConfigError("trivialaugment and randaugment: choose one of them.")
        return self

    @classmethod
    def for_size(cls, image_size: int, **changes: Any) -> AugmentConfig:
        """The usual augmentation at an image size: padded crop up to 64, resized crop above.

        >>> AugmentConfig.for_size(32).crop, AugmentConfig.for_size(224).crop
        ('padded', 'resized')
        """
        crop = "padded" if image_size <= THUMBNAIL else "resized"
        return cls(**{"crop": crop, **changes})
