"""Scenes with what was found in them, drawn; readable on small and large, light and dark images."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

#: Okabe and Ito's colours, which people with any colour vision can tell apart, and four more.
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (148, 103, 189), (140, 86, 75), (23, 190, 207), (188, 189, 34),
)  # fmt: skip
#: The longer side of a drawing at least; smaller images are drawn larger.
LEAST_SIDE = 480
#: A pixel belongs to a mask from this probability on.
MASK_THRESHOLD = 0.5


def draw_things(
    image: Tensor,
    found: Mapping[str, Tensor],
    classes: Sequence[str],
    *,
    least_score: float = 0.0,
    names: bool = True,
) -> Tensor:
    """An image with boxes, and masks where there are any: uint8 [3, H', W'].

    image: float [3, H, W] in 0..1, or uint8. found: boxes [n, 4], labels [n] from 1 on, and
    perhaps scores [n] and masks ([n, H, W] of 0 and 1, or [n, 1, H, W] of probabilities): what a
    detector gives, or a target. classes: the name of label 1 and on. names: write them, with their
    scores. Images whose longer side is below 480 pixels are drawn larger, by a whole factor.

    >>> found = {"boxes": torch.tensor([[2.0, 2.0, 30.0, 20.0]]), "labels": torch.tensor([1])}
    >>> draw_things(torch.zeros(3, 48, 64), found, ["tree"]).shape
    torch.Size([3, 384, 512])
    """
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    drawing, factor = _enlarged(image)
    scores = found.get("scores")
    labels = found["labels"].cpu()
    kept = torch.ones_like(labels, dtype=torch.bool)
    if scores is not None:
        kept = scores.cpu() >= least_score
    boxes = found["boxes"].detach().cpu()[kept] * factor
    shown = labels[kept].tolist()
    if not shown:
        return drawing
    colours = [COLOURS[(label - 1) % len(COLOURS)] for label in shown]
    masks = found.get("masks")
    if masks is not None:
        marked = _repeated(_as_bool(masks.detach().cpu()[kept]), factor)
        drawing = draw_segmentation_masks(drawing, marked, alpha=0.45, colors=colours)
    texts = None
    if names:
        values = [None] * len(shown) if scores is None else scores.cpu()[kept].tolist()
        texts = [_text(classes, label, value) for label, value in zip(shown, values, strict=True)]
    side = max(drawing.shape[1:])
    font = font_file()
    drawn: Tensor = draw_bounding_boxes(
        drawing,
        boxes,
        labels=texts,
        colors=colours,
        width=max(2, round(side / 400)),
        font=font,
        font_size=max(11, round(side / 50)) if font is not None else None,
        label_colors=[_ink(colour) for colour in colours],
        label_background_colors=colours,
        fill_labels=True,
    )
    return drawn


def draw_classes(
    image: Tensor, found: Tensor, classes: Sequence[str], *, background: int | None = 0
) -> Tensor:
    """An image with the classes of its pixels as colours, and their names below: uint8 [3, H', W'].

    image: as `draw_things` takes it. found: class numbers [H, W]; 255 is left clear, and so is
    `background`.
    """
    from torchvision.utils import draw_segmentation_masks

    drawing, factor = _enlarged(image)
    found = found.cpu()
    numbers = [n for n in found.unique().tolist() if n < len(classes) and n != background]
    if not numbers:
        return drawing
    colours = [COLOURS[(number - 1) % len(COLOURS)] for number in numbers]
    masks = _repeated(torch.stack([found == number for number in numbers]), factor)
    drawn = draw_segmentation_masks(drawing, masks, alpha=0.55, colors=colours)
    return torch.cat([drawn, _legend(drawn.shape[2], [classes[n] for n in numbers], colours)], 1)


def font_file() -> str | None:
    """A font that scales, where matplotlib is installed; without, names are small."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], "mpl-data/fonts/ttf/DejaVuSans.ttf")
    return str(path) if path.is_file() else None


def _enlarged(image: Tensor) -> tuple[Tensor, int]:
    """uint8 [3, H', W'], and how many times as large."""
    image = image.detach().cpu()
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    if image.shape[0] == 1:
        image = image.expand(3, -1, -1)
    factor = max(1, math.ceil(LEAST_SIDE / max(image.shape[1:])))
    return _repeated(image, factor), factor


def _repeated(image: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return image
    return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def _as_bool(masks: Tensor) -> Tensor:
    masks = masks[:, 0] if masks.dim() == 4 else masks
    return masks >= MASK_THRESHOLD if masks.is_floating_point() else masks > 0


def _text(classes: Sequence[str], label: int, score: float | None) -> str:
    name = classes[label - 1] if 0 < label <= len(classes) else str(label)
    return name if score is None else f"{name} {score:.2f}"


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black on light colours, white on dark ones, by their luma."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _legend(width: int, names: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> Tensor:
    """Names on their colours, in rows: uint8 [3, H, width]."""
    from PIL import Image, ImageDraw, ImageFont
    from torchvision.transforms.v2.functional import pil_to_tensor

    size = max(12, round(width / 40))
    path = font_file()
    font = ImageFont.truetype(path, size) if path is not None else ImageFont.load_default()
    pad, x, row = size // 3, 0, 0
    height = size + 3 * pad
    places = []
    for name in names:
        wide = round(font.getlength(name)) + 2 * pad
        if x and x + wide > width:
            x, row = 0, row + 1
        places.append((x, row * height, wide))
        x += wide + pad
    strip = Image.new("RGB", (width, (row + 1) * height), (255, 255, 255))
    pen = ImageDraw.Draw(strip)
    for name, colour, (left, top, wide) in zip(names, colours, places, strict=True):
        pen.rectangle((left, top, left + wide, top + height - pad), fill=colour)
        pen.text((left + pad, top + pad // 2), name, fill=_ink(colour), font=font)
    legend: Tensor = pil_to_tensor(strip)
    return legend
