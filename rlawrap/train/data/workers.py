"""Loader processes: how they start, which signals they leave to the trainer, when they end."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch

from rlawrap.train.process.signals import die_with_parent, heeded_signals

# How long a loader process outlives a SIGTERM. A scheduler sends the signal to every process of
# a job, and the trainer still needs batches until its checkpoint is written.
GRACE_SECONDS = 60

#: Exit code of a loader process that can hand no batch over, for want of what the system gives.
NO_RESOURCES = 71  # EX_OSERR of sysexits.h


def worker_init(worker_id: int) -> None:
    """`worker_init_fn` for a DataLoader: one thread each, and Ctrl-C is left to the parent.

    A terminal sends Ctrl-C to the workers as well, which would then print a traceback each while
    the training process is saving.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_quiet_without_a_reader()


def _be_quiet_without_a_reader() -> None:
    """Let this loader process say nothing of a batch that nobody reads any more.

    After a Ctrl-C the parent may be gone while one is on its way, and the thread that sends it
    would print a traceback. `_on_queue_feeder_error` is there to be replaced.
    """
    usual = multiprocessing.queues.Queue._on_queue_feeder_error  # type: ignore[attr-defined]

    def tell(error: BaseException, batch: object) -> None:
        if not isinstance(error, BrokenPipeError):
            usual(error, batch)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(tell)  # type: ignore[attr-defined]


def _end_when_batches_are_stuck() -> None:
    """End this loader process when its threads fail to hand a batch over.

    Threads of `multiprocessing` do that, which print a traceback and go on without the batch, and
    the trainer would wait for it in vain.
    """

    def leave(*error: object) -> None:
        os._exit(NO_RESOURCES)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(leave)  # type: ignore[attr-defined]
    sys.excepthook = leave  # of the thread that serves the descriptors of shared memory


def why_gone(processes: Sequence[BaseProcess], patience: float = 1.0) -> str:
    """Why a loader process has ended; empty when none has.

    patience: seconds in which one may end, whose connection broke before.
    """
    ending = wait([process.sentinel for process in processes], timeout=patience)
    for process in processes:
        if process.sentinel in ending:
            process.join(patience)  # files close, the sentinel's too, before there is an exit code
        code = process.exitcode
        if code == NO_RESOURCES:
            return "one could not hand a batch over, for want of open files or shared memory"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return f"process {process.pid} was killed by {name}{hint}"
        if code:
            return f"process {process.pid} ended with exit code {code}"
    return ""


def start_worker(worker_id: int) -> None:
    """`worker_init`, and what the trainer asks of its own: to end with it, not with its job."""
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    worker_init(worker_id)
    _end_when_batches_are_stuck()
    # Signals of a scheduler or a terminal reach the loader processes too; the trainer decides.
    for number in heeded_signals():
        ends = number == signal.SIGTERM
        signal.signal(number, (lambda *_: signal.alarm(GRACE_SECONDS)) if ends else signal.SIG_IGN)
