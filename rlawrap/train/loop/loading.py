"""A trained network back from a run or a checkpoint, to use or to judge."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlawrap.checkpoints import build_described
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.identity import CUSTOM
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.dataset import OnBadImage
from rlawrap.train.data.loader import Images, make_loader
from rlawrap.train.data.sampler import EvalSampler
from rlawrap.train.loop.judged_images import images_of_run, open_to_judge, prepared_alike
from rlawrap.train.loop.opening_lines import notes
from rlawrap.train.loop.plain_weights import load_weights_of
from rlawrap.train.network.build import input_channels, misfits
from rlawrap.train.network.origin import find_again
from rlawrap.train.process.processes import Processes, choose_device
from rlawrap.train.store import checkpoint
from rlawrap.train.tasks.find import make_task
from rlawrap.train.tasks.judge import judge_model
from rlawrap.train.tasks.task import Judged, Task

log = logging.getLogger(__name__)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], TrainConfig]:
    """State and config of a training checkpoint; for a run folder, of its best one.

    Raises `CheckpointError` when there is none.
    """
    plain = Path(path).suffix == ".safetensors" and Path(path).is_file()
    state = {} if plain else _read_state(Path(path))
    if "position" not in state:
        raise CheckpointError(
            f"{path}: weights, not a checkpoint of a run. Say whose they are: "
            f"`rlawrap evaluate {path} DATA --arch NAME`, or "
            f"`rlawrap predict IMAGES --weights {path} --arch NAME`."
        )
    checkpoint.check_format(state, path)
    return state, TrainConfig.from_dict(state["config"])


def _read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; for a run folder, its best one."""
    if path.is_dir():
        best = path / "best.pt"
        if not best.is_file():
            raise CheckpointError(f"{path}: no best.pt in this folder; give a checkpoint file.")
        path = best
    return checkpoint.parse(checkpoint.read_bytes(path), path)


def load_model(
    path: str | Path,
    *,
    average: bool = True,
    arch: str | None = None,
    model: nn.Module | None = None,
) -> nn.Module:
    """The network of a run (its best epoch) or of a checkpoint, in evaluation mode, on the CPU.

    average: take the averaged weights where there are any.
    arch: what makes the network, where it is no longer what the run says.
    model: the network, freshly built, of a run that was given one; it is filled and returned.
    Raises `CheckpointError` when the network cannot be found again or the weights do not fit it.
    """
    state, config = load_checkpoint(path)
    return filled(state, config, str(path), average=average, arch=arch, model=model)


def filled(
    state: Mapping[str, Any],
    config: TrainConfig,
    path: str,
    *,
    average: bool,
    arch: str | None,
    model: nn.Module | None,
) -> nn.Module:
    """The network of a checkpoint that has been read; the arguments are those of `load_model`."""
    if model is None:
        with torch.random.fork_rng(devices=[]):
            model = _rebuild(state, config, path, arch)
    weights = state["ema"] if average and state["ema"] is not None else state["model"]
    problems = misfits(model, weights)
    if problems:
        raise CheckpointError(
            f"{path}: its weights do not fit {type(model).__name__}. {'; '.join(problems)}."
        )
    model.load_state_dict(weights)
    return model.eval().requires_grad_(True)


def _rebuild(
    state: Mapping[str, Any], config: TrainConfig, where: str, arch: str | None
) -> nn.Module:
    """The network that a checkpoint is of, with fresh weights."""
    origin = state.get("network", {})
    if arch is not None:
        config = config.replace(arch=arch)
    elif origin.get("source") == "given" and origin["description"]["base"] != CUSTOM:
        return build_described(origin["description"], None, where)
    else:
        config = find_again(config, origin, where)
    # The weights come from the file alone, so nothing else is read.
    arguments = {n: v for n, v in config.model_kwargs.items() if n != "weights"}
    bare = config.replace(
        finetune=None, pretrained_conv1=None, pretrained=False, model_kwargs=arguments
    )
    return make_task(bare).build(state["classes"], fill=False)


def evaluate(
    path: str | Path,
    *,
    arch: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    imports: Sequence[str] = (),
    rla: Mapping[str, Any] | None = None,
    model: nn.Module | None = None,
    image_size: int | None = None,
    data: str | None = None,
    data_root: str | None = None,
    split: str | None = None,
    images: Images | None = None,
    exif_orientation: bool | None = None,
    on_bad_image: OnBadImage | None = None,
    batch_size: int = 128,
    workers: int = 2,
    device: str = "auto",
    average: bool = True,
) -> Judged:
    """Judge a run's best network, or a checkpoint, on a split of its own data set or another.

    arch: the network that plain weights in `path` are of, built with `model_kwargs`, `imports` and
    `rla`; then `data` or `images` says what to judge it by. For a run: what makes its network now.
    model: the network of a run that was given one. images: a data set, instead of one by name.
    split: "test" or "train"; None is the test split, and all of a folder that has no splits, unless
    it is the one that the run was trained on. image_size, exif_orientation: None is as the run was
    trained, whose resizing and normalisation other data gets, too. on_bad_image: "fatal" or "skip",
    which counts the broken ones in `skipped`; None is as the run was trained.

    Raises `CheckpointError` and `DataError`, the former also when the classes are not those of the
    training.
    """
    if arch is None or is_of_run(path):
        if model_kwargs or rla is not None:
            raise ConfigError(
                "--model-arg and --rla go with --arch, for weights that are no run's."
            )
        given = {
            "data": data,
            "data_root": data_root,
            "exif_orientation": exif_orientation,
            "on_bad_image": on_bad_image,
        }
        changes = {name: value for name, value in given.items() if value not in (None, "")}
        state, trained = load_checkpoint(path)
        model = filled(state, trained, str(path), average=average, arch=arch, model=model)
        task = make_task(prepared_alike(state, trained.replace(**changes), image_size))
        own, channels = not (data or data_root), _channels(state, model)
        images = images_of_run(path, state, task, split, images, channels, own=own)
    else:
        if images is None and data is None:
            raise ConfigError("--arch: name the data too, as `rlawrap evaluate FILE DATA --arch`.")
        config = TrainConfig(
            arch=arch,
            model_kwargs=dict(model_kwargs or {}),
            imports=tuple(imports),
            rla=None if rla is None else dict(rla),
            data=data or "builtin",
            data_root=data_root,
            image_size=image_size,
            exif_orientation=exif_orientation is not False,
            on_bad_image=on_bad_image or "fatal",
        )
        task = make_task(config)
        model, images = _open_weights(path, task, split, images)
    for note in notes(images):
        log.warning("%s", note)
    processes = Processes(device=choose_device(device, 0))
    model.to(processes.device)
    task.classes = tuple(images.classes)
    loader = make_loader(
        task.parts(images, training=False),
        EvalSampler(len(images), batch_size=task.judged_at_once or batch_size),
        workers=workers,
        prefetch=2,
        device=processes.device,
    )
    try:
        return judge_model(model, loader, task.scores(processes.device), processes=processes)
    finally:
        loader.kill_workers()


def _channels(state: Mapping[str, Any], model: nn.Module) -> int:
    """Channels of the images of a run, which keeps them where its data is one of ours."""
    kept = state.get("preparation")
    return int(kept["channels"]) if kept else input_channels(model)


def is_of_run(path: str | Path) -> bool:
    """Whether a path is that of a run, or of a checkpoint of one, rather than of bare weights."""
    path = Path(path)
    if path.suffix == ".safetensors" or not path.is_file():
        return path.is_dir()
    return "position" in _read_state(path)


def _open_weights(
    path: str | Path, task: Task, split: str | None, images: Images | None
) -> tuple[nn.Module, Images]:
    """The task's network with the weights in a file, and images as it takes them."""
    whole, split = split is None, split or "test"
    given = images or open_to_judge(task, split, whole=whole)
    model = load_weights_of(path, task.config, len(given.classes))
    channels = input_channels(model)
    if images is None and channels != given.in_channels:
        given = open_to_judge(task, split, channels, whole=whole)
    return model, given
