from __future__ import annotations

import numpy as np
import pytest
import torch

from rlawrap.errors import DataError
from rlawrap.train.data.scenes.outlines import coco_mask, mask_of, masks_of, to_rle, unpacked
from rlawrap.train.data.scenes.records import Rle


def test_polygons_of_a_thing_are_put_together() -> None:
    left, right = (0, 0, 2, 0, 2, 3, 0, 3), (5, 0, 8, 0, 8, 3, 5, 3)
    mask = mask_of((left, right), 3, 10, "x")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [[1, 1, 0, 0, 0, 1, 1, 1, 0, 0]] * 3


def test_run_lengths_go_column_by_column() -> None:
    mask = mask_of(Rle(height=2, width=3, counts=(1, 2, 3)), 2, 3, "x")
    assert mask.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_packed_run_lengths_are_those_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        height, width = random.integers(1, 200, 2).tolist()
        mask = (random.random((height, width)) < random.random()).astype(np.uint8)
        packed = coco_mask().encode(np.asfortranarray(mask))["counts"].decode()
        back = mask_of(Rle(height=height, width=width, counts=packed), height, width, "x")
        assert (back.numpy() == mask).all()
        assert to_rle(back) == {"size": [height, width], "counts": packed}


@pytest.mark.parametrize("counts", [(3, 9), (-1, 7), "0", "\x01", "P"])
def test_run_lengths_that_do_not_add_up(counts: tuple[int, ...] | str) -> None:
    with pytest.raises(DataError, match=r"thing 3: run lengths that do not add up to the 3 x 2"):
        mask_of(Rle(height=2, width=3, counts=counts), 2, 3, "a.json, thing 3")


def test_text_that_is_cut_short_is_none() -> None:
    assert unpacked("P") is None and unpacked("\n") is None and unpacked("") == []


def test_no_things_have_masks_of_that_size() -> None:
    assert masks_of([], 4, 5, []).shape == (0, 4, 5)
