from __future__ import annotations

import json
from pathlib import Path

import torch

from rlawrap.train.data.scenes.outlines import coco_mask
from rlawrap.train.data.scenes.results import as_results, write_results


def test_results_are_cocos(tmp_path: Path) -> None:
    masks = torch.zeros(2, 1, 10, 20)
    masks[1, 0, 2:5, 3:9] = 0.9
    found = {
        "boxes": torch.tensor([[0.0, 0, 5, 5], [3, 2, 9, 5]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.25, 0.75]),
        "masks": masks,
    }
    results = as_results(
        found,
        image_id=4,
        classes=["car", "tree"],
        category_ids=[3, 90],
        file_name="a.png",
        least_score=0.3,
    )
    (result,) = results
    segmentation = result.pop("segmentation")
    assert result == {
        "file_name": "a.png", "image_id": 4, "category_id": 90, "category_name": "tree",
        "bbox": [3.0, 2.0, 6.0, 3.0], "score": 0.75,
    }  # fmt: skip
    assert coco_mask().toBbox(segmentation).tolist() == [3, 2, 6, 3]
    write_results(tmp_path / "r.json", results * 2)
    assert json.loads((tmp_path / "r.json").read_text()) == results * 2
    write_results(tmp_path / "none.json", [])
    assert json.loads((tmp_path / "none.json").read_text()) == []
