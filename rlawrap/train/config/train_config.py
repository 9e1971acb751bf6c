"""`TrainConfig`: everything that decides how a training run comes out, as plain data."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a help text)

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlawrap.errors import ConfigError
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.fields import check_fields, check_names

VERSION = 1

# Seconds that clocks in nanoseconds can count.
LONGEST = 1e9

# Fields that may differ between a run and its continuation: they do not touch the numbers.
FREE_ON_RESUME = frozenset(
    {
        "output",
        "resume",
        "workers",
        "prefetch",
        "log_every",
        "save_every",
        "save_minutes",
        "keep",
        "tensorboard",
        "progress",
        "allow_changed_data",
        "timeout",
        "data_root",
        "on_bad_image",
    }
)


def option(default: Any, help: str, *, flag: str | None = None) -> Any:
    """A field with its help text; `flag` replaces the option name made from the field's name."""
    metadata = {"help": help, "flag": flag}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: the network, the data, and how the one learns from the other.

    `batch_size` is the global batch of one optimiser step, whatever the number of processes and
    `accumulate`. Learning rates are given for that batch; nothing is scaled behind your back.

    >>> config = TrainConfig(arch="cifar_resnet20", epochs=3)
    >>> TrainConfig.from_dict(config.to_dict()) == config
    True
    """

    # The network
    arch: str = option("rla_cifar_resnet20", "network, a name of rlawrap.models.list_models()")
    model_kwargs: dict[str, Any] = option(
        {}, "argument of the network's builder, as NAME=VALUE; may be repeated", flag="--model-arg"
    )
    finetune: str | None = option(
        None, "weights to start from: a base checkpoint, or a run folder; new parts keep their init"
    )
    pretrained_conv1: str | None = option(
        None, "weights whose first convolution is taken and frozen: a file, or 'default'"
    )
    freeze: tuple[str, ...] = option(
        (), "what not to train: 'stem', or module names or patterns such as layer1; may be repeated"
    )

    # The data
    data: str = option("builtin", "data set: builtin, a name, a folder or tar shards")
    data_root: str | None = option(
        None, "folder that named data sets are found in or downloaded to"
    )
    image_size: int | None = option(None, "side of the images; default: that of the data set")
    subset: int | None = option(None, "train on this many images only, for a trial")
    on_bad_image: Literal["fatal", "skip"] = option("fatal", "a damaged image: stop, or go on")
    exif_orientation: bool = option(
        True, "turn photographs upright as their EXIF data says; torchvision does not"
    )
    augment: AugmentConfig | None = None

    # The budget
    seed: int = option(0, "seed of initial weights, order, augmentation and dropout")
    epochs: int = option(10, "passes over the training images")
    batch_size: int = option(128, "images of one optimiser step, over all processes")
    accumulate: int = option(1, "parts that each process cuts its share of a batch into")

    # The optimiser
    optimizer: str = option("sgd", "optimiser, by name")
    lr: float = option(0.1, "peak learning rate")
    momentum: float = option(0.9, "momentum of SGD")
    nesterov: bool = option(False, "Nesterov momentum")
    weight_decay: float = option(1e-4, "weight decay")
    decay_filter: Literal["all", "weights"] = option(
        "all", "what decays: all parameters, or weights only (no biases, no norms)"
    )
    rla_lr: float = option(1.0, "learning rate of the rla. parameters, as a multiple of lr")
    clip: float | None = option(None, "largest norm of the gradient")
    label_smoothing: float = option(0.0, "label smoothing, 0 to 1")

    # The schedule of the learning rate
    schedule: Literal["step", "exponential", "cosine", "constant"] = option(
        "cosine", "shape of the learning rate"
    )
    gamma: float = option(0.1, "factor of the step and exponential schedules")
    step_epochs: int = option(30, "epochs between two steps of the step schedule")
    warmup_epochs: float = option(0.0, "epochs of linear warm-up")
    warmup_start: float = option(0.01, "where the warm-up starts, as a multiple of lr")

    # How it computes
    device: Literal["auto", "cpu", "cuda"] = option("auto", "where to compute")
    amp: Literal["none", "bf16", "fp16"] = option("none", "mixed precision")
    channels_last: bool = option(False, "channels-last memory format")
    compile: bool = option(False, "torch.compile the network")
    sync_bn: bool = option(False, "batch norm over all processes (CUDA)")
    deterministic: bool = option(False, "deterministic kernels only, slower on CUDA")
    ema: float = option(0.0, "decay of the averaged weights, such as 0.9999; 0: none")

    # Judging
    monitor: Literal["top1", "loss"] = option("top1", "what makes a checkpoint the best")
    patience: int | None = option(None, "stop after this many epochs without a better one")

    # The run
    output: str = option("runs/train", "run folder")
    resume: str | None = option(None, "'auto', or a checkpoint file: go on from there")
    save_every: int | None = option(None, "steps between checkpoints; default: at each epoch's end")
    save_minutes: float | None = option(15.0, "minutes between checkpoints within an epoch")
    keep: int = option(3, "checkpoints to keep, besides the best")
    log_every: int = option(50, "steps between lines of metrics")
    workers: int = option(2, "loader processes per training process; 0: none")
    prefetch: int = option(4, "batches that each loader process keeps ready")
    tensorboard: bool = option(False, "write TensorBoard events too")
    progress: Literal["auto", "bar", "plain", "none"] = option("auto", "how to show progress")
    allow_changed_data: bool = option(False, "go on although the data changed since the checkpoint")
    timeout: float = option(600.0, "seconds until a process that does not answer is given up")

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with other values; raises `ConfigError` for a field that does not exist."""
        check_names(TrainConfig, changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the format's version."""
        return {"version": VERSION, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises `ConfigError` for unknown fields or a newer version."""
        values = dict(values)
        if "version" in values:
            # What was written before there was this field, was trained without it.
            values.setdefault("exif_orientation", False)
        version = values.pop("version", VERSION)
        if version != VERSION:
            raise ConfigError(f"training config of version {version}; this is version {VERSION}.")
        check_names(TrainConfig, values)
        augment = values.get("augment")
        if isinstance(augment, Mapping):
            check_names(AugmentConfig, augment)
            values["augment"] = AugmentConfig(**augment)
        return cls(**values)

    def differences(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Fields that decide the numbers and differ: name -> (here, there).

        >>> TrainConfig(lr=0.1, workers=2).differences(TrainConfig(lr=0.2, workers=4))
        {'lr': (0.1, 0.2)}
        """
        here, there = self.to_dict(), other.to_dict()
        return {
            name: (here[name], there[name])
            for name in here
            if here[name] != there[name] and name not in FREE_ON_RESUME
        }


def _check(config: TrainConfig) -> None:
    at_least = {
        "epochs": 1, "batch_size": 1, "accumulate": 1, "step_epochs": 1, "log_every": 1, "keep": 1,
        "prefetch": 1, "workers": 0, "momentum": 0, "weight_decay": 0, "warmup_epochs": 0,
        "warmup_start": 0, "rla_lr": 0, "image_size": 1, "subset": 1, "patience": 1,
        "save_every": 1,
    }  # fmt: skip
    for name, least in at_least.items():
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ConfigError(f"{name}={value}: must be at least {least}.")
    for name in ("lr", "gamma", "timeout", "clip", "save_minutes"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name}={value}: must be above 0.")
    for name in ("ema", "label_smoothing"):
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ConfigError(f"{name}={value}: must be at least 0 and below 1.")
    if config.timeout > LONGEST:
        raise ConfigError(f"timeout={config.timeout:g}: must be at most {LONGEST:g} seconds.")
    if config.nesterov and not config.momentum:
        raise ConfigError("nesterov=True needs momentum above 0.")
    if config.warmup_epochs >= config.epochs and config.warmup_epochs:
        raise ConfigError(
            f"warmup_epochs={config.warmup_epochs:g}: the warm-up must end before the "
            f"{config.epochs} epochs do."
        )
