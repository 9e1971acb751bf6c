"""`train`: a whole run, from a `TrainConfig` to a run folder, on one process or many.

Start it in one process by calling it, in many with torchrun. Whatever it does next is a function
of the checkpoint and the config, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlawrap.errors import RLAError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.loop.progress import open_display
from rlawrap.train.loop.run import Run, Status
from rlawrap.train.loop.setup import ImagePair, kernels
from rlawrap.train.process.processes import join_processes
from rlawrap.train.process.signals import stop_on_signals
from rlawrap.train.store.lock import hold_folder
from rlawrap.train.store.run_folder import RunFolder

INTERRUPTED = (
    "ended by a second signal before a checkpoint was written; --resume auto goes on from the last"
)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    status: "finished" or "stopped" (by a signal; go on with resume="auto").
    epoch, step: what would come next, counted from 0.
    best: figures of the best epoch; last: those of the last one. None before the first.
    """

    status: Status
    output: Path
    epoch: int
    step: int
    best: dict[str, Any] | None
    last: dict[str, Any] | None
    message: str


def train(config: TrainConfig, *, data: ImagePair | None = None) -> TrainResult:
    """Train a network as the config says; returns when the run is finished or stopped.

    data: training and test images, instead of those that `config.data` names.
    Raises `ConfigError`, `DataError`, `CheckpointError` or `TrainError`; what was written before
    stays whole. The global random state is left alone.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.device, config.timeout))
        devices = [processes.device] if processes.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(kernels(config, processes.device))
        display = stack.enter_context(open_display(config.progress, first=processes.first))
        request = stack.enter_context(stop_on_signals())
        folder = RunFolder(config.output)
        stack.enter_context(hold_folder(folder, processes, display.say, config.timeout))
        run = Run(config, processes, folder, display, request, data)
        stack.callback(run.equipment.close)
        with run.log:
            try:
                status, message = run.finish()
            except RLAError as error:
                if not error.told_by_first:
                    run.note_failure(error)
                raise
            except KeyboardInterrupt:
                if processes.first:
                    run.note_failure(TrainError(INTERRUPTED))
                raise
            except Exception as error:
                # With several processes that is a lost one; what it said must not be replaced.
                if processes.world == 1:
                    run.note_failure(error)
                if isinstance(error, OSError):  # no open files, no memory, a disk that fails
                    raise TrainError(
                        f"the run cannot go on: {error}. --resume auto goes on from its last "
                        "checkpoint."
                    ) from error
                raise
        return TrainResult(
            status=status,
            output=folder.path,
            epoch=run.position.epoch,
            step=run.position.step,
            best=run.state.standing.best,
            last=run.state.standing.last,
            message=message,
        )
