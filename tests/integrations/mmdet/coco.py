"""A tiny data set in COCO's format: bright rectangles on noise, with boxes and masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("wide", "tall")


def write(folder: Path, count: int = 4, side: int = 96) -> None:
    """Images in `folder/images` and `folder/instances.json`; two rectangles in each."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        pixels = random.integers(0, 60, (side, side, 3), dtype=np.uint8)
        name = f"{i}.png"
        images.append({"id": i, "file_name": name, "width": side, "height": side})
        for category, (w, h) in enumerate(((48, 24), (24, 48))):
            x, y = (int(n) for n in random.integers(0, side - 48, 2))
            pixels[y : y + h, x : x + w, category] = 250
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(pixels).save(folder / "images" / name)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
