"""What every test shares: a fixed seed, one thread per process, and GPU tests only with a GPU."""

from __future__ import annotations

import gc
import os

import pytest
import torch

# Small tensors run faster on one thread, and parallel workers do not fight for the cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Tracing and copying networks makes millions of small objects that are no garbage, and by default
# Python looks through them, and all that torch imports, again and again: a sixth of all the time.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    """Take what the imports have left out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same global random state."""
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
