"""What a run says of itself before its first step: data, network, device and steps."""

from __future__ import annotations

from torch import nn

from rlawrap.errors import few
from rlawrap.train.config.naming import network_of
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Images
from rlawrap.train.loop.setup import Equipment
from rlawrap.train.process.processes import Processes

#: So many class names are shown.
SHOWN_CLASSES = 5


def opening_lines(config: TrainConfig, equipment: Equipment, processes: Processes) -> list[str]:
    """Three lines for whoever starts a run, to see at once that it is the one meant."""
    return [
        data_line(config.data, equipment.train_images, equipment.test_images),
        f"network: {network_of(config.to_dict())}, {parameters_text(equipment.model)}",
        f"steps: {steps_text(config, equipment)}, on {device_text(processes)}",
    ]


def data_line(name: str, train: Images, test: Images) -> str:
    """Images of each split, the classes, and which files were passed over."""
    classes = few(train.classes, SHOWN_CLASSES)
    line = (
        f"data: {name}, {len(train):,} training and {len(test):,} test images, "
        f"{len(train.classes):,} classes: {classes}"
    )
    # A data set may say in words which files it found and does not read.
    ignored = dict.fromkeys(str(getattr(images, "ignored", "")) for images in (train, test))
    return "; ".join([line, *filter(None, ignored)])


def parameters_text(model: nn.Module) -> str:
    """How many parameters there are, and how many of them learn.

    >>> parameters_text(nn.Linear(2, 1))
    '3 parameters, 3 trainable'
    """
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trainable = sum(count for count, learns in counts if learns)
    return f"{sum(count for count, _ in counts):,} parameters, {trainable:,} trainable"


def steps_text(config: TrainConfig, equipment: Equipment) -> str:
    """Steps of an epoch and of the run, and what a step holds."""
    total = equipment.steps * config.epochs
    repeated = f" in {config.repeats} versions each" if config.repeats > 1 else ""
    return (
        f"{equipment.steps:,} in each of {config.epochs:,} epochs, {total:,} in all, "
        f"of {config.batch_size:,} images{repeated}"
    )


def device_text(processes: Processes) -> str:
    """The device of process 0, and how many processes there are."""
    device = processes.device.type
    return device if processes.world == 1 else f"{device} in {processes.world} processes"
