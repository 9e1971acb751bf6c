"""A configuration from a file: JSON, YAML or TOML, by the file's ending; or from JSON text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlawrap.errors import ConfigError, RLAError
from rlawrap.train.config.train_config import TrainConfig

#: A number such as 1e-4 or 1.5e4, which YAML 1.1, unlike 1.2, takes for text.
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


def read_config(source: str) -> TrainConfig:
    """A config from JSON text, or from a file such as a run's config.json.

    A file that ends in .yaml, .yml or .toml is of that format, any other is JSON. Raises
    `ConfigError`, and `RLAError` when what reads the format is not installed.

    >>> read_config('{"epochs": 3}').epochs
    3
    """
    text = source
    parse, name = FORMATS[".json"]
    if not source.lstrip().startswith("{"):
        path = Path(source)
        parse, name = FORMATS.get(path.suffix.lower(), (parse, name))
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--config {source}: cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--config {source}: not {name} ({error}).") from error
    try:
        values = parse(text)
    except ValueError as error:
        raise ConfigError(f"--config: not {name} ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config: {name}, but not an object of fields.")
    return TrainConfig.from_dict(values)


def _read_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise RLAError(
            "A config in YAML needs PyYAML. Install it with: pip install 'rlawrap[train]'"
        ) from error

    class Loader(yaml.SafeLoader):
        """A safe loader of its own, which is taught one more way of writing a number."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _read_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise RLAError(
                "A config in TOML needs tomli before Python 3.11. "
                "Install it with: pip install 'rlawrap[train]'"
            ) from error
    return tomllib.loads(text)


#: By the file's ending: what reads its text, with `ValueError` for what it cannot, and a name.
FORMATS: Mapping[str, tuple[Callable[[str], Any], str]] = MappingProxyType(
    {
        ".json": (json.loads, "JSON"),
        ".yaml": (_read_yaml, "YAML"),
        ".yml": (_read_yaml, "YAML"),
        ".toml": (_read_toml, "TOML"),
    }
)
