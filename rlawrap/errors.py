"""The errors and the warning of rlawrap. Catch `RLAError` to catch all errors."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A byte of a file's name that is no UTF-8 is one such character in it (PEP 383).
_BYTES = re.compile("[\udc80-\udcff]")


class RLAError(Exception):
    """Base of every error raised on purpose; its message says what was wrong and what to do.

    told_by_first: process 0 of a run has the same error and tells it, so nobody else need.
    """

    told_by_first = False


class ConfigError(RLAError, ValueError):
    """An option or a combination of options that no model can be built from."""


class TraceError(RLAError):
    """`torch.fx` cannot follow the model's `forward`; the message names the module and line."""


class PlanError(RLAError):
    """No blocks were found, or a plan does not fit the model it is applied to."""


class CheckpointError(RLAError):
    """A file that cannot be read, or that belongs to another model."""


class DataError(RLAError):
    """A data set that is missing, empty or damaged."""


class UnreadableError(DataError):
    """A file that the file system did not give: gone, forbidden, or on a disk that fails."""


class TrainError(RLAError):
    """A training run that cannot start, resume or go on."""


class RLAWarning(UserWarning):
    """An option without effect on the given network, or what a rewritten network cannot do."""


def few(names: Sequence[str], most: int = 8) -> str:
    """Names for a message, cut short when they are many.

    >>> few(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def spelled(path: str) -> str:
    """How a module is reached from the model, for a message.

    >>> spelled("body.0.conv")
    'model.body[0].conv'
    """
    return "model" + "".join(f"[{a}]" if a.isdigit() else f".{a}" for a in path.split("."))


def printable(text: str) -> str:
    r"""A text with those bytes of file names that are no UTF-8 as Python writes them.

    >>> printable("caf\udce9")
    'caf\\xe9'
    """
    return _BYTES.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
