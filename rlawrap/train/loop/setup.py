"""Everything a run works with: images, network, optimiser, loaders; built from the config."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Batch, Images, PartLoader, make_loader
from rlawrap.train.data.sampler import (
    EvalSampler,
    Part,
    TrainSampler,
    largest_part,
)
from rlawrap.train.loop.step import Stepper
from rlawrap.train.network.build import (
    checkpoint_blocks,
    input_channels,
    prepare_model,
)
from rlawrap.train.network.freezing import keep_frozen_norms
from rlawrap.train.network.optim import make_optimizer
from rlawrap.train.network.origin import origin_of
from rlawrap.train.network.warmup import distribute, settle
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.find import make_task
from rlawrap.train.tasks.task import Task

ImagePair = tuple[Images, Images]


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a run works with. `steps` is the number of optimiser steps of an epoch."""

    task: Task
    train_images: Images
    test_images: Images
    model: nn.Module
    network: nn.Module
    origin: dict[str, Any]
    stepper: Stepper
    steps: int
    sampler: TrainSampler
    train_loader: PartLoader
    eval_sampler: EvalSampler
    test_loader: PartLoader

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train_images.classes

    def close(self) -> None:
        """End the loader processes; nothing of theirs is needed any more."""
        for loader in (self.train_loader, self.test_loader):
            loader.kill_workers()

    def train_mode(self) -> None:
        """Set the network to training mode, frozen norms apart."""
        self.network.train()
        keep_frozen_norms(self.model)


def open_model_and_images(task: Task, *, fill: bool = True) -> tuple[nn.Module, ImagePair]:
    """The network and the images it takes; the channels of the images follow the network's."""
    train_images = task.open("train")
    task.check(train_images)
    model = task.build(train_images.classes, fill=fill)
    channels = input_channels(model, lambda: train_images.load(0, seed=0, epoch=0)[0])
    if channels != train_images.in_channels:
        train_images = task.open("train", channels)
    test_images = task.open("test", channels)
    if test_images.classes != train_images.classes:
        raise ConfigError(
            f"{task.config.data}: the {len(train_images.classes)} classes of the training images "
            f"and the {len(test_images.classes)} of the test images do not agree."
        )
    return model, (train_images, test_images)


def set_up(
    config: TrainConfig,
    processes: Processes,
    data: ImagePair | None,
    *,
    given: nn.Module | None = None,
    fill: bool = True,
) -> Equipment:
    """Build everything of a run, in this process.

    given: the network, where the caller has it; `data` is there then.
    fill: take the weights that a fresh run starts from; not for one that a checkpoint fills.
    """
    task = make_task(config)
    if data is not None:
        task.check(data[0])
    if data is None:
        model, data = open_model_and_images(task, fill=fill)
    elif given is not None:
        model = prepare_model(given, config, fill=fill)
    else:
        model = task.build(data[0].classes, fill=fill)
    origin = origin_of(config, given)
    train_images, test_images = data
    task.classes = tuple(train_images.classes)
    model = move_model(model, config, processes.device)
    task.meet(model, test_images, own_code="file" in origin)
    if config.grad_checkpointing:
        checkpoint_blocks(model, config.arch)
    network = distribute(model, processes)
    if config.compile:
        model.compile(mode=config.compile_mode)
    stepper = Stepper(
        model,
        network,
        make_optimizer(model, config),
        config,
        task,
        device=processes.device,
        world=processes.world,
    )
    sampler, train_loader = _train_loader(task, processes, train_images)
    eval_sampler, test_loader = _test_loader(task, processes, test_images)
    return Equipment(
        task=task,
        train_images=train_images,
        test_images=test_images,
        model=model,
        network=network,
        origin=origin,
        stepper=stepper,
        steps=sampler.steps,
        sampler=sampler,
        train_loader=train_loader,
        eval_sampler=eval_sampler,
        test_loader=test_loader,
    )


def _train_loader(
    task: Task, processes: Processes, images: Images
) -> tuple[TrainSampler, PartLoader]:
    config = task.config
    sampler = TrainSampler(
        len(images),
        seed=config.seed,
        batch_size=config.batch_size,
        rank=processes.rank,
        world=processes.world,
        accumulate=config.accumulate,
        repeats=config.repeats,
        drop_last=config.drop_last,
        order=task.order(images),
        least=task.least,
    )
    if not sampler.steps:
        raise ConfigError(
            f"drop_last: the {len(images)} training images are fewer than a batch of "
            f"{config.batch_size}, and none would be left."
        )
    parts = task.parts(images, training=True)
    return sampler, _make_loader(parts, sampler, config, processes)


def _test_loader(
    task: Task, processes: Processes, images: Images
) -> tuple[EvalSampler, PartLoader]:
    config = task.config
    sampler = EvalSampler(
        len(images),
        batch_size=task.judged_at_once or part_rows(task, processes),
        rank=processes.rank,
        world=processes.world,
    )
    parts = task.parts(images, training=False)
    return sampler, _make_loader(parts, sampler, config, processes)


def _make_loader(
    parts: Dataset[Batch], sampler: Sampler[Part], config: TrainConfig, processes: Processes
) -> PartLoader:
    return make_loader(
        parts,
        sampler,
        workers=config.workers,
        prefetch=config.prefetch,
        device=processes.device,
        timeout=config.timeout,
    )


def part_rows(task: Task, processes: Processes, images: int | None = None) -> int:
    """Images that a process sees at once in a full batch, or in one of all `images`."""
    config = task.config
    most = config.batch_size if images is None else images * config.repeats
    return largest_part(
        min(config.batch_size, most),
        world=processes.world,
        accumulate=config.accumulate,
        least=task.least,
    )


def move_model(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The model on its device and in its memory format, with SyncBN if asked for."""
    if config.sync_bn:
        if device.type != "cuda":
            raise ConfigError("sync_bn works on CUDA only. Leave it out.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def warm_up(equipment: Equipment, config: TrainConfig, processes: Processes) -> None:
    """Warm DistributedDataParallel up with a batch of the usual shape; see `settle`."""
    if processes.world == 1:
        return
    task = equipment.task
    images = equipment.train_images
    rows = max(task.least, part_rows(task, processes, len(images)))
    part = Part(epoch=0, step=0, rows=(0,) * rows, padding=0, batch_rows=rows, lead=0)
    batch = task.parts(images, training=True)[part]
    equipment.train_mode()

    def loss() -> Tensor:
        return equipment.stepper.losses(batch).total / rows

    settle(equipment.model, equipment.network, loss, processes)


@contextmanager
def kernels(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """cuDNN's search for fast kernels, or deterministic ones, and TF32; put back afterwards."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if config.tf32 is not None:
        _allow_tf32(config.tf32, config.tf32)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if config.tf32 is not None:
            _allow_tf32(*tf32)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark


def _allow_tf32(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
