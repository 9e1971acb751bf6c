"""Judging the network after an epoch: its figures, whether it is the best, and the line to show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rlawrap.train.config.naming import smaller_is_better
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.loop.progress import Display
from rlawrap.train.loop.setup import Equipment
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.judge import judge_model
from rlawrap.train.tasks.task import Judged, Task


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """figures: of the network, and as ema_... of its average. confusion: of what decides."""

    figures: dict[str, Any]
    confusion: Tensor | None

    @property
    def finite(self) -> bool:
        """Whether no loss is NaN or infinite."""
        losses = [self.figures.get(name, 0.0) for name in ("loss", "ema_loss")]
        return all(math.isfinite(loss) for loss in losses)


class Judge:
    """Judges the network of a run on its test images. All processes call it together.

    after_batch: called after each batch; may raise to end the judging.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        equipment: Equipment,
        display: Display,
        after_batch: Callable[[], None],
    ) -> None:
        self.config = config
        self.processes = processes
        self.equipment = equipment
        self.display = display
        self.after_batch = after_batch

    def judge(self, title: str) -> Judgement:
        """The figures of the network as it is now, and of its average if there is one."""
        average = self.equipment.stepper.average
        judged = self._evaluate(self.equipment.model, title)
        figures: dict[str, Any] = dict(judged.to_dict())
        if judged.skipped:
            figures["test_skipped"] = judged.skipped
        if average is not None:
            judged = self._evaluate(average.model, title)
            figures.update({f"ema_{name}": value for name, value in judged.to_dict().items()})
        self.display.end()
        return Judgement(figures=figures, confusion=judged.confusion)

    def deciding(self, name: str) -> str:
        """The field of a figure that decides: of the averaged weights when there are any."""
        return f"ema_{name}" if self.equipment.stepper.average is not None else name

    def is_better(self, figures: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """Whether figures beat the best ones so far, by what the run monitors."""
        if best is None:
            return True
        monitor = self.config.monitor or self.equipment.task.metric
        name = self.deciding(monitor)
        now, then = figures[name], best[name]
        if now is None or then is None:  # there was nothing to judge by
            return now is not None
        return bool(now < then) if smaller_is_better(monitor) else bool(now > then)

    def _evaluate(self, model: nn.Module, title: str) -> Judged:
        equipment, stepper = self.equipment, self.equipment.stepper
        self.processes.share_buffers(model)
        self.display.begin(f"{title} judging", 0, len(equipment.eval_sampler))

        def after_batch(images: int) -> None:
            self.display.advance()
            self.after_batch()

        return judge_model(
            model,
            equipment.test_loader,
            equipment.task.scores(self.processes.device),
            processes=self.processes,
            autocast=stepper.autocast,
            to_device=stepper.to_device,
            after_batch=after_batch,
        )


def sentence(task: Task, title: str, figures: dict[str, Any]) -> str:
    """The figures of an epoch as one line."""
    text = f"{title}  {task.epoch_text(figures)}"
    if "skipped" in figures:
        text += f"  {figures['skipped']} images skipped"
    if "test_skipped" in figures:
        text += f"  {figures['test_skipped']} test images skipped"
    return text
