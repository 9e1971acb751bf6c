"""Photographs made ready for a network, and the input that stands in for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.probes import candidate_inputs, kernel_read_first
from rlawrap.errors import ConfigError, DataError
from rlawrap.show.drawing import Pixels
from rlawrap.splice import RLAModel

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Up to this side a little smaller image is put on black, a larger one resized to the very side.
THUMBNAIL = 64


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a photograph becomes a network's input.

    size: height and width. resize: the shorter side before the middle is cut out; None is 256/224
    of the size.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    @property
    def channels(self) -> int:
        """Channels of the image: 3 of a colour image, 1 of a grey one."""
        return len(self.mean)


@dataclass(frozen=True, kw_only=True)
class Photo:
    """An image as the network gets it, [1, channels, height, width], and as it is to be shown."""

    name: str
    tensor: Tensor
    pixels: Pixels


def preparation_of(
    model: nn.Module,
    *,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
) -> Preparation:
    """What a network's `default_cfg` says (timm's and the CIFAR-style ones), else ImageNet's.

    Raises `ConfigError` for a network of no images, or of values that do not go with its channels.

    >>> from torchvision.models import resnet18
    >>> preparation_of(resnet18(), size=64).size
    (64, 64)
    """
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    known: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    channels, axes = _reads(model)
    if axes != 2:
        raise ConfigError(
            f"show: {type(model).__name__} reads {axes}d signals, no images; give "
            "example_input= with a tensor that it takes."
        )
    own = tuple(known.get("input_size") or (channels, 224, 224))[1:]
    height, width = own if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if size is None and resize is None and known.get("crop_pct"):
        resize = round(min(height, width) / float(known["crop_pct"]))
    return Preparation(
        size=(int(height), int(width)),
        mean=_per_channel("mean", mean, known.get("mean") or IMAGENET_MEAN, channels),
        std=_per_channel("std", std, known.get("std") or IMAGENET_STD, channels),
        resize=resize,
    )


def _reads(model: nn.Module) -> tuple[int, int]:
    """Channels and spatial axes of a network's input; a rewritten one knows what it saw."""
    if isinstance(model, RLAModel) and len(model.rla.plan.input_shape) > 2:
        shape = model.rla.plan.input_shape
        return shape[1], len(shape) - 2
    return kernel_read_first(model) or (3, 2)


def _per_channel(
    name: str, given: Sequence[float] | None, known: Sequence[float], channels: int
) -> tuple[float, ...]:
    values = tuple(map(float, known if given is None else given))
    if given is None and len(values) != channels:
        values = (sum(values) / len(values),) * channels
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise ConfigError(
            f"show: {name}={values} has {len(values)} values; the network reads {channels}."
        )
    return values


def open_photo(image: Any, preparation: Preparation) -> Photo:
    """An image file, a Pillow image, pixels (uint8) or a network's input (float) as a `Photo`.

    Tensors are [channels, height, width], or with a batch of one in front. Raises `DataError` for
    a file that is not there or damaged, and for a tensor of another shape.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, Tensor):
        return _from_tensor(image, preparation)
    name = str(image) if isinstance(image, (str, Path)) else "the image"
    pixels = torch.from_numpy(_decoded(image, name, preparation.channels)).permute(2, 0, 1)
    return _prepared(pixels, name, preparation)


def _decoded(image: Any, name: str, channels: int) -> Pixels:
    """uint8 [height, width, channels], turned upright."""
    from PIL import Image, ImageOps

    try:
        if isinstance(image, Image.Image):
            upright = ImageOps.exif_transpose(image)
        else:
            with Image.open(image) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise DataError(f"{name}: no such image file.") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; name an image file.") from None
    except (OSError, ValueError, SyntaxError, AttributeError) as error:
        raise DataError(f"{name}: no image that can be read ({error}).") from error
    if upright.mode.startswith(("I", "F")):
        raise DataError(
            f"{name}: has more than 8 bits a pixel (mode {upright.mode} of Pillow); convert it "
            "to 8."
        )
    array: Pixels = np.array(upright.convert("RGB" if channels == 3 else "L"), dtype=np.uint8)
    return array if array.ndim == 3 else array[..., None].repeat(channels, axis=2)


def _prepared(pixels: Tensor, name: str, how: Preparation) -> Photo:
    """uint8 [channels, height, width] resized, cut and normalised."""
    from torchvision.transforms.v2 import functional as F

    height, width = pixels.shape[-2:]
    sides, most = (height, width), max(how.size)
    if most <= THUMBNAIL and how.resize is None:
        fits = 3 * most / 4 <= min(sides) <= max(sides) <= most
        shorter = None if fits else min(how.size)
    else:
        shorter = how.resize or round(min(how.size) * 256 / 224)
    if shorter is not None:
        pixels = F.resize(pixels, [shorter], antialias=True)
    pixels = F.center_crop(pixels, list(how.size))
    tensor = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), how.mean, how.std)
    return Photo(name=name, tensor=tensor[None], pixels=_shown(pixels))


def _from_tensor(image: Tensor, how: Preparation) -> Photo:
    value = image.detach().cpu()
    value = value[0] if value.dim() == 4 and len(value) == 1 else value
    if value.dim() != 3 or value.shape[0] != how.channels:
        raise DataError(
            f"show: image= is a tensor of shape {tuple(image.shape)}; expected "
            f"[{how.channels}, height, width]."
        )
    if value.dtype == torch.uint8:
        return _prepared(value, "the image", how)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (how.mean, how.std))
    shown = ((value.float() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return Photo(name="the image", tensor=value[None], pixels=_shown(shown))


def _shown(pixels: Tensor) -> Pixels:
    """uint8 [height, width, 3] of any number of channels."""
    if pixels.shape[0] != 3:
        pixels = pixels[:1].expand(3, -1, -1)
    array: Pixels = pixels.permute(1, 2, 0).contiguous().numpy()
    return array


def random_input(model: nn.Module, example: Any, *, rows: int = 2) -> Any:
    """Standard normal numbers in the shapes of an example, or of an image that the network takes.

    They are the same each time, and the global random state is left alone.
    """
    generator = torch.Generator().manual_seed(0)
    if example is None:
        known = model.rla.plan.input_shape if isinstance(model, RLAModel) else ()
        shape = known or candidate_inputs(model)[0]
        return torch.randn((rows, *shape[1:]), generator=generator)
    return pytree.tree_map_only(
        Tensor,
        lambda t: (
            torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
        ),
        example,
    )


def call_with(
    value: Any, like: tuple[torch.device, torch.dtype]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an input, with floats where the model has its weights."""
    device, dtype = like
    moved = pytree.tree_map_only(
        Tensor, lambda t: t.to(device, dtype) if t.is_floating_point() else t.to(device), value
    )
    if isinstance(moved, Mapping):
        return (), dict(moved)
    return tuple(moved) if isinstance(moved, (tuple, list)) else (moved,), {}
