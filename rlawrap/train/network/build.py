"""The network of a run: built by name, filled from a base checkpoint, partly frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rlawrap.design.names import is_added
from rlawrap.errors import CheckpointError, ConfigError, few
from rlawrap.networks import build_network, find_network
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.network.freezing import CONVOLUTIONS, first_convolution, freeze
from rlawrap.train.network.modes import evaluating
from rlawrap.train.network.origin import import_all
from rlawrap.train.network.outputs import device_of
from rlawrap.train.store import checkpoint
from rlawrap.weights import (
    fit_names,
    only_tensors,
    parse_weights,
    read_weights_file,
    state_dict_in,
)


def build_model(config: TrainConfig, num_classes: int, *, fill: bool = True) -> nn.Module:
    """The network of the config, its initial weights drawn from the config's seed.

    fill: take the weights of `pretrained`, `finetune` and `pretrained_conv1`; without it they need
    not be there any more, for a network that a checkpoint will fill. A function of the user's own
    is told `num_classes` if it has such a parameter.
    """
    import_all(config)
    arguments = dict(config.model_kwargs)
    if find_network(config.arch).takes("num_classes"):
        arguments.setdefault("num_classes", num_classes)
    if arguments.get("num_classes", num_classes) != num_classes:
        raise ConfigError(
            f"num_classes={arguments['num_classes']} in model_kwargs, but the data has "
            f"{num_classes} classes. Leave it out, or choose the right data."
        )
    torch.manual_seed(derive_seed("init", config.seed))
    try:
        model = build_network(
            config.arch, pretrained=config.pretrained and fill, rla=config.rla, **arguments
        )
    except TypeError as error:
        raise ConfigError(f"{config.arch}: cannot be built from {arguments}: {error}") from error
    return prepare_model(model, config, fill=fill)


def prepare_model(model: nn.Module, config: TrainConfig, *, fill: bool = True) -> nn.Module:
    """Fill a network, in place, with the weights the config starts from, and freeze parts of it."""
    if fill and config.finetune is not None:
        load_weights(model, Path(config.finetune))
    if config.pretrained_conv1 is not None:
        if fill:
            load_first_convolution(model, config.arch, config.pretrained_conv1)
        first_weight(model)[1].requires_grad_(False)
    freeze(model, config.freeze)
    return model


def check_network(config: TrainConfig) -> None:
    """Raise `ConfigError` when there is no network of the config's name; nothing is built."""
    from rlawrap.models import list_models

    import_all(config)
    if config.arch not in list_models():
        find_network(config.arch)


def checkpoint_blocks(model: nn.Module, name: str) -> None:
    """Switch activation checkpointing on. Raises `ConfigError` for a network that has none."""
    switch = getattr(model, "set_grad_checkpointing", None)
    if switch is None:
        raise ConfigError(
            f"grad_checkpointing: {name} has no set_grad_checkpointing(). Networks with a hidden "
            "state have it, and timm's."
        )
    try:
        switch()
    except (AssertionError, NotImplementedError) as error:
        raise ConfigError(f"grad_checkpointing: {name} does not offer it ({error}).") from error


def first_weight(model: nn.Module) -> tuple[str, nn.Parameter]:
    """Name and value of the first convolution's weight."""
    name, module = first_convolution(model)
    weight = module._parameters.get("weight")
    if weight is None or is_lazy(weight):
        raise ConfigError(
            f"pretrained_conv1: the first convolution, {name}, has no weight of its own that could "
            "be filled (weight norm, spectral norm or a lazy one). Leave it out; --finetune FILE "
            "fills whole networks."
        )
    return f"{name}.weight", weight


def input_channels(model: nn.Module, image: Callable[[], Tensor] | None = None) -> int:
    """Channels of the images that the network takes: those of its first convolution.

    image: gives one of the data, [C, H, W], for networks whose modules do not tell: it is tried
    with its channels, with 3 and with 1.

    >>> input_channels(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), lambda: torch.zeros(3, 4, 4))
    1
    """
    stated = _channels_of_first(model)
    if stated in (1, 3) or (image is None and stated):
        return stated
    example = torch.zeros(3, 224, 224) if image is None else image()
    if any(is_lazy(parameter) for parameter in model.parameters()):
        return stated or len(example)  # trying it would settle its shapes
    for channels in dict.fromkeys((len(example), 3, 1)):
        if _takes(model, example[:1].expand(channels, *example.shape[1:])):
            return channels
    return stated or len(example)


def _channels_of_first(model: nn.Module) -> int:
    """The channels that the first convolution takes; 0 where there is none, or a lazy one."""
    first = next((m for m in model.modules() if isinstance(m, CONVOLUTIONS)), None)
    if first is None:
        return 0
    if not first.in_channels and not is_lazy(first.weight):
        return int(first.weight.shape[1] * first.groups)  # a lazy one that was filled
    return first.in_channels


def _takes(model: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
            model(image[None].to(device_of(model)))
    except Exception:  # whatever the user's own code raises
        return False
    return True


def load_weights(
    model: nn.Module, path: Path, weights: Mapping[str, Tensor] | None = None
) -> list[str]:
    """Fill a network from a checkpoint of it or of its base; returns what kept its initial value.

    Takes a run folder, a training checkpoint (its average, if it has one), a state dict or a
    safetensors file, with or without "module." and the like before the names (see `fit_names`).
    Only `rla.` parameters may be missing, and the classifier may differ in its number of classes;
    anything else is listed in a `CheckpointError`, and the network is left as it was.
    `weights` are those in the file, where they have been read.
    """
    own = model.state_dict()
    state = fit_names(read_weights(path) if weights is None else weights, own, path)
    unknown = [name for name in state if name not in own]
    missing = [name for name in own if name not in state and not is_added(name)]
    missing = [n for n in missing if not n.endswith(("num_batches_tracked", "_extra_state"))]
    differing = [n for n, value in state.items() if n in own and _differ(own[n], value)]
    classifier = [name for name in differing if own[name].shape[1:] == state[name].shape[1:]]
    classifier = [name for name in classifier if in_last_layer(model, name)]
    problems = [
        f"{len(names)} {what}: {few(names)}"
        for what, names in (
            ("names that the network does not have", unknown),
            ("names that the file does not have", missing),
            ("of another shape", [name for name in differing if name not in classifier]),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{path}: not weights of this network or of its base. " + "; ".join(problems) + "."
        )
    usable = {name: value for name, value in state.items() if name not in classifier}
    model.load_state_dict(usable, strict=False)
    return [name for name in own if name not in usable]


def misfits(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps weights from being loaded into a network, in words.

    >>> misfits(nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "b": torch.zeros(3)})
    ['1 names that the network does not have: b', '1 names that the file does not have: bias']
    """
    own = model.state_dict()
    kinds = (
        ("names that the network does not have", [n for n in weights if n not in own]),
        ("names that the file does not have", [n for n in own if n not in weights]),
        ("of another shape",
         [n for n in own if n in weights and _differ(own[n], weights[n])]),
    )  # fmt: skip
    return [f"{len(names)} {what}: {few(names, 5)}" for what, names in kinds if names]


def _differ(own: Any, other: Any) -> bool:
    """Whether two values have different shapes; lazy parameters have none, nor has extra state."""
    if not (isinstance(own, Tensor) and isinstance(other, Tensor)):
        return False
    return not is_lazy(own) and not is_lazy(other) and own.shape != other.shape


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file or run folder, in whichever of the usual forms, by their names there.

    `fit_names` brings the names to those of a network.
    """
    if path.is_dir():
        best = path / "best.pt"
        newest = [saved.path for saved in checkpoint.saved(path / "checkpoints")[:1]]
        files = [best] if best.is_file() else newest
        if not files:
            raise CheckpointError(f"{path}: no best.pt and no checkpoint in this folder.")
        path = files[0]
    if path.suffix == ".safetensors" or not path.is_file():
        loaded = read_weights_file(path)
    else:
        loaded = parse_weights(checkpoint.read_bytes(path), path)
    return only_tensors(state_dict_in(loaded, path), path)


def load_first_convolution(model: nn.Module, arch: str, source: str) -> str:
    """Take the weight of the first convolution from a checkpoint and freeze it.

    source: a file, or "default" for torchvision's pretrained network of the same name, which is
    downloaded. Returns the weight's name.
    """
    name, parameter = first_weight(model)
    weights = _torchvision_weights(arch) if source == "default" else read_weights(Path(source))
    weights = fit_names(weights, [*model.state_dict()], source)
    if name not in weights or weights[name].shape != parameter.shape:
        raise CheckpointError(f"{source}: has no {name} of shape {tuple(parameter.shape)}.")
    with torch.no_grad():
        parameter.copy_(weights[name])
    parameter.requires_grad_(False)
    return name


def _torchvision_weights(arch: str) -> dict[str, Tensor]:
    import torchvision

    names = [n for n in torchvision.models.list_models(module=torchvision.models) if n in arch]
    flat = {n.replace("_", ""): n for n in torchvision.models.list_models()}
    names += [flat[n] for n in flat if n in arch]
    if not names:
        raise ConfigError(
            f"pretrained_conv1='default': torchvision has no network behind {arch!r}. Give a file."
        )
    network = torchvision.models.get_model(max(names, key=len), weights="DEFAULT")
    return dict(network.state_dict())


def in_last_layer(model: nn.Module, name: str) -> bool:
    """Whether a parameter is of the base's classifier or of the one that rlawrap put beside it."""
    owner = name.rpartition(".")[0]
    linear = [
        n
        for n, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)) and not is_added(n)
    ]
    return is_added(owner) or (bool(linear) and owner == linear[-1])
