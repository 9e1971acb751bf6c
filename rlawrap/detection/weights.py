"""Weights of a classification network for the backbone of a detector or segmenter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import CheckpointError
from rlawrap.official import is_official, official_leftovers
from rlawrap.official.convert import official_pieces
from rlawrap.splice.backbone import Backbone
from rlawrap.weights import fit_names, misfit, read_weights_file, state_dict_in

Source = str | os.PathLike[str] | Mapping[str, Any]


def load_backbone(model: nn.Module, source: Source) -> list[str]:
    """Fill the backbone inside a detector from a checkpoint; returns what was not used of it.

    `source`: a file of `rlawrap.save`, a state dict or a training checkpoint of the classification
    network, or a classifier or detector of the official code. Returned are the names that the
    backbone has no place for: the classifier, the last update of h, heads.

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
    given = read_weights_file(Path(source)) if isinstance(source, (str, os.PathLike)) else source
    whole = state_dict_in(given, where)
    if is_official(body, whole):
        _copy(official_pieces(body, given, where), own)
        return official_leftovers(body, given)
    state = fit_names(whole, own, where)
    problems = [f"missing: {key} {list(own[key].shape)}" for key in own if key not in state]
    problems += [
        problem
        for key, tensor in own.items()
        if key in state and (problem := misfit(key, state[key], tensor.shape, "the backbone"))
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"{where} does not fit the backbone, in {len(problems)} places:\n  {listed}"
        )
    _copy({key: state[key] for key in own}, own)
    return [key for key in state if key not in own]


def _copy(values: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for key, value in values.items():
            own[key].copy_(value)


def _body(model: nn.Module) -> Backbone:
    bodies = [module for module in model.modules() if isinstance(module, Backbone)]
    if len(bodies) != 1:
        raise CheckpointError(
            f"load_backbone: {type(model).__name__} holds {len(bodies)} backbones of "
            "rlawrap.backbone, expected one."
        )
    return bodies[0]
