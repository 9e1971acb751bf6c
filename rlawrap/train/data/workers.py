"""Loader processes: how they start, which signals they leave to the trainer, when they end."""

from __future__ import annotations

import os
import signal

import torch

from rlawrap.train.process.signals import die_with_parent, heeded_signals

# How long a loader process outlives a SIGTERM. A scheduler sends the signal to every process of
# a job, and the trainer still needs batches until its checkpoint is written.
GRACE_SECONDS = 60


def worker_init(worker_id: int) -> None:
    """`worker_init_fn` for a DataLoader: one thread each, and Ctrl-C is left to the parent.

    A terminal sends Ctrl-C to the workers as well, which would then print a traceback each while
    the training process is saving.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_worker(worker_id: int) -> None:
    """`worker_init`, and what the trainer asks of its own: to end with it, not with its job."""
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    worker_init(worker_id)
    # Signals of a scheduler or a terminal reach the loader processes too; the trainer decides.
    for number in heeded_signals():
        ends = number == signal.SIGTERM
        signal.signal(number, (lambda *_: signal.alarm(GRACE_SECONDS)) if ends else signal.SIG_IGN)
