"""From parts (lists of image numbers) to batches of tensors, in loader processes or without."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rlawrap.errors import DataError
from rlawrap.train.data.augment import mix_batch
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.sampler import Part

# How long a loader process outlives a SIGTERM. A scheduler sends the signal to every process of
# a job, and the trainer still needs batches until its checkpoint is written.
GRACE_SECONDS = 60

# How long to wait for a batch before looking whether the run is to stop.
POLL_SECONDS = 1.0


class Images(Protocol):
    """What the trainer needs of a data set; `rlawrap.train.data.ImageDataset` is one."""

    classes: tuple[str, ...]
    in_channels: int

    def __len__(self) -> int: ...

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]: ...

    def fingerprint(self) -> str: ...


class Batch(NamedTuple):
    """images [N, C, H, W]; targets [N] or soft [N, classes]; weights [N], 0 for padding.

    counted: rows that count. batch_rows: images in the whole batch, over all processes.
    """

    images: Tensor
    targets: Tensor
    weights: Tensor
    counted: int
    batch_rows: int
    last: bool
    skipped: list[int]


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
        indices = (part.lead, *part.rows) if mixing else part.rows
        samples = [self._load(index, part.epoch) for index in indices]
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
            skipped=[part.rows[row] for row in range(real) if not usable[row]],
        )

    def _load(self, index: int, epoch: int) -> tuple[Tensor, int]:
        image, label = self.images.load(index, seed=self.seed, epoch=epoch)
        if label != SKIPPED and not 0 <= label < self.num_classes:
            raise DataError(
                f"image {index}: label {label}, but the network has {self.num_classes} classes "
                f"(0 to {self.num_classes - 1}). Check the class folders or num_classes."
            )
        return image, label


class _ErrorsAsItems(Dataset[Batch]):
    """Gives a `DataError` instead of raising it, for `PartLoader` to raise."""

    def __init__(self, parts: PartDataset) -> None:
        self.parts = parts

    def __getitem__(self, part: Part) -> Batch | DataError:  # type: ignore[override]
        try:
            return self.parts[part]
        except DataError as error:
            return error.with_traceback(None)


class PartLoader(DataLoader[Batch]):
    """A DataLoader that raises a loader process's `DataError` as it is.

    A plain DataLoader raises an error whose message is the traceback in the loader process.

    limit: seconds after which a batch that has not come is given up as a `DataError`; 0: never.
    while_waiting: called now and then while loader processes keep this one waiting; may raise.
    """

    limit: float = 0
    while_waiting: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            try:
                batch = self._next(batches)
            except StopIteration:
                return
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch:
        asked = time.monotonic()
        while True:
            try:
                return next(batches)
            except RuntimeError as error:
                # After its timeout, which is short here, a DataLoader can be asked again.
                if "timed out" not in str(error):
                    raise
                if self.while_waiting is not None:
                    self.while_waiting()
                if self.limit and time.monotonic() - asked > self.limit:
                    raise DataError(
                        f"no batch came from the loader processes within {self.limit:g} seconds. "
                        "They hang, or lack shared memory (/dev/shm). Try --workers 0 or a larger "
                        "--timeout."
                    ) from error

    def kill_workers(self) -> None:
        """End the loader processes at once, also those that hang in a read."""
        iterator, self._iterator = self._iterator, None
        if getattr(iterator, "_worker_pids_set", False):
            # Else PyTorch raises an error wherever the main thread is, for a worker that died.
            torch._C._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False  # type: ignore[union-attr]
        for worker in getattr(iterator, "_workers", ()):
            worker.kill()


def make_loader(
    dataset: PartDataset,
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
            "worker_init_fn": _start_worker,
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


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask Linux to end this process when its parent ends; elsewhere do nothing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal_number))


def _start_worker(worker: int) -> None:
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    torch.set_num_threads(1)
    # Ctrl-C and a scheduler's signals reach the loader processes too; the trainer decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
