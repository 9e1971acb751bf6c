"""What a detector found, as COCO's JSON of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlawrap.train.data.scenes.drawing import MASK_THRESHOLD
from rlawrap.train.data.scenes.outlines import to_rle


def as_results(
    found: Mapping[str, Tensor],
    *,
    image_id: int,
    classes: Sequence[str],
    category_ids: Sequence[int] | None = None,
    file_name: str | None = None,
    least_score: float = 0.0,
) -> list[dict[str, Any]]:
    """The detections of an image, the surest first, as COCO's evaluation reads them.

    found: boxes [n, 4] (XYXY, pixels), labels [n] from 1 on, scores [n], and perhaps masks
    [n, 1, H, W] of probabilities. category_ids: those of the annotations; else the labels. Beside
    COCO's keys each has category_name and, where given, file_name.

    >>> import torch
    >>> found = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 6.0]]), "labels": torch.tensor([1])}
    >>> found["scores"] = torch.tensor([0.5])
    >>> as_results(found, image_id=7, classes=["tree"])  # doctest: +NORMALIZE_WHITESPACE
    [{'image_id': 7, 'category_id': 1, 'category_name': 'tree', 'bbox': [1.0, 2.0, 3.0, 4.0],
      'score': 0.5}]
    """
    boxes, labels = found["boxes"].detach().cpu(), found["labels"].cpu().tolist()
    scores = found["scores"].detach().cpu()
    masks = found.get("masks")
    results = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        score = float(scores[place])
        if score < least_score:
            break
        label = labels[place]
        left, top, right, bottom = (round(side, 2) for side in boxes[place].tolist())
        result: dict[str, Any] = {} if file_name is None else {"file_name": file_name}
        known = category_ids is not None and label <= len(category_ids)
        result |= {
            "image_id": image_id,
            "category_id": category_ids[label - 1] if known and category_ids else label,
            "category_name": classes[label - 1] if label <= len(classes) else str(label),
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "score": round(score, 5),
        }
        if masks is not None:
            mask = masks[place].detach()
            result["segmentation"] = to_rle(
                (mask[0] if mask.dim() == 3 else mask) >= MASK_THRESHOLD
            )
        results.append(result)
    return results


def write_results(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """One JSON list, a result a line."""
    lines = ",\n".join(json.dumps(result) for result in results)
    path.write_text(f"[\n{lines}\n]\n" if results else "[]\n", encoding="utf-8")
