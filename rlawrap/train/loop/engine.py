"""`train`: a whole run, from a `TrainConfig` to a run folder, on one process or many.

Start it in one process by calling it, in many with torchrun. Whatever it does next is a function
of the checkpoint and the config, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from rlawrap.errors import ConfigError, RLAError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.fitness import check_output_apart
from rlawrap.train.data.given import GIVEN_DATA, GivenImages, class_names, count_items, read_item
from rlawrap.train.loop.log_file import LoggedDisplay
from rlawrap.train.loop.progress import open_display
from rlawrap.train.loop.run import Run, Status
from rlawrap.train.loop.setup import ImagePair, kernels
from rlawrap.train.network.origin import GIVEN, check_not_imported
from rlawrap.train.network.outputs import device_of, heads, outputs_on
from rlawrap.train.process.processes import join_processes
from rlawrap.train.process.signals import stop_on_signals
from rlawrap.train.store.lock import hold_folder
from rlawrap.train.store.run_folder import RunFolder
from rlawrap.train.tasks.find import resolved

INTERRUPTED = (
    "ended by a second signal before a checkpoint was written; --resume auto goes on from the last"
)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    status: "finished" or "stopped" (by a signal; go on with resume="auto").
    epoch, step: what would come next, counted from 0.
    best: figures of the best epoch; last: those of the last one. None before the first.
    model: the network as it is at the end; `load_model(output)` is that of the best epoch.
    """

    status: Status
    output: Path
    epoch: int
    step: int
    best: dict[str, Any] | None
    last: dict[str, Any] | None
    message: str
    model: nn.Module


def train(
    what: TrainConfig | nn.Module,
    train_set: Dataset[Any] | None = None,
    test_set: Dataset[Any] | None = None,
    *,
    data: ImagePair | None = None,
    classes: Sequence[Any] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a network as a config says; returns when the run is finished or stopped.

    `train(config)` builds the network and opens the images that the config names; `data` are
    training and test images to use instead.

    `train(model, train_set, test_set, **options)` trains a network of yours, in place, on two
    map-style data sets whose items are pairs of an image (float, [C, H, W]) and a class number;
    `options` are fields of `TrainConfig`, `classes` the names of the classes. For another task
    (task="detection", ...) the data sets are ones such as `SceneDataset`.

    Raises `ConfigError`, `DataError`, `CheckpointError` or `TrainError`; what was written before
    stays whole. The global random state is left alone.
    """
    check_not_imported("train()")
    given: nn.Module | None = None
    if isinstance(what, nn.Module):
        given = what
        config, data = _as_run(what, train_set, test_set, classes, options)
    elif isinstance(what, TrainConfig):
        if train_set is not None or test_set is not None or classes is not None:
            raise ConfigError(
                "train: data sets go with a network, as train(model, train_set, test_set, "
                "epochs=10); with a config give data=(images, test_images)."
            )
        config = what.replace(**options)
    else:
        raise ConfigError(
            f"train: expected a TrainConfig or a torch.nn.Module, got {type(what).__name__}."
        )
    return _train(resolved(config), data, given)


def _as_run(
    model: nn.Module,
    train_set: Dataset[Any] | None,
    test_set: Dataset[Any] | None,
    classes: Sequence[Any] | None,
    options: dict[str, Any],
) -> tuple[TrainConfig, ImagePair]:
    """The config of a run of a given network, and its data sets as images."""
    if train_set is None or test_set is None:
        raise ConfigError(
            "train: a network needs two data sets, train(model, train_set, test_set, epochs=10)."
        )
    for name in ("arch", "data", "model_kwargs", "pretrained", "rla", "imports"):
        if name in options:
            raise ConfigError(f"train: {name}= is for runs by name; network and data are given.")
    config = TrainConfig(
        arch=GIVEN + type(model).__name__, data=GIVEN_DATA, **{"output": "runs/train", **options}
    )
    if config.task != "classification":
        return config, _as_images(config.task, train_set, test_set)
    for images, name in ((train_set, "training"), (test_set, "test")):
        count_items(images, name)
    if isinstance(classes, (str, int)):
        raise ConfigError(
            f"train: classes={classes!r}: give the names of the classes, such as "
            f"classes=range({classes if isinstance(classes, int) else 10})."
        )
    if classes is None:
        classes = class_names(train_set, _count_outputs(model, train_set))
    pair = (GivenImages(train_set, classes, "training"), GivenImages(test_set, classes, "test"))
    return config, pair


def _as_images(task: str, *sets: Any) -> ImagePair:
    """The data sets of a task other than classification, which are taken as they are."""
    for images in sets:
        lacks = [
            n for n in ("classes", "in_channels", "load", "fingerprint") if not hasattr(images, n)
        ]
        if lacks:
            raise ConfigError(
                f"train: the task {task} takes data sets such as SceneDataset, or as your task "
                f"opens them; {type(images).__name__} has no {', '.join(lacks)}."
            )
    train_images, test_images = sets
    return train_images, test_images


def _count_outputs(model: nn.Module, dataset: Dataset[Any]) -> int:
    """How many logits a network gives, by trying it on one image."""
    image, _ = read_item(dataset, 0, "training")
    outputs = outputs_on(model, image.to(device_of(model)), type(model).__name__)
    return heads(outputs)[0].shape[1]


def _train(config: TrainConfig, data: ImagePair | None, given: nn.Module | None) -> TrainResult:
    if data is None and config.task == "classification":
        check_output_apart(config.data, config.data_root, config.output)
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.device, config.timeout))
        devices = [processes.device] if processes.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(kernels(config, processes.device))
        display = LoggedDisplay(
            stack.enter_context(open_display(config.progress, first=processes.first))
        )
        stack.callback(display.close)
        request = stack.enter_context(stop_on_signals())
        folder = RunFolder(config.output)
        stack.enter_context(hold_folder(folder, processes, display.say, config.timeout))
        run = Run(config, processes, folder, display, request, data, given)
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
            model=run.equipment.model,
        )
