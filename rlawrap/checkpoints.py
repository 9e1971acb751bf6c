"""Checkpoints of whole models: `save(model, path)` and `load(path)`, without pickle.

A file is a safetensors file: every tensor once, and in its header, as JSON, what is needed to build
the model again: which network the base is, the `RLAConfig` and the plan.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rlawrap.config import RLAConfig
from rlawrap.copying import deep_copy
from rlawrap.errors import CheckpointError, RLAError
from rlawrap.files import put_in_place, usual_mode
from rlawrap.identity import identify, rebuild
from rlawrap.plan import Plan
from rlawrap.splice import RLAModel, unwrap
from rlawrap.splice.at import find_places
from rlawrap.splice.inside import rewritten_in
from rlawrap.splice.rewriting import Request
from rlawrap.splice.within import rewrite_parts
from rlawrap.weights import fit_names

VERSION = 1
_HEADER = "rlawrap"


def save(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write a model, with or without hidden state, to a safetensors file; returns its path.

    The file appears whole or not at all: it is written beside its place, flushed to the disk and
    renamed. Tensors that several modules share are stored once.

    Raises `CheckpointError` if the model has tensors without data or the file cannot be written.
    """
    path = Path(path)
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"save: expected a torch.nn.Module, got {type(model).__name__}.")
    if isinstance(model, RLAModel) and model.rla.splice.maps is not None:
        raise CheckpointError(
            "save: a backbone is a part of a model. Save the model that it was cut from, and call "
            "rlawrap.backbone on what load returns."
        )
    tensors, aliases = _unique_tensors(model)
    _write(tensors, {"version": VERSION, "aliases": aliases, **describe(model)}, path)
    return path


def describe(model: nn.Module) -> dict[str, Any]:
    """What is needed to build a model again, as plain data: base identity, config and plan."""
    parts = rewritten_in(model)
    # A backbone is no rewrite of the network that `load` is given; with it, that one must have it.
    if not parts or any(part.rla.splice.maps is not None for part in parts.values()):
        return {"base": identify(model)}
    base = unwrap(model)
    described = {
        path: _describe_part(part, base.get_submodule(path)) for path, part in parts.items()
    }
    whole = described.get("") or {"parts": described}
    return {**whole, "base": identify(base)}


def _describe_part(part: RLAModel, base: nn.Module) -> dict[str, Any]:
    """How a network is rewritten; `base` is the network without hidden state."""
    settings = part.rla.splice.settings
    return {
        "config": part.rla.config.to_dict(),
        "plan": part.rla.plan.to_dict(),
        "plan_digest": part.rla.plan.digest,
        "leaf_modules": _leaf_paths(base, settings.leaf_modules),
        "example_input": _describe_input(settings.example_input),
    }


def load(path: str | os.PathLike[str], base: nn.Module | None = None) -> nn.Module:
    """Build the model that `save` wrote, with its weights, in eval mode on the CPU.

    Networks of rlawrap, torchvision and timm are built from the file alone. For any other, pass
    `base`: the network that `apply` was called on, freshly built; it is copied, never changed. For
    a model that holds rewritten networks (`apply(model, at=...)`) that is the whole model.

    Raises `CheckpointError` for a file that is none of ours, and for one whose tensors do not fit:
    all names and shapes that are wrong are listed.
    """
    path = Path(path)
    header, state = _read(path)
    model = build_described(header, base, path)
    _fill(model, state, path)
    return model.eval()


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says about its model: version, base identity, config and plan as plain data."""
    return _open(Path(path), weights=False)[0]


def _leaf_paths(base: nn.Module, leaves: Iterable[type | str]) -> list[str]:
    """The modules that tracing kept whole, by path: classes cannot be named in a file."""
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
    paths = [leaf for leaf in leaves if isinstance(leaf, str)]
    return paths + [path for path, module in base.named_modules() if isinstance(module, classes)]


def _describe_input(value: Any) -> Any:
    """An example input as JSON: tensors by shape and type, as their values do not matter."""
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, (tuple, list)):
        kind = "list" if isinstance(value, list) else "items"
        return {kind: [_describe_input(item) for item in value]}
    if isinstance(value, dict):
        return {"named": {name: _describe_input(item) for name, item in value.items()}}
    return {"value": value} if isinstance(value, (bool, int, float, str)) else None


def _make_input(description: Any) -> Any:
    """The inverse of `_describe_input`, with zeros for the values."""
    if description is None:
        return None
    if "shape" in description:
        return torch.zeros(description["shape"], dtype=getattr(torch, description["dtype"]))
    if "items" in description:
        return tuple(_make_input(item) for item in description["items"])
    if "list" in description:
        return [_make_input(item) for item in description["list"]]
    if "named" in description:
        return {name: _make_input(item) for name, item in description["named"].items()}
    return description["value"]


def _unique_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with each tensor once, and the names under which it appears again."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"save: {key!r} in the state dict is a {type(value).__name__}, not a tensor."
            )
        if value.is_meta:
            raise CheckpointError(f"save: {key!r} is on the meta device and has no data.")
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in seen:
            aliases[key] = seen[place]
            continue
        seen[place] = key
        # Cloned where it is a view of a larger tensor: safetensors would refuse shared storage.
        plain = value.detach().cpu().contiguous()
        shared = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        tensors[key] = plain.clone() if shared else plain
    return tensors, aliases


def _write(tensors: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
    metadata = {"format": "pt", _HEADER: json.dumps(header)}
    write_whole(path, lambda new: save_file(tensors, new, metadata))


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` write a file that appears at `path` whole, on the disk, or not at all.

    Raises `CheckpointError` if it cannot be written; what was at `path` before is still there then.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}).") from error
    new = Path(name)
    try:
        write(new)
        new.chmod(usual_mode())
        put_in_place(new, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}).") from error
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header, state = _open(path, weights=True)
    for alias, key in header.get("aliases", {}).items():
        if key not in state:
            raise CheckpointError(f"{path}: {alias!r} is said to be {key!r}, which is not there.")
        state[alias] = state[key]
    return header, state


def _open(path: Path, *, weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.exists():
        raise CheckpointError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            names = list(file.keys()) if weights and text else []
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}). A run folder or a checkpoint of "
            f"`rlawrap train` is read by rlawrap.train.load_model({str(path)!r}), an official "
            "checkpoint by rlawrap.load_official(model, path)."
        ) from error
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but not one that rlawrap.save wrote. Build the model and "
            "read it with `safetensors.torch.load_file(path)`."
        )
    try:
        header = json.loads(text)
        version = header["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}).") from error
    if version != VERSION:
        raise CheckpointError(
            f"{path}: written in format {version!r}; this rlawrap reads format {VERSION}."
        )
    return header, state


def build_described(
    header: Mapping[str, Any], base: nn.Module | None, path: str | os.PathLike[str]
) -> nn.Module:
    """The model that `describe` described, with fresh weights; `base` as for `load`."""
    described = _rewrites(header)
    if base is None:
        with torch.random.fork_rng(devices=[]):
            try:
                base = rebuild(header["base"])
            except RLAError as error:
                raise CheckpointError(f"{path}: {error}") from error
    elif not described:
        return deep_copy(base)
    if not described:
        return base
    try:
        requests = {place: _request(own) for place, own in described.items()}
        if "" not in requests:
            find_places(base, list(requests), "load")
        model = rewrite_parts(base, requests)
    except RLAError as error:
        raise CheckpointError(
            f"{path}: its plan does not fit {type(base).__name__}: {error}"
        ) from error
    for place, part in rewritten_in(model).items():
        if part.rla.plan.digest != described[place].get("plan_digest"):
            raise CheckpointError(
                f"{path}: its plan and the plan's digest disagree; the file was altered."
            )
    return model


def _rewrites(header: Mapping[str, Any]) -> dict[str, Any]:
    """By path what a file says of each rewritten network in its model; "" is the model itself."""
    return {"": header} if "config" in header else dict(header.get("parts", {}))


def _request(described: Mapping[str, Any]) -> Request:
    return Request(
        config=RLAConfig.from_dict(described["config"]),
        plan=Plan.from_dict(described["plan"]),
        leaf_modules=described["leaf_modules"],
        example_input=_make_input(described["example_input"]),
    )


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load the weights, or list everything that does not fit and change nothing."""
    own = model.state_dict()
    state = fit_names(state, own, path)
    problems = [f"missing in the file: {key}" for key in own if key not in state]
    problems += [f"not in the model: {key}" for key in state if key not in own]
    problems += [
        f"{key}: the file has {tuple(state[key].shape)}, the model {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}, in {len(problems)} places:\n  {listed}"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in state and tensor.dtype != state[name].dtype:
            tensor.data = tensor.data.to(state[name].dtype)
    model.load_state_dict(state)
