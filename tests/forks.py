"""Processes for tests, forked from a server that has imported everything.

So a group of four starts in a second, where each would import torch on its own.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

SERVER = "forkserver"


def forks() -> ForkServerContext:
    """The context whose processes come from the one server that a worker of the tests has."""
    context = multiprocessing.get_context(SERVER)
    context.set_forkserver_preload(
        [
            *("tests.nets", "tests.train.toys", "rlawrap.train.loop.engine"),
            *("torch.distributed.fsdp", "torchvision.transforms.v2", "torchmetrics.classification"),
        ]
    )
    return context
