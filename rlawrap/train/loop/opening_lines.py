"""What a run says of itself before its first step: data, network, device and steps."""

from __future__ import annotations

from torch import nn

from rlawrap.errors import few, printable
from rlawrap.train.config.naming import network_of
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Images
from rlawrap.train.loop.setup import Equipment
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.task import Task

#: So many class names are shown.
SHOWN_CLASSES = 5


def opening_lines(config: TrainConfig, equipment: Equipment, processes: Processes) -> list[str]:
    """Some lines for whoever starts a run, to see at once that it is the one meant."""
    train, test = equipment.train_images, equipment.test_images
    return [
        data_line(config.data, train, test),
        *notes(train, test, equipment.task),
        f"network: {network_of(config.to_dict())}, {parameters_text(equipment.model)}",
        f"steps: {steps_text(config, equipment)}, on {device_text(processes)}",
    ]


def data_line(name: str, train: Images, test: Images) -> str:
    """Images of each split, and the classes."""
    classes = few(train.classes, SHOWN_CLASSES)
    return (
        f"data: {name}, {len(train):,} training and {len(test):,} test images, "
        f"{len(train.classes):,} classes: {classes}"
    )


def notes(*several: Images | Task) -> list[str]:
    """What data sets and tasks remark, such as files that were passed over; each is told once."""
    remarks = (remark for one in several for remark in getattr(one, "remarks", ()))
    return [f"note: {printable(remark)}" for remark in dict.fromkeys(remarks)]


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
