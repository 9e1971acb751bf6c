"""Small scenes with annotations, written to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (20, 10), value: int = 100) -> None:
    """An RGB image of a size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def coco(**changes: Any) -> dict[str, Any]:
    """Two images of 20 x 10, three categories with gaps, three annotations on the first image."""
    square = [2, 2, 6, 2, 6, 6, 2, 6]
    content: dict[str, Any] = {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 4, "file_name": "a.png", "width": 20, "height": 10},
        ],
        "categories": [
            {"id": 90, "name": "tree"},
            {"id": 3, "name": "car"},
            {"id": 17, "name": "cow"},
        ],
        "annotations": [
            _annotation(1, 90, [2, 2, 4, 4], segmentation=[square]),
            _annotation(2, 3, [10, 1, 5, 8]),
            _annotation(3, 17, [0, 0, 20, 10], iscrowd=1),
        ],
    }
    return {**content, **changes}


def _annotation(number: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    record = {"id": number, "image_id": 4, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**record, "area": box[2] * box[3], **more}


def write_coco(root: Path, content: Any, names: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    """A file of annotations with images beside it."""
    for place, name in enumerate(names):
        write_image(root / name, value=50 + 50 * place)
    path = root / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def voc_xml(
    file: str, objects: list[tuple[str, tuple[Any, ...]]], size: str | None = None, more: str = ""
) -> str:
    """VOC's XML for an image of 20 x 10."""
    if size is None:
        size = "<size><width>20</width><height>10</height><depth>3</depth></size>"
    sides = ("xmin", "ymin", "xmax", "ymax")
    things = "".join(
        f"<object><name>{name}</name>{more}<bndbox>"
        + "".join(f"<{s}>{v}</{s}>" for s, v in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    return f"<annotation><filename>{file}</filename>{size}{things}</annotation>"


def write_voc(root: Path, boxes: dict[str, list[tuple[str, tuple[Any, ...]]]]) -> None:
    """VOC's folders: JPEGImages with PNG files, and Annotations."""
    (root / "Annotations").mkdir(parents=True)
    for stem, objects in boxes.items():
        write_image(root / "JPEGImages" / f"{stem}.png")
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.png", objects))
