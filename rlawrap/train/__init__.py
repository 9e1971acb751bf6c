"""Training: exact to the bit when resumed, on one process or many.

>>> from rlawrap.train import TrainConfig, train
>>> config = TrainConfig(arch="rla_cifar_resnet20", epochs=30, output="runs/first")
>>> result = train(config)  # doctest: +SKIP
"""

from __future__ import annotations

from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Batch
from rlawrap.train.loop.engine import TrainResult, train
from rlawrap.train.loop.loading import evaluate, load_model
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.accuracy import Evaluation, evaluate_model
from rlawrap.train.tasks.task import Figures, Judged, Losses, Scores, Task

__all__ = [
    "Batch",
    "Evaluation",
    "Figures",
    "Judged",
    "Losses",
    "Processes",
    "Scores",
    "Task",
    "TrainConfig",
    "TrainResult",
    "evaluate",
    "evaluate_model",
    "load_model",
    "train",
]
