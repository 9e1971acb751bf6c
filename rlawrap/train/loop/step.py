"""One optimiser step: forward, backward, clip, update, average; and the sums that report it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlawrap.errors import CheckpointError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Batch, moved
from rlawrap.train.loop.sanity import Sanity
from rlawrap.train.network.ema import Average
from rlawrap.train.network.optim import set_lr
from rlawrap.train.process.processes import sum_type
from rlawrap.train.tasks.task import Losses, Task

_AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """Runs the parts of a step one by one; after the last one the weights move.

    The loss of a part is divided by the size of the whole batch, over all parts and processes,
    so that the gradient is that of the mean loss however the batch was cut.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        task: Task,
        *,
        device: torch.device,
        world: int,
    ) -> None:
        self.model = model
        self.network = network
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.world = world
        self.task = task
        self.average = Average(model, config.ema, every=config.ema_every) if config.ema else None
        self.amp_type = _AMP_TYPES.get(config.amp)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        # Of the loss and what the task logs; the first step whose loss was not finite (-1: none).
        # `sanity` has the first whose gradient or weights were of no use.
        self.sums = torch.zeros(1 + len(task.logged), dtype=sum_type(device), device=device)
        self.count = 0
        self.between_steps = True
        self.bad_loss = torch.full((), -1, dtype=torch.int64, device=device)
        self.sanity = Sanity(model, device)

    def part(self, batch: Batch, step: int, lr: float) -> None:
        """Forward and backward of one part of step number `step` of the run."""
        waiting = not batch.last and isinstance(self.network, DistributedDataParallel)
        with self.network.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            losses = self.losses(batch)
            loss = losses.total / batch.batch_rows
            if self.between_steps:
                self.optimizer.zero_grad()
                self.between_steps = False
            self.scaler.scale(loss * self.world).backward()
        self._report(losses.total.detach(), losses.parts.detach(), step)
        self.count += batch.counted
        if batch.last:
            self._update(step, lr)

    def forward(self, *inputs: Any) -> Any:
        """What the network gives over all processes, in the run's precision."""
        with self.autocast():
            return self.network(*inputs)

    def losses(self, batch: Batch) -> Losses:
        """The loss of a batch, and what is logged beside it."""
        batch = batch._replace(
            images=self.to_device(batch.images),
            targets=moved(batch.targets, self.device),
            weights=moved(batch.weights, self.device),
        )
        return self.task.loss(self.forward, batch)

    def autocast(self) -> Any:
        """The mixed-precision context of the run."""
        if self.amp_type is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_type)

    def to_device(self, images: Any) -> Any:
        """The images on the device, those of one size in the run's memory format."""
        if self.config.channels_last and isinstance(images, Tensor):
            return images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return moved(images, self.device)

    def _update(self, step: int, lr: float) -> None:
        set_lr(self.optimizer, lr)
        self.scaler.unscale_(self.optimizer)
        gradient = self.sanity.before()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.sanity.after(step, gradient)
        # Gradients are dropped in the next step, not here: freed now, all memory of the step would
        # go back to the system, and have to be asked for again.
        self.between_steps = True
        if self.average is not None:
            self.average.update(self.model, step)

    @torch.no_grad()
    def _report(self, total: Tensor, parts: Tensor, step: int) -> None:
        self.sums += torch.cat([total[None], parts])
        # With fp16, too: the scaler skips gradients that overflow, but this loss was never scaled.
        first = ~torch.isfinite(total) & (self.bad_loss < 0)
        self.bad_loss = torch.where(first, step, self.bad_loss)

    @torch.no_grad()
    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        parts = [torch.isfinite(weight).all() for weight in self.model.parameters()]
        return not parts or bool(torch.stack(parts).all())

    def sums_so_far(self) -> list[float]:
        """Loss, what the task logs, and images since the last `take_sums`, of this process."""
        return [*self.sums.tolist(), float(self.count)]

    def take_sums(self) -> list[float]:
        """`sums_so_far`, which start again at zero."""
        values = self.sums_so_far()
        self.restore_sums([0.0] * len(values))
        return values

    def restore_sums(self, values: list[float]) -> None:
        """Set the sums, as `sums_so_far` gave them."""
        *sums, count = values
        self.sums.copy_(torch.tensor(sums, dtype=self.sums.dtype))
        self.count = int(count)

    def state_dict(self) -> dict[str, Any]:
        """Everything here that the next step depends on, but not the sums."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.average is None else self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, changed: bool = False) -> None:
        """The inverse of `state_dict`.

        changed: the configuration is not the one that the state is of, and what it says of weight
        decay and the like holds. Raises `CheckpointError` when that would regroup the parameters.
        """
        own = [{n: v for n, v in g.items() if n != "params"} for g in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"the optimiser's state does not fit: {error}. A change of weight_decay or rla_lr "
                "that divides the parameters otherwise takes a new run, with --finetune."
            ) from error
        if changed:
            for group, values in zip(self.optimizer.param_groups, own, strict=True):
                group.update(values)
        self.scaler.load_state_dict(state["scaler"])
        self.sanity.forget()
        if self.average is not None:
            self.average.model.load_state_dict(state["ema"])
