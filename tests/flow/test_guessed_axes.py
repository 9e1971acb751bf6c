"""Axes of channels that no size tells: a guess is not carried through a permutation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlawrap.flow.dataflow import Flow
from rlawrap.flow.traced import trace_model


class Frames(nn.Module):
    """Convolves the frames of a clip by themselves; of one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(3, 4, 1), nn.Conv3d(4, 4, 1)
        self.frame = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, clip: Tensor) -> Tensor:
        frames = self.first(clip).permute(0, 2, 1, 3, 4).reshape(5, 4, 8, 8)
        frames = self.frame(frames).view(1, 5, 4, 8, 8)
        return self.last(frames.permute(0, 2, 1, 3, 4))


class Last(nn.Module):
    """Holds its images with the channels last; of one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).permute(0, 2, 3, 1).relu().mean(3).view(2, 64))


def axes_of_permuted(flow: Flow) -> list[int | None]:
    return [flow.channel_axis(n) for n in flow.nodes if n.target == "permute"]


def test_a_guess_is_not_moved_and_what_is_known_is() -> None:
    clips = trace_model(Frames(), example_input=torch.zeros(1, 3, 5, 8, 8)).flow
    assert axes_of_permuted(clips) == [2, 1]
    images = trace_model(Last(), example_input=torch.zeros(2, 3, 8, 8)).flow
    assert axes_of_permuted(images) == [3]
