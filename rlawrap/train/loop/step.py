"""One optimiser step: forward, backward, clip, update, average; and the sums that report it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Batch
from rlawrap.train.loop.sanity import Sanity
from rlawrap.train.network.ema import Average
from rlawrap.train.network.optim import set_lr

#: Weight of the loss of each auxiliary head (GoogLeNet, Inception), as in their papers.
AUXILIARY_WEIGHT = 0.3

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
        *,
        device: torch.device,
        world: int,
        num_classes: int,
    ) -> None:
        self.model = model
        self.network = network
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.world = world
        self.num_classes = num_classes
        self.average = Average(model, config.ema) if config.ema else None
        self.amp_type = _AMP_TYPES.get(config.amp)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        # Loss, correct answers, and the first step whose loss was not finite (-1: none).
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        self.count = 0
        self.between_steps = True
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.sanity = Sanity(model, device)

    def part(self, batch: Batch, step: int, lr: float) -> None:
        """Forward and backward of one part of step number `step` of the run."""
        images = self.to_device(batch.images)
        targets = batch.targets.to(self.device, non_blocking=True)
        weights = batch.weights.to(self.device, non_blocking=True)
        waiting = not batch.last and isinstance(self.network, DistributedDataParallel)
        with self.network.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            losses, logits = self.forward(images, targets)
            weighted = losses * weights
            loss = weighted.sum() / batch.batch_rows
            if self.between_steps:
                self.optimizer.zero_grad()
                self.between_steps = False
            self.scaler.scale(loss * self.world).backward()
        self._report(weighted.detach(), logits.detach(), targets, weights, step)
        self.count += batch.counted
        if batch.last:
            self._update(step, lr)

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each row, auxiliary heads included, and the main head's logits."""
        with self.autocast():
            outputs = self.network(images)
        main, *auxiliary = heads(outputs)
        if main.ndim != 2 or main.shape[1] != self.num_classes:
            raise ConfigError(
                f"{self.config.arch}: gives outputs of shape {tuple(main.shape)} for "
                f"{len(images)} images, but the data has {self.num_classes} classes. "
                "Set num_classes in model_kwargs, or choose a classifier."
            )
        smoothing = self.config.label_smoothing
        losses = F.cross_entropy(main.float(), targets, reduction="none", label_smoothing=smoothing)
        for logits in auxiliary:
            losses = losses + AUXILIARY_WEIGHT * F.cross_entropy(
                logits.float(), targets, reduction="none", label_smoothing=smoothing
            )
        return losses, main

    def autocast(self) -> Any:
        """The mixed-precision context of the run."""
        if self.amp_type is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_type)

    def to_device(self, images: Tensor) -> Tensor:
        """The images on the device, in the run's memory format."""
        if self.config.channels_last:
            return images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return images.to(self.device, non_blocking=True)

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
    def _report(
        self, losses: Tensor, logits: Tensor, targets: Tensor, weights: Tensor, step: int
    ) -> None:
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        correct = (logits.argmax(1) == labels) * weights
        total = losses.sum()
        self.sums += torch.stack([total, correct.sum()])
        # With fp16, too: the scaler skips gradients that overflow, but this loss was never scaled.
        bad = ~torch.isfinite(total) & (self.bad_step < 0)
        self.bad_step = torch.where(bad, step, self.bad_step)

    @torch.no_grad()
    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        parts = [torch.isfinite(weight).all() for weight in self.model.parameters()]
        return not parts or bool(torch.stack(parts).all())

    def sums_so_far(self) -> list[float]:
        """Loss, correct answers and images since the last `take_sums`, of this process."""
        return [*self.sums.tolist(), float(self.count)]

    def take_sums(self) -> list[float]:
        """`sums_so_far`, which start again at zero."""
        values = self.sums_so_far()
        self.restore_sums([0.0, 0.0, 0.0])
        return values

    def restore_sums(self, values: list[float]) -> None:
        """Set the sums, as `sums_so_far` gave them."""
        *sums, count = values
        self.sums.copy_(torch.tensor(sums, dtype=torch.float64))
        self.count = int(count)

    def state_dict(self) -> dict[str, Any]:
        """Everything here that the next step depends on, but not the sums."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.average is None else self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sanity.forget()
        if self.average is not None:
            self.average.model.load_state_dict(state["ema"])


def heads(outputs: Any) -> list[Tensor]:
    """The main logits and those of auxiliary heads, of a network's outputs in any usual form."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [value for value in values if isinstance(value, Tensor)]
