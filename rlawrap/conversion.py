"""Checkpoint files between the official RLA-Net code's format and ours, in either direction."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.attention import attend
from rlawrap.checkpoints import load, save, write_whole
from rlawrap.config import variant
from rlawrap.errors import CheckpointError, ConfigError, few
from rlawrap.models import get_model, list_models
from rlawrap.official import load_official, official_leftovers, official_state_dict
from rlawrap.official.convert import official_pieces, read_official
from rlawrap.official.detectors import is_detector, read_detector, to_mmdet3
from rlawrap.official.structure import Structure, build_call, structure_of
from rlawrap.official.torchvision_names import detector_call, differences, to_torchvision
from rlawrap.splice import apply, backbone

#: Of what does not fit, so many lines are shown.
SHOWN_PROBLEMS = 4
#: What a whole detector is written for.
DETECTOR_FORMATS = ("mmdet3", "torchvision")


def convert_file(
    source: Path,
    target: Path,
    arch: str | None = None,
    *,
    num_classes: int | None = None,
    k: int | None = None,
    to: str | None = None,
) -> list[str]:
    """What `rlawrap convert` does: the direction follows from the file and from `to`.

    Returns what is to be told beside the path, each as a sentence. Raises `ConfigError` for options
    that do not go together, and what the three functions below raise.
    """
    if to is not None:
        if arch is not None or k is not None:
            raise ConfigError(
                "convert: --to reads the network off the detector's checkpoint; leave --arch and "
                "--k out."
            )
        return from_detector(source, target, to, num_classes=num_classes)
    if source.suffix == ".safetensors":
        if arch is not None or num_classes is not None or k is not None:
            raise ConfigError("convert: a file of ours knows its network; leave the options out.")
        to_official(source, target)
    elif arch is None:
        raise ConfigError(f"convert: whose weights are in {source}? Give --arch, as rla_resnet50.")
    else:
        from_official(source, target, arch, num_classes=num_classes, k=k)
    return []


def from_official(
    source: Path,
    target: Path,
    arch: str,
    *,
    num_classes: int | None = None,
    k: int | None = None,
) -> None:
    """Read a checkpoint of the official code into the preset `arch` and save it in our format.

    The number of classes is read off the classifier unless it is given. Raises `CheckpointError`
    for a file that cannot be read or does not fit, and writes nothing then.
    """
    _refuse_same_file(source, target)
    state = read_official(source)
    _refuse_detection(state, source, target, arch)
    arguments: dict[str, Any] = {"num_classes": num_classes or _classes(state, source)}
    if k is not None:
        arguments["k"] = k
    model = get_model(arch, **arguments)
    try:
        load_official(model, source)
    except CheckpointError as error:
        raise CheckpointError(_in_short(error, arch)) from None
    save(model, target)


def to_official(source: Path, target: Path) -> None:
    """Write one of our files as a checkpoint of the official code: {"state_dict": ...}.

    Raises `CheckpointError` for a model that the official code could not build.
    """
    _refuse_same_file(source, target)
    state = official_state_dict(load(source))
    write_whole(target, lambda new: torch.save({"state_dict": state}, new))


def from_detector(
    source: Path,
    target: Path,
    to: str,
    *,
    num_classes: int | None = None,
) -> list[str]:
    """Write a whole official detector for MMDetection 3.x ("mmdet3") or for "torchvision".

    The backbone's depth, attention and k are read off the file. What is written is read with
    `torch.load`: MMDetection's checkpoint, or torchvision's state dict. Returns what was left out
    and what the detector computes otherwise there, each as a sentence. Raises `CheckpointError` for
    a file that is no such detector, or not of `num_classes` classes, and writes nothing then.
    """
    if to not in DETECTOR_FORMATS:
        listed = " or ".join(f"`--to {name}`" for name in DETECTOR_FORMATS)
        raise ConfigError(f"convert: --to {to}: no such format; choose {listed}.")
    _refuse_same_file(source, target)
    if target.suffix == ".safetensors":
        raise ConfigError(
            f"convert: {to} reads what torch.save writes; name the file `{target.stem}.pth`."
        )
    detector = read_detector(source, num_classes)
    found = _network_of(detector.backbone, source)
    body = _build_backbone(found)
    pieces = official_pieces(body, detector.backbone, str(source))
    # Copies: what was split is a view, and a file would hold the whole of it.
    as_whole = torch.contiguous_format
    state = {key: pieces[key].clone(memory_format=as_whole) for key in body.state_dict()}
    told = []
    left = [f"backbone.{key}" for key in official_leftovers(body, detector.backbone)]
    if left or detector.averages:
        told.append(f"left out, as no output depends on it: {few([*left, *detector.averages])}")
    made: dict[str, Any]
    if to == "mmdet3":
        made = to_mmdet3(detector, state)
    else:
        made = to_torchvision(detector, state)
        told.append(
            f"torchvision's {detector.kind} counts {detector.classes + 1} classes: class 0 is the "
            f"background, then come the {detector.classes} in their order"
        )
        call = detector_call(detector, build_call(found, backbone=False))
        if call:
            told.append(f"after `import rlawrap.detection`, load_state_dict of `{call}` takes it")
        told += differences(detector)
    write_whole(target, lambda new: torch.save(made, new))
    return told


def _network_of(state: Mapping[str, Tensor], source: Path) -> Structure:
    """The network of an official backbone. Raises `CheckpointError` for any other."""
    found = structure_of({key: value.shape for key, value in state.items()})
    if found is None or found.k is None or found.family != "ResNet":
        raise CheckpointError(
            f"{source}: its backbone is no RLA-ResNet of the official code: it has "
            f"{few(list(state), 3)}. Where it has no hidden state, read it into the base and call "
            "`rlawrap.apply(base)`."
        )
    return found


def _build_backbone(found: Structure) -> nn.Module:
    """The backbone of that structure on the meta device: its names and shapes."""
    from torchvision.models.resnet import Bottleneck, ResNet

    blocks, groups, width = list(found.blocks), found.groups, found.width
    with torch.device("meta"):
        base = _attended(ResNet(Bottleneck, blocks, groups=groups, width_per_group=width), found)
        return backbone(apply(base, config=variant("rla", k=found.k)))


def _attended(base: nn.Module, found: Structure) -> nn.Module:
    if found.attention is None:
        return base
    kernels = dict(found.kernels)
    return attend(base, found.attention, kernel=kernels.get if kernels else None)  # type: ignore[arg-type]


def _in_short(error: CheckpointError, arch: str) -> str:
    """A message of hundreds of lines, for a checkpoint of another network, as a few."""
    first, *problems = str(error).splitlines()
    if len(problems) <= SHOWN_PROBLEMS:
        return str(error)
    near = [n for n in difflib.get_close_matches(arch, list_models(), n=5) if n != arch]
    shown = "\n".join(problems[:SHOWN_PROBLEMS])
    return (
        f"{first}\n{shown}\n  ... and {len(problems) - SHOWN_PROBLEMS} more. "
        f"Is it of --arch {arch}? Names near it: {', '.join(near)}; "
        "`rlawrap models '*rla*'` lists all."
    )


def _refuse_detection(state: Mapping[str, Any], source: Path, target: Path, arch: str) -> None:
    """A detector, or its backbone alone, is no network of `arch`, which has a classifier."""
    whole = is_detector(state)
    has_classifier = any(key.endswith("fc.weight") or "classifier." in key for key in state)
    if whole or (any(key.endswith("conv_outs.0.weight") for key in state) and not has_classifier):
        what = "the checkpoint of a whole detector" if whole else "a detector's backbone"
        file = target.with_suffix(".pth")
        to = f"`rlawrap convert {source} {file} --to mmdet3` (or torchvision) converts it whole. "
        raise CheckpointError(
            f"{source}: {what}, not of a classifier. {to if whole else ''}The backbone alone is "
            f"read with `rlawrap.load_official(rlawrap.backbone(rlawrap.models.{arch}()), "
            f"{str(source)!r})`."
        )


def _classes(state: Mapping[str, Any], source: Path) -> int:
    """Rows of the last matrix, which is the classifier's weight."""
    matrices = [v for v in state.values() if isinstance(v, Tensor) and v.dim() == 2]
    if not matrices:
        raise CheckpointError(f"{source}: holds no classifier; give the number of classes.")
    return int(matrices[-1].shape[0])


def _refuse_same_file(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise ConfigError(f"convert: {source} would be written over itself.")
