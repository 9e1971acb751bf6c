"""From parts (lists of image numbers) to batches of tensors, in loader processes or without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rlawrap import _torch
from rlawrap.errors import DataError, LoaderError
from rlawrap.train.data.arranging import copy_and_index
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.data.sampler import Part
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.data.transforms import mix_batch
from rlawrap.train.data.workers import start_worker, why_gone

# How long to wait for a batch before looking whether the run is to stop.
POLL_SECONDS = 1.0


class Images(Protocol):
    """What the trainer needs of a data set; `rlawrap.train.data.ImageDataset` is one.

    A target is a class number in classification, and whatever the task takes in others.
    """

    classes: tuple[str, ...]
    in_channels: int

    def __len__(self) -> int: ...

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, Any]: ...

    def fingerprint(self) -> str: ...


class Batch(NamedTuple):
    """images [N, C, H, W]; targets [N] or soft [N, classes]; weights [N], 0 for padding.

    Of tasks other than classification images and targets are as their `collate` makes them, such
    as lists of images of several sizes.
    counted: rows that count. batch_rows: images in the whole batch, over all processes.
    """

    images: Any
    targets: Any
    weights: Tensor
    counted: int
    batch_rows: int
    last: bool
    skipped: list[int]


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, and those in lists and dicts, on a device.

    >>> moved([torch.zeros(1), {"labels": torch.ones(1)}], torch.device("meta"))[1]["labels"].device
    device(type='meta')
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(each, device) for each in value)
    return value


class PartDataset(Dataset[Batch]):
    """Loads a `Part`; everything random in it is a function of (seed, epoch, step, index)."""

    def __init__(
        self,
        images: Images,
        *,
        num_classes: int,
        seed: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self.images = images
        self.num_classes = num_classes
        self.seed = seed
        self.mixup = mixup
        self.cutmix = cutmix

    def __getitem__(self, part: Part) -> Batch:
        mixing = self.mixup > 0 or self.cutmix > 0
        slots = (part.lead, *part.rows) if mixing else part.rows
        samples = [self._load(slot, part.epoch) for slot in slots]
        images = torch.stack([image for image, _ in samples])
        targets = torch.tensor([label for _, label in samples])
        usable = targets != SKIPPED
        weights = usable.float()
        targets = targets.clamp_min(0)
        if mixing:
            # The batch over all processes is mixed as one, so that neither their number nor
            # `accumulate` changes the result: each row's partner is the row before it.
            images, targets = mix_batch(
                images,
                targets,
                num_classes=self.num_classes,
                seed=self.seed,
                epoch=part.epoch,
                step=part.step,
                mixup=self.mixup,
                cutmix=self.cutmix,
            )
            images, targets = images[1:], targets[1:]
            weights = weights[1:] * weights[:-1]
            usable = usable[1:]
        real = len(part.rows) - part.padding
        weights[real:] = 0
        return Batch(
            images=images,
            targets=targets,
            weights=weights,
            counted=int(weights.sum()),
            batch_rows=part.batch_rows,
            last=part.last,
            skipped=[
                copy_and_index(part.rows[row], len(self.images))[1]
                for row in range(real)
                if not usable[row]
            ],
        )

    def _load(self, slot: int, epoch: int) -> tuple[Tensor, int]:
        copy, index = copy_and_index(slot, len(self.images))
        seed = derive_seed("copy", self.seed, copy) if copy else self.seed
        image, label = self.images.load(index, seed=seed, epoch=epoch)
        if label != SKIPPED and not 0 <= label < self.num_classes:
            raise DataError(
                f"image {index}: label {label}, but the network has {self.num_classes} classes "
                f"(0 to {self.num_classes - 1}). Check the class folders or num_classes."
            )
        return image, label


class _ErrorsAsItems(Dataset[Batch]):
    """Gives a `DataError` instead of raising it, for `PartLoader` to raise."""

    def __init__(self, parts: Dataset[Batch]) -> None:
        self.parts = parts

    def __getitem__(self, part: Part) -> Batch | DataError:  # type: ignore[override]
        try:
            return self.parts[part]
        except DataError as error:
            return error.with_traceback(None)


class PartLoader(DataLoader[Batch]):
    """A DataLoader that raises a loader process's `DataError` as it is.

    A plain DataLoader raises an error whose message is the traceback in the loader process. When
    the processes themselves fail it is a `LoaderError`, which comes when a batch is asked for.

    limit: seconds after which a batch that has not come is given up as a `LoaderError`; 0: never.
    while_waiting: called now and then while loader processes keep this one waiting; may raise.
    """

    limit: float = 0
    while_waiting: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = self._begin()
        while True:
            try:
                batch = self._next(batches)
            except StopIteration:
                return
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def _begin(self) -> Iterator[Batch]:
        try:
            batches = super().__iter__()
        except (OSError, RuntimeError) as error:
            raise self._failed(error, "could not be started") from error
        _torch.leave_deaths_to_next(self)
        return batches

    def _failed(self, error: Exception, how: str) -> Exception:
        """The error for processes that failed, or the one that was raised if that is another."""
        if not self.num_workers or not _torch.is_loader_failure(error):
            return error
        reason = why_gone(_torch.loader_processes(self)) or _torch.first_line(error)
        return LoaderError(
            f"the {self.num_workers} loader processes {how}: {reason}. Lower --workers (0: none) "
            "and --prefetch, or raise the limit (ulimit -n for open files; memory, /dev/shm)."
        )

    def _next(self, batches: Iterator[Batch]) -> Batch:
        asked = time.monotonic()
        while True:
            try:
                return next(batches)
            except (OSError, EOFError, RuntimeError) as error:
                # After its timeout, which is short here, a DataLoader can be asked again.
                if not isinstance(error, RuntimeError) or not _torch.is_loader_timeout(error):
                    failed = self._failed(error, "failed")
                    if failed is error:
                        raise
                    raise failed from error
                if self.while_waiting is not None:
                    self.while_waiting()
                if self.limit and time.monotonic() - asked > self.limit:
                    raise LoaderError(
                        f"no batch came from the loader processes within {self.limit:g} seconds. "
                        "They hang, or lack shared memory (/dev/shm). Try --workers 0 or a larger "
                        "--timeout."
                    ) from error

    def kill_workers(self) -> None:
        """End the loader processes at once, also those that hang in a read."""
        _torch.kill_loader_processes(self)


def make_loader(
    dataset: Dataset[Batch],
    sampler: Sampler[Part],
    *,
    workers: int,
    prefetch: int,
    device: torch.device,
    timeout: float = 0,
) -> PartLoader:
    """A DataLoader of `Batch`es that leaves the global random state alone.

    timeout: seconds after which a batch that has not come is given up as a `DataError` (a loader
    process that hangs, or could not hand its batch over for want of shared memory); 0: never.
    """
    options: dict[str, Any] = {}
    if workers:
        options = {
            "num_workers": workers,
            "prefetch_factor": prefetch,
            "persistent_workers": True,
            "worker_init_fn": start_worker,
            "timeout": POLL_SECONDS,
        }
    loader = PartLoader(
        _ErrorsAsItems(dataset),
        batch_size=None,
        sampler=sampler,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    loader.limit = timeout
    return loader
