"""`Task`: what the engine has to know of what is learned; a task of your own is a subclass.

The engine has the steps, the processes, checkpoints, logs and errors. A task has the data, the
loss and the judging, and says which figure decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.config.train_config import MIN_DIFFERENT, TrainConfig
from rlawrap.train.data.loader import Batch, Images
from rlawrap.train.data.samples import Samples, stack
from rlawrap.train.network.build import build_model
from rlawrap.train.process.processes import Processes

#: The network as a loss calls it: over all processes, in the run's precision.
Network = Callable[..., Any]
#: The order of an epoch, int64 [images], from (seed, epoch).
Order = Callable[[int, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of the part of a batch that was given: sums over the images that count.

    total: of the loss, with its graph. parts: [len(Task.logged)], of what is logged beside it.
    """

    total: Tensor
    parts: Tensor


class Judged(Protocol):
    """What judging gives: figures by name, of so many images; others that were skipped.

    confusion: int64 [classes, classes], where there is such a thing. details: more, such as the
    figures of each class, for `rlawrap evaluate --per-class`.
    """

    @property
    def images(self) -> int: ...

    @property
    def skipped(self) -> int: ...

    @property
    def confusion(self) -> Tensor | None: ...

    @property
    def details(self) -> Mapping[str, Any]: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures by name; the `Judged` of most tasks."""

    values: Mapping[str, float | None]
    images: int
    skipped: int = 0
    confusion: Tensor | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The figures alone."""
        return dict(self.values)


class Scores(Protocol):
    """Judges the images of this process batch by batch; `total` brings the processes together."""

    def add(self, outputs: Any, batch: Batch) -> None:
        """Count what the network gave for a batch; rows of weight 0 do not count."""

    def total(self, processes: Processes) -> Judged:
        """The figures over all processes, which call it together; each image counts once."""


class Task(ABC):
    """What is learned; the engine makes one for a run, of its configuration.

    metric: the figure that decides which epoch is the best, unless `--monitor` names another one of
    `figures`. One whose name ends in loss or error is the better the smaller it is.
    shown: those of them in a line for people; all by default.
    logged: what `loss` sums beside the loss. remarks: what a run says of its
    network and data at its start. least: images that a network must see at once.
    judged_at_once: images of a batch in judging; None: as many as in training.
    defaults: the configuration that `rlawrap train --task` starts from.
    classes: their names, from when the data is open.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    figures: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    logged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    least: ClassVar[int] = MIN_DIFFERENT
    judged_at_once: ClassVar[int | None] = None
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.classes: tuple[str, ...] = ()

    # Data

    @abstractmethod
    def open(self, split: str, channels: int | None = None, *, whole: bool = False) -> Images:
        """The images of a split, "train" or "test", with as many channels as the network takes.

        whole: all of what has no splits. An item of `load` is an image and whatever `loss` and
        `scores` take for its target; all that it draws is a function of (seed, epoch, index).
        """

    def check(self, images: Images) -> None:
        """Raise `DataError` or `ConfigError` for training images that cannot be trained on."""
        if len(images) < self.least:
            raise DataError(
                f"{self.config.data}: {len(images)} images to train on; {self.name} needs "
                f"{self.least} or more."
            )
        if self.config.batch_size < self.least:
            raise ConfigError(
                f"batch_size={self.config.batch_size}: {self.name} needs {self.least} images at "
                f"once. Set --batch-size to {self.least} or more."
            )

    def parts(self, images: Images, *, training: bool) -> Dataset[Batch]:
        """The data set that loader processes read: a batch for each `Part`."""
        return Samples(images, self.collate, seed=self.config.seed if training else 0)

    def collate(self, items: Sequence[tuple[Tensor, Any]]) -> tuple[Any, Any]:
        """Images and targets of a batch, of items of the data set."""
        return stack(items)

    def remember(self, images: Images) -> dict[str, Any]:
        """What of the training images a checkpoint keeps beside the classes, as JSON holds it."""
        return {}

    def order(self, images: Images) -> Order | None:
        """The order of an epoch, where it is not any permutation."""
        return None

    # Network

    def build(self, classes: Sequence[str], *, fill: bool = True) -> nn.Module:
        """The network that the configuration names, for these classes.

        fill: take the weights that a fresh run starts from; not for one that a checkpoint fills.
        """
        return build_model(self.config, len(classes), fill=fill)

    def meet(self, model: nn.Module, images: Images, *, own_code: bool) -> None:  # noqa: B027
        """Look at the network of the run before its first step: `logged` may depend on it.

        own_code: a function of the user's own makes it. The network stays as it was.
        Raises `ConfigError` when it is none for this task, by trying it on a test image.
        """

    # Loss

    @abstractmethod
    def loss(self, network: Network, batch: Batch) -> Losses:
        """The loss of a batch, which is on the network's device; rows of weight 0 do not count."""

    def means(self, sums: Sequence[float], images: int) -> dict[str, float]:
        """The figures of training, from sums of the loss and of what is `logged`.

        >>> from rlawrap.train.tasks.find import make_task
        >>> make_task(TrainConfig()).means([6.0, 2.0], 4)
        {'loss': 1.5, 'top1': 50.0}
        """
        names = ("loss", *self.logged)
        return {name: value / max(images, 1) for name, value in zip(names, sums, strict=True)}

    # Judging

    @abstractmethod
    def scores(self, device: torch.device) -> Scores:
        """What judges a network on a data set of `classes`."""

    # Words

    def show(self, name: str, value: float | None) -> str:
        """A figure for people."""
        return "-" if value is None else f"{value:.4g}"

    def training_text(self, means: Mapping[str, float]) -> str:
        """The figures of an interval of training in a line."""
        return "  ".join(f"{name} {value:.4f}" for name, value in means.items())

    def epoch_text(self, figures: Mapping[str, Any]) -> str:
        """The figures of an epoch in a line."""
        judged = [name for name in self.shown or self.figures if name in figures]
        text = f"train loss {figures['train_loss']:.4f}  test " + " ".join(
            f"{name} {self.show(name, figures[name])}" for name in judged
        )
        if f"ema_{self.metric}" in figures:
            value = self.show(self.metric, figures[f"ema_{self.metric}"])
            text += f"  average {self.metric} {value}"
        return text
