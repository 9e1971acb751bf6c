"""Small folders of scenes for tests, and runs of a second on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from rlawrap.train import TrainConfig
from rlawrap.train.data.shapes import COLOURS, boxes_of, draw


def write_coco(folder: Path, *, train: int = 12, test: int = 4, size: int = 32) -> Path:
    """Drawn shapes as COCO data; half of the scenes are cut to be wide, half to be high."""
    for split, count in (("train", train), ("val", test)):
        place = folder / split
        place.mkdir(parents=True)
        content: dict[str, list[Any]] = {"images": [], "annotations": []}
        # Numbers with a gap, as COCO's own.
        content["categories"] = [{"id": 3 * n, "name": name} for n, name in enumerate(COLOURS, 1)]
        for number in range(count):
            scene = draw(number, size, split)
            cut = size * 3 // 4
            height, width = (size, cut) if number % 2 else (cut, size)
            masks = scene.masks[:, :height, :width]
            seen = masks.flatten(1).any(1)
            image = (scene.image[:, :height, :width] * 255).byte()
            name = f"{number:03}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / name)
            entry = {"id": number + 1, "file_name": name, "width": width, "height": height}
            content["images"].append(entry)
            for box, label in zip(boxes_of(masks[seen]), scene.labels[seen], strict=True):
                left, top, right, bottom = box.tolist()
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": number + 1,
                        "category_id": 3 * int(label),
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                    }
                )
        (place / "annotations.json").write_text(json.dumps(content))
    return folder


#: A detector that looks at few places.
SMALL = {
    "out_channels": 8,
    "box_detections_per_img": 4,
    "box_batch_size_per_image": 16,
    "rpn_pre_nms_top_n_train": 40,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 20,
    "rpn_post_nms_top_n_test": 10,
}


def scene_config(output: Path, **changes: Any) -> TrainConfig:
    """One epoch of a small detector on drawn shapes."""
    values: dict[str, Any] = {
        "task": "detection",
        "data": "shapes",
        "arch": "rla_cifar_resnet20",
        "head": "fasterrcnn",
        "head_args": SMALL,
        "image_size": 32,
        "subset": 8,
        "epochs": 1,
        "batch_size": 4,
        "lr": 0.01,
        "workers": 0,
        "log_every": 1,
        "save_minutes": None,
        "output": str(output),
        "device": "cpu",
        "progress": "none",
        "timeout": 60,
    }
    return TrainConfig(**{**values, **changes})
