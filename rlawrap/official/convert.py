"""Read and write the official code's checkpoints by splitting and joining weight columns."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlawrap.config import variant
from rlawrap.errors import CheckpointError, few
from rlawrap.official.entries import Entry, Layout
from rlawrap.official.layout import layout_of, official_layout
from rlawrap.official.structure import build_call, difference, structure_of
from rlawrap.splice import RLAModel
from rlawrap.weights import (
    WRAPPERS,
    count_known,
    fit_names,
    misfit,
    read_weights_file,
    state_dict_in,
)

Model = TypeVar("Model", bound=nn.Module)
Source = str | os.PathLike[str] | Mapping[str, Any]

#: What the names of a detector's other tensors begin with in MMDetection.
DETECTOR_PARTS = ("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.", "ema_")


def load_official(model: Model, source: Source) -> Model:
    """Load weights of the official RLA-Net code into a preset, in place; returns the model.

    `source` is a file, a state dict or a training checkpoint (a dict with "state_dict"), with or
    without `module.`, `_orig_mod.`, `model.` and the like before its keys. It goes by structure:
    any depth, width, k and number of classes. No code in a file is run.

    A `rlawrap.backbone` takes the backbone of an official detector, alone or in the checkpoint of
    the whole detector, and the checkpoint of a classifier; `official_leftovers` names what it has
    no place for.

    Raises `CheckpointError` for a file that cannot be read so, and for one that does not fit: every
    missing, unexpected and misshapen tensor is listed, and the model is left as it was.

    >>> import rlawrap
    >>> model = rlawrap.models.rla_mobilenetv2_k6()
    >>> state = rlawrap.official_state_dict(model)
    >>> load_official(model, {"epoch": 3, "state_dict": state}) is model
    True
    """
    pieces = official_pieces(model, source)
    own = model.state_dict()
    with torch.no_grad():
        for key, value in pieces.items():
            own[key].copy_(value)
    return model


def official_pieces(
    model: nn.Module, source: Source, where: str | None = None
) -> dict[str, Tensor]:
    """The tensors of `source` under our keys, in our shapes; the model may be on the meta device.

    `where` is what messages call it; by default its path, if it is a file. Raises
    `CheckpointError` as `load_official` does.
    """
    where = where or _named(source)
    layout = layout_of(model)
    state = _fitted(layout, source, where)
    own = model.state_dict()
    pieces: dict[str, Tensor] = {}
    problems: list[str] = []
    for entry in layout.entries:
        wanted = _shape(entry, own)
        value = state.get(entry.key)
        if entry.key not in state:
            if entry.parts:
                problems.append(f"missing: {entry.key} {list(wanted)}")
        elif problem := misfit(entry.key, value, wanted, "the model"):
            problems.append(problem)
        else:
            pieces.update(_split(entry, state[entry.key], own))
    known = {entry.key for entry in layout.entries}
    problems += [
        f"unexpected: {key}" for key in state if key not in known and not _is_left_out(key, layout)
    ]
    if problems:
        _refuse_other_network(model, layout, state, where)
        listed = "\n  ".join(problems)
        why = _other_structure(model, layout, state)
        raise CheckpointError(
            f"{where} does not fit {type(model).__name__}, in {len(problems)} places:{why}\n  "
            f"{listed}"
        )
    return pieces


def is_official(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of the official code rather than the model's own.

    >>> import rlawrap
    >>> model = rlawrap.models.rla_mobilenetv2_k6()
    >>> is_official(model, rlawrap.official_state_dict(model))
    True
    >>> is_official(model, model.state_dict())
    False
    """
    try:
        theirs = [entry.key for entry in official_layout(model)]
    except CheckpointError:  # the official code has no such network
        return False
    return count_known(state, theirs) > count_known(state, model.state_dict())


def official_leftovers(model: nn.Module, source: Source) -> list[str]:
    """The tensors of an official checkpoint that a backbone has no place for, by their names.

    Those are the classifier's, other parts of a detector, and the last update of h, which no map
    depends on. A whole network has a place for all.

    >>> import rlawrap
    >>> model = rlawrap.models.rla_mobilenetv2_k6()
    >>> state = rlawrap.official_state_dict(model)
    >>> body = rlawrap.load_official(rlawrap.backbone(model), state)
    >>> official_leftovers(body, state)[-2:]
    ['classifier.1.weight', 'classifier.1.bias']
    """
    taken = {entry.key for entry in official_layout(model) if entry.parts}
    inside, others = _backbone_part(read_official(source))
    fitted = fit_names({key: key for key in inside}, taken, _named(source))
    return [name for key, name in fitted.items() if key not in taken] + list(others)


def official_state_dict(model: nn.Module, leftovers: Source | None = None) -> dict[str, Tensor]:
    """The model's weights under the official keys, in the official shapes and order; copies.

    A backbone gets the keys of the official one for detection. What that has beyond ours, the norm
    of the last update of h, comes from `leftovers`, an official checkpoint, and starts as the
    official code starts it where there is none: norms as the identity, convolutions Kaiming-normal
    by fan out, the same on every call. Raises `CheckpointError` for a model that the official code
    could not build.

    >>> import rlawrap
    >>> state = official_state_dict(rlawrap.models.rla_resnet50())
    >>> state["stages.0.0.conv1.weight"].shape
    torch.Size([64, 96, 1, 1])
    """
    layout = layout_of(model)
    own = model.state_dict()
    rest = {} if leftovers is None else _fitted(layout, leftovers, _named(leftovers))
    made = {}
    for entry in layout.entries:
        if entry.shape is not None and not entry.parts:
            made[entry.key] = _leftover(entry.key, entry.shape, rest, own)
        elif entry.axis is None:
            made[entry.key] = own[entry.parts[0]].clone()
        else:
            made[entry.key] = torch.cat([own[part] for part in entry.parts], dim=entry.axis)
    return made


def read_official(source: Source) -> Mapping[str, Any]:
    """The state dict in a file or a mapping, under the names that it has there."""
    if isinstance(source, (str, os.PathLike)):
        return state_dict_in(read_weights_file(Path(source)), str(source))
    return state_dict_in(source, "the given checkpoint")


def _named(source: Source) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else "the given state dict"


def _fitted(layout: Layout, source: Source, where: str) -> dict[str, Any]:
    """A source under the official names; for a backbone, without the rest of a detector."""
    state = read_official(source)
    if layout.is_backbone:
        state = _backbone_part(state)[0]
    return fit_names(state, [entry.key for entry in layout.entries], where)


def _backbone_part(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The tensors below `backbone.`, whatever stands before it, and the rest; or all, and none."""
    inside = {key: value for key, value in state.items() if is_below_backbone(key)}
    if not inside:
        return state, {}
    return inside, {key: value for key, value in state.items() if key not in inside}


def is_below_backbone(key: str) -> bool:
    """Whether a name is of a detector's backbone, whatever wrappers stand around.

    >>> is_below_backbone("module.backbone.conv1.weight"), is_below_backbone("neck.backbone.weight")
    (True, False)
    """
    for part in key.split(".")[:-1]:
        if part == "backbone":
            return True
        if part not in WRAPPERS:
            return False
    return False


def _is_left_out(key: str, layout: Layout) -> bool:
    return layout.is_backbone and key.startswith((*layout.left_out, *DETECTOR_PARTS))


def _refuse_other_network(
    model: nn.Module, layout: Layout, state: Mapping[str, Any], where: str
) -> None:
    """Refuse, in place of a list of all tensors, what is no such network for a reason of its own.

    Raises `CheckpointError` for a detector's backbone that a classifier is to take, and for a
    file without any backbone.
    """
    name = type(model).__name__
    bare = [key for key in state if not key.startswith(DETECTOR_PARTS)]
    if state and not bare:
        raise CheckpointError(
            f"{where} does not fit {name}: it has no backbone, but {few(list(state), 3)}. Give the "
            "checkpoint of the whole detector, or a state dict of its backbone."
        )
    if layout.is_backbone or not isinstance(model, RLAModel):
        return
    ends = ("conv2.", "bn2.", "fc.", "classifier.")
    head = [entry.key for entry in layout.entries if entry.key.startswith(ends)]
    body = [entry.key for entry in layout.entries if entry.key not in head]
    fitting = {key.partition("backbone.")[2] or key for key in state}
    if head and not fitting & set(head) and fitting >= set(body):
        call = "rlawrap.load_official(rlawrap.backbone(model), source)"
        parts = " and ".join(dict.fromkeys(key.partition(".")[0] for key in head))
        raise CheckpointError(
            f"{where} is the backbone of a detector: it has no {parts}, which {name} has. Read it "
            f"into the part that makes the feature maps: `{call}`."
        )


def _other_structure(model: nn.Module, layout: Layout, state: Mapping[str, Any]) -> str:
    """How the network of a state dict differs from the model, and the call that builds it."""
    own = model.state_dict()
    found = structure_of({k: v.shape for k, v in state.items() if isinstance(v, Tensor)})
    wanted = structure_of({entry.key: _shape(entry, own) for entry in layout.entries})
    if wanted is not None and layout.is_backbone and found is not None:
        # Stages behind the last map are none that the file has too many.
        stages = len(wanted.blocks)
        whole = [len(stage.blocks) for stage in _plan_stages(model)]
        if tuple(whole) == found.blocks and stages < len(whole):
            return ""
    told = difference(found, wanted)
    if not told or found is None:
        return f" {told}." if told else ""
    if found.k is None and isinstance(model, RLAModel):
        return (
            f" {told}. Read it into the base with `base.load_state_dict(state, strict=False)`, and "
            "then call `rlawrap.apply(base)`."
        )
    config = model.rla.config if isinstance(model, RLAModel) else variant("rla")
    default = config.with_options(k=32, init="paper") == variant("rla")
    if found.family != "ResNet" or not default:
        return f" {told}."
    return f" {told}. Read it into `{build_call(found, backbone=layout.is_backbone)}`."


def _plan_stages(model: nn.Module) -> tuple[Any, ...]:
    return model.rla.plan.stages if isinstance(model, RLAModel) else ()


def _leftover(
    key: str, shape: tuple[int, ...], rest: Mapping[str, Any], own: Mapping[str, Tensor]
) -> Tensor:
    """An official tensor that a backbone was cut of: the one that was kept, or as it starts."""
    kept = rest.get(key)
    like = next(value for value in own.values() if value.is_floating_point())
    if isinstance(kept, Tensor):
        if tuple(kept.shape) != shape:
            raise CheckpointError(
                f"leftovers: {key} is {list(kept.shape)}, the model's would be {list(shape)}. Give "
                "the checkpoint that the backbone was read from."
            )
        return kept.detach().clone().to(like.device)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long, device=like.device)
    if len(shape) > 1:
        # A generator of its own, so that the caller's random numbers stay as they were.
        draws = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        deviation = math.sqrt(2 / (shape[0] * math.prod(shape[2:])))
        made = torch.randn(shape, generator=draws) * deviation
    else:
        made = torch.full(shape, 0.0 if key.endswith(("bias", "running_mean")) else 1.0)
    return made.to(like)


def _shape(entry: Entry, own: Mapping[str, Tensor]) -> tuple[int, ...]:
    if entry.shape is not None:
        return entry.shape
    shape = list(own[entry.parts[0]].shape)
    if entry.axis is not None:
        shape[entry.axis] = sum(own[part].shape[entry.axis] for part in entry.parts)
    return tuple(shape)


def _split(entry: Entry, value: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if entry.axis is None:
        return dict.fromkeys(entry.parts, value)
    sizes = [own[part].shape[entry.axis] for part in entry.parts]
    return dict(zip(entry.parts, value.split(sizes, dim=entry.axis), strict=True))
