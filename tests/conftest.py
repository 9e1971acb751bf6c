"""What every test shares: a fixed seed, one thread per process, and GPU tests only with a GPU."""

from __future__ import annotations

import gc
import os
import signal

import pytest
import torch

# Small tensors run faster on one thread, and parallel workers do not fight for the cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What was started in the background or by nohup ignores some signals, and so would all it starts.
for name, usual in (
    ("SIGINT", signal.default_int_handler),
    ("SIGHUP", signal.SIG_DFL),
    ("SIGQUIT", signal.SIG_DFL),
):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), usual)


# Tracing and copying networks makes millions of small objects that are no garbage, and by default
# Python looks through them, and all that torch imports, again and again: a sixth of all the time.
gc.set_threshold(50_000, 20, 20)


#: Tests of five seconds and more, most of them of several processes.
LONG = (
    "tests/train/commands/test_elastic.py",
    "tests/train/ablation/test_jobs.py",
    "tests/train/commands/test_launch.py",
    "tests/fuzz/test_fuzz.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


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
