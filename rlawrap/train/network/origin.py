"""How the network of a run is made, as a run keeps it, and finding that again later.

An origin is plain data, in a run's checkpoints beside the configuration: whose function makes the
network, in which file, and that file's SHA-256 at the time. The configuration has what the user
wrote; the origin has where that was, so that a run can be read from another folder, or says what
is missing.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rlawrap.checkpoints import describe
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models.model_registry import builder
from rlawrap.networks import find_network
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.user_code import being_imported, import_again, import_file, import_root

#: `TrainConfig.arch` of a run that was given a network instead of a name, before its class's name.
GIVEN = "given:"


def import_all(config: TrainConfig) -> None:
    """Import the files that the configuration names, which register networks."""
    for file in config.imports:
        import_file(Path(file))


def origin_of(config: TrainConfig, given: nn.Module | None = None) -> dict[str, Any]:
    """The origin of a network that `config.arch` names, or of one that was given.

    >>> origin_of(TrainConfig(arch="torchvision:resnet18"))
    {'source': 'torchvision', 'name': 'resnet18'}
    """
    if given is not None:
        return {
            "source": "given",
            "name": f"{type(given).__module__}.{type(given).__qualname__}",
            "file": _file_of(type(given)),
            "description": describe(given),
        }
    import_all(config)
    found = find_network(config.arch)
    origin: dict[str, Any] = {"source": found.source, "name": found.name}
    file = found.code.file if found.code is not None else None
    if found.source == "rlawrap" and not is_ours(found.builder):
        registered = _file_of(found.builder)
        file = None if registered is None else Path(registered)
    if file is not None:
        origin |= {"file": str(file), "sha256": _digest(file)}
    if found.code is not None and found.code.module is not None:
        origin["module"] = found.code.module
    return origin


def find_again(config: TrainConfig, origin: Mapping[str, Any], where: str) -> TrainConfig:
    """The configuration with an `arch` that gives the network of the origin here and now.

    where: the run or checkpoint, for messages. Raises `CheckpointError` when the file that makes
    the network is gone, or no longer what it was, and for a network that was given.
    """
    file = origin.get("file")
    if origin.get("source") == "given":
        raise CheckpointError(
            f"{where}: its network, of class {origin['name']}, was given to train(). Build it anew "
            f"and pass it: load_model({where!r}, model=...)."
        )
    if file is None:
        return config
    path = Path(file)
    if not path.is_file():
        form = "PACKAGE.MODULE:NAME" if "module" in origin else "FILE.py:NAME"
        raise CheckpointError(
            f"{where}: its network is made by {origin['name']} in {path}, which is not there. Put "
            f"the file back, or say where the function is now: --arch {form}."
        )
    if _digest(path) != origin["sha256"]:
        raise CheckpointError(changed_file(where, origin))
    if "module" in origin:
        return config.replace(arch=_import_module_again(origin, where))
    if origin["source"] == "code":
        return config.replace(arch=f"{path}:{origin['name']}")
    if builder(config.arch) is None:
        import_file(path)
    if builder(config.arch) is None:
        raise CheckpointError(
            f"{where}: its network {config.arch!r} was registered by {path}, which no longer does "
            "so when it is imported. Register it outside of if __name__ == '__main__'."
        )
    return config


def _import_module_again(origin: Mapping[str, Any], where: str) -> str:
    """The place of a function in a module of a package, which is imported from where it was."""
    place, path = f"{origin['module']}:{origin['name']}", Path(origin["file"])
    if not import_again(place, path):
        raise CheckpointError(
            f"{where}: its network is made by {place} in {path}, but another module is found by "
            f"that name. Work in the folder {import_root(origin['module'], path)}."
        )
    return place


def has_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the file that makes the network is another one than it was.

    >>> has_changed({"source": "timm", "name": "a"}, {"source": "timm", "name": "a"})
    False
    """
    return before.get("sha256") != now.get("sha256")


def changed_file(where: str, origin: Mapping[str, Any]) -> str:
    """The words for a network whose file has changed since."""
    module = origin.get("module")
    root = None if module is None else import_root(module, Path(origin["file"]))
    place = f"{module or origin['file']}:{origin['name']}"
    return (
        f"{where}: the file that makes its network, {origin['file']}, has changed since. Put it "
        "back as it was; or, if the weights fit what it makes now, name it yourself"
        f"{'' if root is None else f', in the folder {root}'}: "
        f"--change arch={place} to go on training, --arch {place} to evaluate."
    )


def imports_of(config: TrainConfig) -> tuple[str, ...]:
    """Files that another process must import before it finds `config.arch`, beyond its own."""
    origin = origin_of(config)
    registered = origin["source"] == "rlawrap" and "file" in origin
    if not registered or origin["file"] in config.imports:
        return config.imports
    return (*config.imports, origin["file"])


def check_not_imported(call: str) -> None:
    """Raise `ConfigError` when the script that calls is only being imported for its network."""
    place = being_imported()
    if place is not None:
        raise ConfigError(
            f"{place}: calls {call} while it is imported. Put that under "
            "if __name__ == '__main__', so that its network can be found without a run."
        )


def is_ours(function: Any) -> bool:
    """Whether a function is of this library, rather than registered by a user."""
    return str(getattr(function, "__module__", "")).startswith("rlawrap.")


def _file_of(value: Any) -> str | None:
    try:
        file = inspect.getsourcefile(inspect.unwrap(value))
    except (TypeError, OSError):
        return None
    return None if file is None else str(Path(file).resolve())


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
