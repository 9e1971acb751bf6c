"""A function of the user's own by its place: `file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from rlawrap.errors import ConfigError

_importing: ContextVar[str | None] = ContextVar("_importing", default=None)


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """What a place named, imported. file: where its source is; None for code without one.

    module: the name it was imported by, where that is of a package: its file alone may import
    relatively, and cannot be run without the package.
    """

    place: str
    value: Any
    file: Path | None
    module: str | None = None


def is_place(text: str) -> bool:
    """Whether a text has the form of a place: something before and a name after a colon.

    >>> is_place("nets/mine.py:small"), is_place("mine.nets:small"), is_place("resnet18")
    (True, True, False)
    """
    home, colon, name = text.rpartition(":")
    return bool(colon and home) and all(part.isidentifier() for part in name.split("."))


def find_code(place: str) -> UserCode:
    """Import the file or module of a place, and what it names there.

    A file is found from the current folder and imported once; files beside it can be imported by
    it, as when it is run. A module is imported as Python does it, from the current folder too.
    Raises `ConfigError` when it is not there or fails, with the nearest names.
    """
    home, _, name = place.rpartition(":")
    module = import_file(Path(home), place) if _is_file(home) else _import_module(home, place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise ConfigError(
                f"{place}: {home} has no {part!r}.{_hint(part, value)} Write {home}:NAME with the "
                "name of a function or class there that gives the network."
            )
        value = getattr(value, part)
    file = getattr(module, "__file__", None)
    return UserCode(
        place=place,
        value=value,
        file=None if file is None else Path(file).resolve(),
        module=home if not _is_file(home) and module.__package__ else None,
    )


def import_root(module: str, file: Path) -> Path | None:
    """The folder from which a module of that name is imported; None where its file does not tell.

    >>> str(import_root("pkg.model", Path("/code/pkg/model.py")))
    '/code'
    >>> str(import_root("pkg", Path("/code/pkg/__init__.py")))
    '/code'
    """
    inner = file.parent if file.name == "__init__.py" else file.with_suffix("")
    parts = module.split(".")
    return inner.parents[len(parts) - 1] if inner.parts[-len(parts) :] == tuple(parts) else None


def import_again(place: str, file: Path) -> bool:
    """Import the module of a place from where its file is; whether it is that file's now.

    Another module of that name may be there first. Raises `ConfigError` where it fails.
    """
    home = place.rpartition(":")[0]
    with importable(import_root(home, file) or Path.cwd()):
        found = getattr(_import_module(home, place), "__file__", None)
    return found is not None and Path(found).resolve() == file


def being_imported() -> str | None:
    """The file that is being imported to find a network in it, if one is."""
    return _importing.get()


def _is_file(home: str) -> bool:
    return home.endswith(".py") or "/" in home or "\\" in home


class _ContentLoader(SourceFileLoader):
    """Runs a content that was read, whatever Python has cached of its file.

    Python takes the cache for that of a file of the same second and size.
    """

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self.content = content

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.content, self.path)


def import_file(path: Path, place: str | None = None) -> ModuleType:
    """The module that a file of Python gives, imported once for each content of it.

    place: what the user wrote, for messages. Raises `ConfigError` as `find_code` does.
    """
    path = path.expanduser().resolve()
    place = place or str(path)
    if not path.is_file():
        raise ConfigError(f"{place}: there is no file {path}.")
    content = path.read_bytes()
    # One module for one content, so that classes stay the same from call to call.
    digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:12]
    name = f"rlawrap_user_code_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{place}: {path} is not a file of Python.")
    if type(spec.loader) is SourceFileLoader:
        spec.loader = _ContentLoader(name, str(path), content)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _described(place, path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(home: str, place: str) -> ModuleType:
    if not all(part.isidentifier() for part in home.split(".")):
        raise ConfigError(
            f"{place}: {home!r} is neither a file (NAME.py) nor the name of a module."
        )
    with _described(place, Path.cwd()):
        return importlib.import_module(home)


@contextmanager
def _described(place: str, folder: Path) -> Iterator[None]:
    """While entered, `folder` can be imported from; what fails says whose code it was."""
    token = _importing.set(place)
    try:
        with importable(folder):
            yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == place.split(":")[0]:
            raise ConfigError(
                f"{place}: there is no module {error.name}, neither installed nor in {folder}."
            ) from None
        if isinstance(error, ImportError) and "relative import" in str(error) and ":" in place:
            raise ConfigError(_as_module(place, folder, error)) from error
        raise ConfigError(
            f"{place}: cannot be imported: {type(error).__name__}: {error}. What the file does "
            "beyond defining functions belongs under if __name__ == '__main__'."
        ) from error
    finally:
        _importing.reset(token)


def _as_module(place: str, folder: Path, error: ImportError) -> str:
    """The words for a file that imports relatively, as only a module of a package can."""
    home, _, name = place.rpartition(":")
    root, package = folder.parent, [folder.name]
    while (root / "__init__.py").is_file():
        root, package = root.parent, [root.name, *package]
    return (
        f"{place}: cannot be imported as a file of its own: {error}. It is part of a package: name "
        f"it as PACKAGE.MODULE:NAME from the folder that the package is in, which is "
        f"{'.'.join(package)}.{Path(home).stem}:{name} in {root}."
    )


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let Python import from a folder for a while, after all that it finds by itself."""
    text = str(folder)
    if text in sys.path:
        yield
        return
    sys.path.append(text)
    try:
        yield
    finally:
        if text in sys.path:
            sys.path.remove(text)


def _hint(name: str, home: Any) -> str:
    public = [n for n in vars(home) if not n.startswith("_")] if hasattr(home, "__dict__") else []
    made_here = getattr(home, "__name__", None)
    own = [n for n in public if getattr(getattr(home, n), "__module__", None) == made_here]
    near = difflib.get_close_matches(name, own or public, n=3)
    shown = near or [n for n in own if isinstance(getattr(home, n), Callable)][:5]  # type: ignore[arg-type]
    return f" Nearest: {', '.join(shown)}." if shown else ""
