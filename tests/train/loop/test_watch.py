"""Which step is told of as the one that spoilt the loss or the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from rlawrap.errors import TrainError
from rlawrap.models import model_registry
from rlawrap.train import train
from rlawrap.train.loop.state import Keeper
from rlawrap.train.loop.step import Stepper
from rlawrap.train.loop.watch import EARLIEST, Watch
from rlawrap.train.process.processes import Processes
from rlawrap.train.store.run_folder import RunFolder
from rlawrap.train.tasks.classification import Classification
from tests.train.loop.test_engine import engine_step_of
from tests.train.toys import ToyImages, toy_config, toy_net


class Root(nn.Module):
    """The root of zero: its value is finite, its gradient is not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean((2, 3)).sqrt()


class Dark(ToyImages):
    """Image 7 is black in epoch 1."""

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        image, label = super().load(index, seed=seed, epoch=epoch)
        return (image * 0 if (index, epoch) == (7, 1) else image), label


@pytest.mark.parametrize("log_every", [1, 50])
def test_weights_that_a_step_spoils_are_told_with_this_step_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    def rooted(num_classes: int = 4) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), Root(), nn.Linear(8, num_classes))

    monkeypatch.setitem(model_registry._BUILDERS, "toy", rooted)
    config = toy_config(tmp_path, log_every=log_every, save_every=None, ema=0.0, lr=1e-3)
    with pytest.raises(TrainError, match="the weights are not finite") as caught:
        train(config, data=(Dark(40), ToyImages(10)))
    position = engine_step_of(7, config.seed, epoch=1)
    assert f"after step {position + 1} of epoch 2" in str(caught.value)


def test_the_earliest_step_of_all_processes_is_told(tmp_path: Path) -> None:
    class Others(Processes):
        """One more process, whose weights went bad after the step with index 2."""

        def agree(self, values: Sequence[int]) -> list[int]:
            return [values[0], max(values[1], EARLIEST - 2)]

    config = toy_config(tmp_path)
    model = toy_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    device = torch.device("cpu")
    task = Classification(config)
    stepper = Stepper(model, model, optimizer, config, task, device=device, world=1)
    keeper = cast(Keeper, SimpleNamespace(folder=RunFolder(tmp_path), newest=None))
    watch = Watch(config, Others(), stepper, keeper, steps=5)
    stepper.bad_loss.fill_(3)  # here the next loss told it
    with pytest.raises(
        TrainError, match=r"weights are not finite or absurd.* after step 3 of epoch 1"
    ):
        watch.steps_taken()
    stepper.bad_loss.fill_(1)
    with pytest.raises(TrainError, match=r"loss is not finite .* at step 2 of epoch 1"):
        watch.steps_taken()
