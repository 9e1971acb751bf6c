"""Files of weights from anywhere: read without running code, and their names brought to ours.

Every reader of weights that a user brings goes through here, so that a prefix or a file that one
of them understands is understood by all.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlawrap import _torch
from rlawrap.errors import CheckpointError, few

T = TypeVar("T")

#: What training code puts a network into: DataParallel and DDP, `torch.compile`, Lightning and
#: other frameworks, whose attribute the network then is.
WRAPPERS = frozenset(
    {
        *("module", "_orig_mod", "model", "backbone", "net", "network", "encoder", "_model"),
        *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    }
)
#: Those that stand around parts of a network as well.
INNER_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)

#: Where training code keeps the state dict in what it saves; averaged weights come first.
CONTAINERS = (
    *("ema", "state_dict_ema", "model_ema", "model", "state_dict", "model_state_dict"),
    *("net", "network", "weights"),
)


def read_weights_file(path: Path) -> Any:
    """The content of a safetensors file, or of what `torch.save` wrote; no code in it is run.

    Raises `CheckpointError`.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a whole safetensors file ({error}).") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    return parse_weights(content, path)


def parse_weights(content: bytes | bytearray, where: Path | str) -> Any:
    """What `torch.save` wrote, on the CPU: tensors and plain values. Raises `CheckpointError`.

    The message is never torch's own, which advises to load the file without this protection.
    """
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes surface as whatever the unpickler trips over
        raise CheckpointError(f"{where}: {_why_unreadable(error)}") from error


def _why_unreadable(error: Exception) -> str:
    text = str(error)
    save_weights = (
        "Where the file was made, save the weights alone: torch.save(model.state_dict(), FILE)"
    )
    if "TorchScript" in text:
        return f"a TorchScript archive, not weights. {save_weights}."
    named = re.search(r"GLOBAL (\S+)", text)
    if named:
        return (
            f"holds more than weights and might run code, so it was not loaded: it names "
            f"{named[1].rstrip('.,')}. {save_weights}."
        )
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return (
            "no checkpoint, a damaged one, or one that holds more than weights; not loaded: "
            "its bytes are no pickle of tensors."
        )
    return f"cannot be read, it is damaged or no checkpoint ({_torch.first_line(error)})."


def state_dict_in(loaded: Any, where: Path | str) -> Mapping[str, Any]:
    """The state dict in what a file holds: a checkpoint has it under one of `CONTAINERS`.

    Raises `CheckpointError` for what holds none.

    >>> state_dict_in({"epoch": 3, "state_dict": {"fc.bias": 1}}, "file")
    {'fc.bias': 1}
    """
    if isinstance(loaded, Mapping):
        inside = (loaded.get(name) for name in CONTAINERS)
        loaded = next((value for value in inside if _is_state_dict(value)), loaded)
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise CheckpointError(
            f"{where}: expected a state dict, or a checkpoint with one under 'state_dict'; got "
            f"{type(loaded).__name__}."
        )
    return loaded


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(n, str) for n in value)


def fit_names(state: Mapping[str, T], own: Collection[str], where: Path | str) -> dict[str, T]:
    """A state dict without the `WRAPPERS` before its names that the network `own` does not have.

    One prefix is dropped from all names, or as much of it as they have: the one after which most
    names are the network's; of several, what stands around all names. Raises `CheckpointError`
    where two tensors would have one name.

    >>> fit_names({"module._orig_mod.fc.weight": 1, "steps": 2}, ["fc.weight"], "file")
    {'fc.weight': 1, 'steps': 2}
    >>> fit_names({"backbone.fc.weight": 1}, ["backbone.fc.weight"], "file")
    {'backbone.fc.weight': 1}
    >>> fit_names({"module.fc.weight": 1, "module.top.weight": 2}, ["fc.weight"], "file")
    {'fc.weight': 1, 'top.weight': 2}
    """
    known = set(own)
    prefix = _best_prefix(state, known)
    fitted: dict[str, T] = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        new = _fitted(name, prefix, known)
        if new in fitted:
            raise CheckpointError(
                f"{where}: {origin[new]} and {name} would both be {new} of the network. Save one "
                "state dict in a file of its own."
            )
        fitted[new], origin[new] = value, name
    return fitted


def count_known(state: Collection[str], own: Collection[str]) -> int:
    """How many names of a state dict are a network's, its prefixes dropped as `fit_names` does."""
    known = set(own)
    return _hits(state, known, _best_prefix(state, known))


def _best_prefix(names: Collection[str], known: set[str]) -> str:
    prefixes = sorted({prefix for name in names for prefix in _prefixes(name)}, key=len)
    hits = {prefix: _hits(names, known, prefix) for prefix in prefixes}
    best = max(prefixes, key=hits.__getitem__, default="")
    # Of those that do as well what stands around everything goes, also from unknown names.
    around = [p for p in prefixes if all(name.startswith(p) for name in names)]
    return max([best, *(p for p in around if hits[p] == hits[best])], key=len)


def _prefixes(name: str) -> list[str]:
    """The chains of wrappers that a name begins with, from none on."""
    found = [""]
    for part in name.split(".")[:-1]:
        if part not in WRAPPERS:
            break
        found.append(f"{found[-1]}{part}.")
    return found


def _fitted(name: str, prefix: str, known: set[str]) -> str:
    """A name without the prefix, or without as much of it as the name has."""
    shared = max((own for own in _prefixes(name) if prefix.startswith(own)), key=len)
    rest = name.removeprefix(shared)
    if rest not in known:
        short = ".".join(part for part in rest.split(".") if part not in INNER_WRAPPERS)
        return short if short in known else rest
    return rest


def _hits(names: Iterable[str], known: set[str], prefix: str) -> int:
    return sum(_fitted(name, prefix, known) in known for name in names)


def misfit(name: str, value: Any, wanted: Iterable[int], of: str) -> str | None:
    """What is wrong with a value for a tensor of this shape of `of`, as a line; None if nothing.

    >>> misfit("fc.bias", torch.zeros(2), (3,), "the model")
    'shape: fc.bias is [2], the model has [3]'
    """
    if not isinstance(value, Tensor):
        return f"no tensor: {name} is a {type(value).__name__}"
    if tuple(value.shape) != tuple(wanted):
        return f"shape: {name} is {list(value.shape)}, {of} has {list(wanted)}"
    return None


def only_tensors(state: Mapping[str, Any], where: Path | str) -> dict[str, Tensor]:
    """The tensors of a state dict. Raises `CheckpointError` when there is none."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{where}: holds no weights, but {few(list(state), 5) or 'nothing'}.")
    return tensors
