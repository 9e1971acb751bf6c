"""The stand-in for mmcv's operators does what mmcv's functions promise."""

from __future__ import annotations

import pytest
import torch


def test_nms_keeps_the_best_of_those_that_overlap() -> None:
    from mmcv.ops import batched_nms, nms

    boxes = torch.tensor([[0.0, 0, 9, 9], [1, 1, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.6, 0.9, 0.3])
    kept, indices = nms(boxes, scores, iou_threshold=0.5)
    assert indices.tolist() == [1, 2] and torch.equal(kept[:, :4], boxes[[1, 2]])
    # Two boxes side by side share a column where a box ends behind its last pixel: 10 of 30.
    side = torch.tensor([[0.0, 0, 1, 9], [1, 0, 2, 9]])
    assert nms(side, scores[:2], 0.3, offset=0)[1].tolist() == [1, 0]
    assert nms(side, scores[:2], 0.3, offset=1)[1].tolist() == [1]
    classes = torch.tensor([0, 1, 0])
    assert len(batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})[1]) == 3


def test_roi_align_and_its_gradient() -> None:
    from mmcv.ops import RoIAlign

    features = torch.arange(32.0, dtype=torch.float64).view(2, 1, 4, 4).requires_grad_()
    rois = torch.tensor([[1.0, 0, 0, 4, 4]], dtype=torch.float64)
    align = RoIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    assert align(features, rois).flatten().tolist() == [18.5, 20.5, 26.5, 28.5]
    assert torch.autograd.gradcheck(lambda x: align(x, rois), features)


def test_the_others_say_their_names() -> None:
    from mmcv.ops import soft_nms

    with pytest.raises(NotImplementedError, match="softnms"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1))
