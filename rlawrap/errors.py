"""The errors and the warning of rlawrap. Catch `RLAError` to catch all errors."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

# A byte of a file's name that is no UTF-8 is one such character in it (PEP 383).
_BYTES = re.compile("[\udc80-\udcff]")


class RLAError(Exception):
    """Base of every error raised on purpose; its message says what was wrong and what to do.

    told_by_first: process 0 of a run has the same error and tells it, so nobody else need.
    restart_may_help: torchrun may start the processes again, which go on from the last checkpoint.
    whole: the message without its advice, where a part of the network may do what the whole cannot.
    """

    told_by_first = False
    restart_may_help = False
    whole: str | None = None


class ConfigError(RLAError, ValueError):
    """An option or a combination of options that no model can be built from."""


class TraceError(RLAError):
    """`torch.fx` cannot follow the model's `forward`; the message names the module and line."""


class PlanError(RLAError):
    """No blocks were found, or a plan does not fit the model it is applied to."""


class CheckpointError(RLAError):
    """A file that cannot be read, or that belongs to another model."""


class ExportError(RLAError):
    """A network that cannot be exported, or a file that does not compute what it does."""


class DataError(RLAError):
    """A data set that is missing, empty or damaged."""


class UnreadableError(DataError):
    """A file that the file system did not give: gone, forbidden, or on a disk that fails."""


class LoaderError(DataError):
    """The loader processes cannot be started, or one of them is gone or hangs."""

    restart_may_help = True


class TrainError(RLAError):
    """A training run that cannot start, resume or go on."""


class RLAWarning(UserWarning):
    """An option without effect on the given network, or what a rewritten network cannot do."""


Kind = TypeVar("Kind", bound=RLAError)


def for_whole(kind: type[Kind], text: str, otherwise: str = "") -> Kind:
    """An error of a network as a whole, with what to do where no part of it can be rewritten."""
    error = kind(f"{text} {otherwise}".rstrip())
    error.whole = text
    return error


def few(names: Sequence[str], most: int = 8) -> str:
    """Names for a message, cut short when they are many.

    >>> few(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """A sentence on the nearest of the known names, as it is `shown`; nothing where none is near.

    >>> did_you_mean("chanels", ["channels", "size"], "{}=".format)
    ' Did you mean channels=?'
    >>> did_you_mean("xyz", ["channels", "size"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {shown(near[0])}?" if near else ""


def spelled(path: str, root: Any = None) -> str:
    """How a module is reached from the model, as Python code; `root` is the model, where known.

    >>> spelled("body.0.conv")
    'model.body[0].conv'
    """
    text, module = "model", root
    for name in path.split("."):
        indexed = name.isdigit() and (module is None or hasattr(module, "__getitem__"))
        if indexed and not hasattr(module, "keys"):
            text += f"[{name}]"
        elif name.isidentifier() and not keyword.iskeyword(name):
            text += f".{name}"
        else:
            text += f"[{name!r}]" if hasattr(module, "keys") else f"._modules[{name!r}]"
        module = None if module is None else module._modules[name]
    return text


def printable(text: str) -> str:
    r"""A text with those bytes of file names that are no UTF-8 as Python writes them.

    >>> printable("caf\udce9")
    'caf\\xe9'
    """
    return _BYTES.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
