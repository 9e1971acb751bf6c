"""Weights of a classification network for the backbone of a detector or segmenter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import CheckpointError
from rlawrap.models import get_model
from rlawrap.official import load_official, official_state_dict
from rlawrap.splice.backbone import Backbone
from rlawrap.weights import count_known, fit_names, read_weights_file, state_dict_in

Source = str | os.PathLike[str] | Mapping[str, Any]


def load_backbone(model: nn.Module, source: Source, *, preset: str | None = None) -> list[str]:
    """Fill the backbone inside a detector from a classification checkpoint; what was not used.

    `source`: a file of `rlawrap.save`, a state dict, or a training checkpoint; with `preset`, the
    name of the backbone's classification network, one of the official code, too. Names of
    the source that the backbone has no place for (the classifier, the last update of h) are
    returned.

    Raises `CheckpointError`, and leaves the model as it was, where a tensor of the backbone is
    missing or has another shape: all of them are listed.

    >>> import rlawrap, torchvision
    >>> net = rlawrap.apply(torchvision.models.resnet18(), k=4, init="paper")
    >>> model = rlawrap.detection.detector("retinanet", net)
    >>> load_backbone(model, net.state_dict())[-2:]
    ['rla.head.norm.num_batches_tracked', 'rla.head.join.0.linear.weight']
    """
    where = str(source) if isinstance(source, (str, os.PathLike)) else "the given state dict"
    body = _body(model)
    own = body.state_dict()
    given = source
    if isinstance(source, (str, os.PathLike)):
        given = read_weights_file(Path(source))
    state = _in_our_names(state_dict_in(given, where), own, where, preset)
    problems = [f"missing: {key} {list(own[key].shape)}" for key in own if key not in state]
    for key in own:
        value = state.get(key)
        if key in state and not isinstance(value, Tensor):
            problems.append(f"no tensor: {key} is a {type(value).__name__}")
        elif isinstance(value, Tensor) and value.shape != own[key].shape:
            problems.append(
                f"shape: {key} is {list(value.shape)}, the backbone has {list(own[key].shape)}"
            )
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"{where} does not fit the backbone, in {len(problems)} places:\n  {listed}"
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
    return [key for key in state if key not in own]


def _body(model: nn.Module) -> Backbone:
    bodies = [module for module in model.modules() if isinstance(module, Backbone)]
    if len(bodies) != 1:
        raise CheckpointError(
            f"load_backbone: {type(model).__name__} holds {len(bodies)} backbones of "
            "rlawrap.backbone, expected one."
        )
    return bodies[0]


def _in_our_names(
    state: Mapping[str, Any], own: Mapping[str, Tensor], where: str, preset: str | None
) -> Mapping[str, Any]:
    """The state dict under the names of the classification network here."""
    if preset is not None:
        classes = [v.shape[0] for k, v in state.items() if k.endswith(_CLASSIFIERS)]
        network = get_model(preset, num_classes=classes[0]) if classes else get_model(preset)
        theirs = official_state_dict(network)
        if count_known(state, theirs) > count_known(state, network.state_dict()):
            return load_official(network, state).state_dict()
    return fit_names(state, own, where)


_CLASSIFIERS = ("fc.weight", "classifier.1.weight", "classifier.weight")
