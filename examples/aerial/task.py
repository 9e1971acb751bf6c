"""The task of aerial_scenes.py: detection that trains on random pieces of its tiles."""

from __future__ import annotations

from rlawrap.train.data.scenes import SceneAugment
from rlawrap.train.tasks.detection import Detection

#: The side of a piece; test tiles are seen whole.
PIECE = 256


class Pieces(Detection):
    """Detection, but for the augmentation of training scenes."""

    def augment(self) -> SceneAugment:
        return SceneAugment(
            flip=0.5,
            jitter=(0.8, 1.25),
            crop=(PIECE, PIECE),
            photometric=True,
            min_share=0.4,
            min_side=4,
        )
