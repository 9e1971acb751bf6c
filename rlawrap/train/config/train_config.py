"""`TrainConfig`: everything that decides how a training run comes out, as plain data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator, model_validator

from rlawrap.errors import ConfigError
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.checked import Checked, as_json_holds, check_names, option_group
from rlawrap.train.config.going_on import CHANGEABLE, FREE_ON_RESUME

VERSION = 1

# Seconds that clocks in nanoseconds can count.
LONGEST = 1e9

# Different images of a batch with repeats, at least: a norm must have something to tell apart.
MIN_DIFFERENT = 2

_task = option_group("The task")
_network = option_group("The network")
_data = option_group("The data")
_budget = option_group("The budget")
_optimiser = option_group("The optimiser")
_schedule = option_group("The schedule of the learning rate")
_computing = option_group("How it computes")
_judging = option_group("Judging")
_run = option_group("The run")


class TrainConfig(Checked):
    """A training run: the network, the data, and how the one learns from the other.

    `batch_size` is the global batch of one optimiser step, whatever the number of processes and
    `accumulate`. Learning rates are given for that batch; nothing is scaled behind your back.

    >>> config = TrainConfig(arch="cifar_resnet20", epochs=3)
    >>> TrainConfig.from_dict(config.to_dict()) == config
    True
    """

    # The task
    task: str = _task(
        "classification",
        "what is learned: classification, detection, instance (with masks), segmentation, or a "
        "class of yours, FILE.py:CLASS",
    )

    # The network
    arch: str = _network(
        "rla_cifar_resnet20",
        "network: a name of `rlawrap models`, torchvision:NAME, timm:NAME, or a function of yours, "
        "FILE.py:NAME or MODULE:NAME",
    )
    model_kwargs: dict[str, Any] = _network(
        {}, "argument of the network's builder, as NAME=VALUE; may be repeated", flag="--model-arg"
    )
    head: str | None = _network(
        None,
        "detector or segmenter to put around the network: fasterrcnn, maskrcnn, retinanet, "
        "keypointrcnn; fcn, deeplabv3",
    )
    head_args: dict[str, Any] = _network(
        {}, "argument of the head, as NAME=VALUE; may be repeated", flag="--head-arg"
    )
    imports: tuple[str, ...] = _network(
        (),
        "file of yours that registers the network's name; may be repeated",
        flag="--import",
        strict=False,
    )
    pretrained: bool = _network(False, "start from the weights that torchvision or timm have")
    rla: dict[str, Any] | None = _network(
        None, "give the network a hidden state by rlawrap.apply, with these options"
    )
    finetune: str | None = _network(
        None, "weights to start from: a base checkpoint, or a run folder; new parts keep their init"
    )
    pretrained_conv1: str | None = _network(
        None, "weights whose first convolution is taken and frozen: a file, or 'default'"
    )
    freeze: tuple[str, ...] = _network(
        (),
        "what not to train: 'stem', or module names or patterns such as layer1; may be repeated",
        strict=False,
    )

    # The data
    data: str = _data("builtin", "data set: builtin, a name, a folder or tar shards")
    data_root: str | None = _data(None, "folder that named data sets are found in or downloaded to")
    image_size: int | None = _data(None, "side of the images; default: that of the data set", ge=1)
    subset: int | None = _data(None, "train on this many images only, for a trial", ge=1)
    on_bad_image: Literal["fatal", "skip"] = _data("fatal", "a damaged image: stop, or go on")
    exif_orientation: bool = _data(
        True, "turn photographs upright as their EXIF data says; torchvision does not"
    )
    scene_augment: dict[str, Any] = _data(
        {},
        "augmentation of training scenes, as NAME=VALUE (crop=256, sizes=[640,800], max_size=1333, "
        "jitter=[0.5,2], photometric=true, flip=0.5); may be repeated",
    )
    augment: AugmentConfig | None = None

    # The budget
    seed: int = _budget(0, "seed of initial weights, order, augmentation and dropout")
    epochs: int = _budget(10, "passes over the training images", ge=1)
    batch_size: int = _budget(128, "images of one optimiser step, over all processes", ge=1)
    accumulate: int = _budget(1, "parts that each process cuts its share of a batch into", ge=1)

    drop_last: bool = _budget(False, "leave out the images of an epoch's last, smaller batch")
    repeats: int = _budget(
        1, "repeated augmentation: copies of each image in its batch; 1: none", ge=1
    )

    # The optimiser
    optimizer: str = _optimiser(
        "sgd", "optimiser: a name of torch.optim, or of timm.optim (also as timm:NAME)"
    )
    opt_args: dict[str, Any] = _optimiser(
        {}, "argument of the optimiser, as NAME=VALUE; may be repeated", flag="--opt-arg"
    )
    lr: float = _optimiser(0.1, "peak learning rate", gt=0)
    momentum: float = _optimiser(0.9, "momentum, of SGD, RMSprop and others that have it", ge=0)
    nesterov: bool = _optimiser(False, "Nesterov momentum")
    weight_decay: float = _optimiser(1e-4, "weight decay", ge=0)
    decay_filter: Literal["all", "weights"] = _optimiser(
        "all", "what decays: all parameters, or weights only (no biases, no norms)"
    )
    rla_lr: float = _optimiser(
        1.0, "learning rate of the rla. parameters, as a multiple of lr", ge=0
    )
    layer_decay: float | None = _optimiser(
        None, "factor from each block's learning rate to the one before it", gt=0, le=1
    )
    clip: float | None = _optimiser(None, "largest norm of the gradient", gt=0)
    label_smoothing: float = _optimiser(0.0, "label smoothing, 0 to 1", ge=0, lt=1)

    # The schedule of the learning rate
    schedule: Literal["step", "multistep", "exponential", "cosine", "constant"] = _schedule(
        "cosine", "shape of the learning rate"
    )
    gamma: float = _schedule(0.1, "factor of the step and exponential schedules", gt=0)
    step_epochs: int = _schedule(30, "epochs between two steps of the step schedule", ge=1)
    milestones: tuple[int, ...] = _schedule(
        (), "epochs after which the multistep schedule takes a step; may be repeated", strict=False
    )
    warmup_epochs: float = _schedule(0.0, "epochs of linear warm-up", ge=0)
    warmup_steps: int = _schedule(0, "optimiser steps of linear warm-up, instead of epochs", ge=0)
    warmup_start: float = _schedule(0.01, "where the warm-up starts, as a multiple of lr", ge=0)

    # How it computes
    device: Literal["auto", "cpu", "cuda", "mps"] = _computing("auto", "where to compute")
    amp: Literal["none", "bf16", "fp16"] = _computing("none", "mixed precision")
    channels_last: bool = _computing(False, "channels-last memory format")
    compile: bool = _computing(False, "torch.compile the network")
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = _computing(
        "default", "what --compile aims at"
    )
    tf32: bool | None = _computing(
        None, "TF32 in convolutions and matrix products (CUDA); default: as PyTorch has it"
    )
    grad_checkpointing: bool = _computing(
        False, "keep the blocks' inputs alone for the backward pass: less memory, more time"
    )
    sync_bn: bool = _computing(False, "batch norm over all processes (CUDA)")
    deterministic: bool = _computing(False, "deterministic kernels only, slower on CUDA")
    ema: float = _computing(
        0.0, "decay of the averaged weights, such as 0.9999; 0: none", ge=0, lt=1
    )
    ema_every: int = _computing(1, "steps from one averaging to the next", ge=1)

    # Judging
    monitor: str | None = _judging(
        None, "figure that makes a checkpoint the best; default: the task's own, such as top1"
    )
    patience: int | None = _judging(None, "stop after this many epochs without a better one", ge=1)

    # The run
    output: str = _run("runs/train", "run folder")
    resume: str | None = _run(None, "'auto', or a checkpoint file: go on from there")
    change: tuple[str, ...] = _run(
        (),
        "go on with another value than the run has had, as NAME=VALUE; may be repeated",
        strict=False,
    )
    save_every: int | None = _run(
        None, "steps between checkpoints; default: at each epoch's end", ge=1
    )
    save_minutes: float | None = _run(15.0, "minutes between checkpoints within an epoch", gt=0)
    keep: int = _run(3, "checkpoints to keep, besides the best", ge=1)
    log_every: int = _run(50, "steps between lines of metrics", ge=1)
    workers: int = _run(2, "loader processes per training process; 0: none", ge=0)
    prefetch: int = _run(4, "batches that each loader process keeps ready", ge=1)
    tensorboard: bool = _run(False, "write TensorBoard events too")
    profile: bool = _run(False, "trace a few steps with torch.profiler, into the run folder")
    progress: Literal["auto", "bar", "plain", "none"] = _run("auto", "how to show progress")
    allow_changed_data: bool = _run(False, "go on although the data changed since the checkpoint")
    timeout: float = _run(
        600.0, "seconds until a process that does not answer is given up", gt=0, le=LONGEST
    )

    @field_validator("model_kwargs", "rla", "head_args", "scene_augment", "opt_args")
    @classmethod
    def _as_json_holds_them(cls, values: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        return None if values is None else as_json_holds(values, info.field_name)

    @field_validator("change")
    @classmethod
    def _may_change(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in CHANGEABLE:
                near = difflib.get_close_matches(name, CHANGEABLE, n=1)
                hint = f"Did you mean {near[0]}? " if near and name not in cls.model_fields else ""
                raise ConfigError(
                    f"change: {name} cannot be changed within a run. {hint}"
                    f"What can: {', '.join(sorted(CHANGEABLE))}. For the rest start a new run from "
                    "this one's weights, with --finetune."
                )
        return tuple(sorted(set(names)))

    @field_validator("milestones")
    @classmethod
    def _not_negative(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if any(epoch < 0 for epoch in epochs):
            raise ConfigError(f"milestones={epochs!r}: epochs are counted from 0 on; give (8, 11).")
        return epochs

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov=True needs momentum above 0.")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs:g}: the warm-up must end before the "
                f"{self.epochs} epochs do."
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ConfigError("warmup_epochs and warmup_steps: give one of them.")
        if self.schedule == "multistep" and not self.milestones:
            raise ConfigError("schedule='multistep' needs milestones, such as (8, 11).")
        if self.compile_mode != "default" and not self.compile:
            raise ConfigError(f"compile_mode={self.compile_mode!r} needs compile=True (--compile).")
        if self.ema_every > 1 and not self.ema:
            raise ConfigError(f"ema_every={self.ema_every} needs ema above 0.")
        if self.change and self.resume is None:
            raise ConfigError(
                f"change: {', '.join(self.change)}: a run that starts has nothing to change. "
                "It goes with --resume auto."
            )
        different, rest = divmod(self.batch_size, self.repeats)
        if self.repeats > 1 and (rest or different < MIN_DIFFERENT):
            raise ConfigError(
                f"repeats={self.repeats}: batch_size={self.batch_size} must be a multiple of it, "
                f"and hold at least {MIN_DIFFERENT} different images."
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the format's version."""
        return {"version": VERSION, **self.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises `ConfigError` for unknown fields or a newer version."""
        check_names(values)
        check_names(values.get("augment"))
        values = dict(values)
        if "version" in values:
            # What was written before there was this field, was trained without it.
            values.setdefault("exif_orientation", False)
        version = values.pop("version", VERSION)
        if version != VERSION:
            raise ConfigError(f"training config of version {version}; this is version {VERSION}.")
        return cls(**values)

    def differences(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Fields that decide the numbers and differ: name -> (here, there).

        What the other says it changes (`change`) is no difference; `changes` has it.

        >>> TrainConfig(lr=0.1, workers=2).differences(TrainConfig(lr=0.2, workers=4))
        {'lr': (0.1, 0.2)}
        """
        differing = self._differing(other)
        return {name: pair for name, pair in differing.items() if name not in other.change}

    def changes(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Fields that the other says it changes, and does: name -> (here, there).

        >>> new = TrainConfig(epochs=20, lr=0.5, resume="auto", change=("epochs",))
        >>> TrainConfig().changes(new), TrainConfig().differences(new)
        ({'epochs': (10, 20)}, {'lr': (0.1, 0.5)})
        """
        differing = self._differing(other)
        return {name: pair for name, pair in differing.items() if name in other.change}

    def _differing(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        here, there = self.to_dict(), other.to_dict()
        return {
            name: (here[name], there[name])
            for name in here
            if here[name] != there[name]
            and name not in FREE_ON_RESUME
            # None is what the task says.
            and not (name == "monitor" and None in (here[name], there[name]))
        }
