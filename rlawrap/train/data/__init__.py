"""Images for training: `open_data` finds them, `ImageDataset` gives them one by one.

>>> data = open_data("builtin", split="test", image_size=32)
>>> image, label = data.load(0, seed=0, epoch=0)
>>> image.shape, data.classes[label]
(torch.Size([1, 32, 32]), 'Ankle boot')
"""

from __future__ import annotations

from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.data.dataset import SKIPPED, ImageDataset, drop_skipped
from rlawrap.train.data.opening import NAMED, open_data
from rlawrap.train.data.seeding import derive_seed, local_randomness
from rlawrap.train.data.transforms import mix_batch
from rlawrap.train.data.workers import worker_init

__all__ = [
    "NAMED",
    "SKIPPED",
    "AugmentConfig",
    "ImageDataset",
    "derive_seed",
    "drop_skipped",
    "local_randomness",
    "mix_batch",
    "open_data",
    "worker_init",
]
