"""A trained network back from a run or a checkpoint, to use or to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlawrap.errors import CheckpointError
from rlawrap.train import checkpoint
from rlawrap.train.build import build_model, input_channels
from rlawrap.train.config import TrainConfig
from rlawrap.train.evaluation import Evaluation, evaluate_model
from rlawrap.train.loader import Images, PartDataset, make_loader
from rlawrap.train.processes import Processes, choose_device
from rlawrap.train.sampler import EvalSampler
from rlawrap.train.setup import open_images


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], TrainConfig]:
    """State and config of a training checkpoint; for a run folder, of its best one.

    Raises `CheckpointError` when there is none.
    """
    path = Path(path)
    if path.is_dir():
        best = path / "best.pt"
        if not best.is_file():
            raise CheckpointError(f"{path}: no best.pt in this folder; give a checkpoint file.")
        path = best
    state = checkpoint.read(path)
    return state, TrainConfig.from_dict(state["config"])


def load_model(path: str | Path, *, average: bool = True) -> nn.Module:
    """The network of a run (its best epoch) or of a checkpoint, in evaluation mode, on the CPU.

    average: take the averaged weights where there are any.
    """
    state, config = load_checkpoint(path)
    with torch.random.fork_rng(devices=[]):
        # The weights come from the file alone, so nothing else is read.
        arguments = {n: v for n, v in config.model_kwargs.items() if n != "weights"}
        bare = config.replace(finetune=None, pretrained_conv1=None, model_kwargs=arguments)
        model = build_model(bare, len(state["classes"]))
    weights = state["ema"] if average and state["ema"] is not None else state["model"]
    model.load_state_dict(weights)
    return model.eval().requires_grad_(True)


def evaluate(
    path: str | Path,
    *,
    data: str | None = None,
    data_root: str | None = None,
    split: str = "test",
    images: Images | None = None,
    batch_size: int = 128,
    workers: int = 2,
    device: str = "auto",
    average: bool = True,
) -> Evaluation:
    """Judge a run's best network, or a checkpoint, on a split of its own data set or another.

    images: a data set, instead of one by name. Raises `CheckpointError` and `DataError`, the
    latter also when the classes are not those of the training.
    """
    state, config = load_checkpoint(path)
    model = load_model(path, average=average)
    if images is None:
        changes: dict[str, Any] = {"data_root": data_root or config.data_root, "subset": None}
        config = config.replace(data=data or config.data, **changes)
        images = open_images(config, split, input_channels(model))
    classes = list(images.classes)
    if classes != state["classes"]:
        raise CheckpointError(
            f"{path}: trained on {len(state['classes'])} classes ({_few(state['classes'])}), but "
            f"the data has {len(classes)} ({_few(classes)})."
        )
    processes = Processes(device=choose_device(device, 0))
    model.to(processes.device)
    loader = make_loader(
        PartDataset(images, num_classes=len(classes)),
        EvalSampler(len(images), batch_size=batch_size),
        workers=workers,
        prefetch=2,
        device=processes.device,
    )
    try:
        return evaluate_model(model, loader, num_classes=len(classes), processes=processes)
    finally:
        loader.kill_workers()


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
