"""The detector or segmenter of a run: by name, or put around a network of any kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from rlawrap.detection import detector, segmenter
from rlawrap.detection.detectors import DETECTORS
from rlawrap.detection.segmenters import SEGMENTERS
from rlawrap.errors import ConfigError
from rlawrap.networks import NamedNetwork, find_network
from rlawrap.splice import RLAModel
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.network.build import build_model
from rlawrap.train.network.origin import import_all, is_ours

#: The longer side of an image to the shorter one, at most: 1333 pixels and 800.
LONGEST_SIDE = 1333 / 800


def build_scene_network(
    config: TrainConfig, num_classes: int, heads: Collection[str], *, fill: bool
) -> nn.Module:
    """The network that `config.arch` names, or `config.head` around it.

    num_classes counts the background. heads: the kinds that may be put around a network.
    Raises `ConfigError` for another head, and for a network that has no hidden state to read.
    """
    if config.head is None:
        return build_model(_settled(config, heads, fill=fill), num_classes, fill=fill)
    if config.head not in heads:
        raise ConfigError(f"head={config.head!r}: the task {config.task} takes {', '.join(heads)}.")
    # Whatever weights the run starts from are of the network inside.
    inside = build_model(config.replace(head=None, head_args={}), num_classes, fill=fill)
    if not isinstance(inside, RLAModel):
        raise ConfigError(
            f"head={config.head!r}: goes around a network with a hidden state, and {config.arch} "
            "has none. Give it one by --rla, or choose a detector of torchvision's by its name."
        )
    options = dict(config.head_args)
    if config.head in SEGMENTERS:
        return segmenter(config.head, inside, num_classes=num_classes, **options)
    options = {**_sizes(config), **options}
    return detector(config.head, inside, num_classes=num_classes, **options)


def head_of(config: TrainConfig) -> str | None:
    """The kind of detector or segmenter, where names tell it."""
    if config.head is not None:
        return config.head
    kind = config.arch.rpartition(":")[2].partition("_")[0]
    return kind if kind in DETECTORS or kind in SEGMENTERS else None


def _settled(config: TrainConfig, heads: Collection[str], *, fill: bool) -> TrainConfig:
    """The configuration as `build_model` takes it, of a network that is whole by its name."""
    import_all(config)
    found = find_network(config.arch)
    if found.source == "code" or (found.source == "rlawrap" and not is_ours(found.builder)):
        return config  # of the user's own, who knows what it is
    if found.source == "timm" or head_of(config) not in heads:
        raise ConfigError(_no_head(config, heads))
    arguments = dict(config.model_kwargs)
    if head_of(config) in DETECTORS:
        arguments = {**_sizes(config), **arguments}
    if found.source == "torchvision":
        arguments.setdefault("weights_backbone", None)  # else it would be downloaded
        return config.replace(model_kwargs=arguments)
    if config.pretrained:
        arguments.setdefault("weights_backbone", "DEFAULT")
    if not fill:
        arguments = _without_weights(found, arguments)
    return config.replace(model_kwargs=arguments, pretrained=False)


def _without_weights(found: NamedNetwork, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that build the same network without reading its weights."""
    if arguments.pop("weights_backbone", None) is not None and "_fpn" in found.name:
        arguments.setdefault("trainable_layers", 3)
        arguments.setdefault("norm_eval", True)
    return arguments


def _sizes(config: TrainConfig) -> dict[str, int]:
    """What a detector brings images to."""
    if config.image_size is None:
        return {}
    return {"min_size": config.image_size, "max_size": round(config.image_size * LONGEST_SIDE)}


def _no_head(config: TrainConfig, heads: Collection[str]) -> str:
    kinds = ", ".join(heads)
    examples: Sequence[str] = [f"{kind}_rla_resnet50{_ending(kind)}" for kind in heads]
    return (
        f"{config.arch}: not a network for the task {config.task}. Choose one by name, such as "
        f"{' or '.join(examples[:2])} (rlawrap.detection.list_detectors() has them), or put one "
        f"around it with --head: {kinds}."
    )


def _ending(kind: str) -> str:
    return "_fpn" if kind in DETECTORS else ""
