"""What a forward does besides computing tensors, which a traced graph would not do again.

Gradients or autocast switched on and off, numbers drawn outside the graph, buffers and attributes
set: the first three and the buffers are errors, an attribute is told of. Whatever tracing did to
the shadow and to the random generators is undone.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn


def random_states() -> tuple[Any, ...]:
    """The states of Python's and NumPy's generators, whose numbers no graph draws again."""
    numpy = sys.modules.get("numpy")
    numbers = None if numpy is None else numpy.random.get_state(legacy=False)
    if numpy is not None and numbers is not None:
        state = {**numbers["state"], "key": numbers["state"].get("key", numpy).tobytes()}
        numbers = {**numbers, "state": state}
    return random.getstate(), numbers


@contextmanager
def random_generators_kept() -> Iterator[None]:
    """Put the generators of PyTorch, Python and NumPy back afterwards."""
    numpy = sys.modules.get("numpy")
    numbers = None if numpy is None else numpy.random.get_state(legacy=False)
    tensors, python = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(tensors)
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numbers)


class Modes:
    """Whether the code that makes a node has switched gradients or autocast since the start."""

    def __init__(self) -> None:
        self._gradients = self._now()
        self._autocasts = 0

    @staticmethod
    def _now() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def switched(self) -> str | None:
        """What was switched, in words; None if nothing was."""
        if self._autocasts:
            return "switches autocast for a part of it"
        if self._now() != self._gradients:
            return "switches gradients for a part of it (torch.no_grad, torch.inference_mode)"
        return None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the autocast regions that are entered: one may leave the global state as it was."""
        enter, leave = torch.autocast.__enter__, torch.autocast.__exit__
        thread = threading.get_ident()

        def entered(region: Any) -> Any:
            self._autocasts += threading.get_ident() == thread
            return enter(region)

        def left(region: Any, *error: Any) -> Any:
            self._autocasts -= threading.get_ident() == thread
            return leave(region, *error)

        with (
            mock.patch.object(torch.autocast, "__enter__", entered),
            mock.patch.object(torch.autocast, "__exit__", left),
        ):
            yield


@dataclass(frozen=True)
class _Kept:
    attributes: dict[str, Any]
    contents: dict[str, Any]
    buffers: dict[str, Any]
    parameters: dict[str, Any]
    modules: dict[str, Any]


class Attributes:
    """The attributes of every module of a network before it is traced."""

    def __init__(self, root: nn.Module) -> None:
        self._kept = [(path, module, _keep(module)) for path, module in root.named_modules()]

    def undo(
        self, whole: Collection[str] = ()
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Put everything back. (module path, name) of plain attributes that were set; of others.

        The others are buffers, parameters and modules. A buffer that was overwritten in place
        (`self.steps += 1`) is neither: the graph does so, too. Nor are those of the modules at and
        below the paths `whole`, which run as they are.
        """
        plain: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for path, module, kept in self._kept:
            now = _attributes(module)
            for name in {**kept.attributes, **now}:
                if name in ("_buffers", "_parameters", "_modules"):
                    continue
                before, after = kept.attributes.get(name, _MISSING), now.get(name, _MISSING)
                changed = not _same(before, after)
                if name in kept.contents and not _same_contents(before, kept.contents[name]):
                    refill(before, kept.contents[name])
                    changed = True
                if changed:
                    plain.append((path, name))
                    _set(module, name, before)
            for kind in ("buffers", "parameters", "modules"):
                table, was = vars(module)[f"_{kind}"], getattr(kept, kind)
                for name in {**was, **table}:
                    value = table.get(name, _MISSING)
                    if value is was.get(name, _MISSING):
                        continue
                    others.append((path, name))
                table.clear()
                table.update(was)
        return _outside(plain, whole), _outside(others, whole)


class Settings:
    """What the modules that are kept whole hold, to tell whether others changed it.

    A graph calls such a module as it is; what the code around it wrote into it would be lost.
    """

    def __init__(self, root: nn.Module) -> None:
        self._kept = {id(module): _held(module) for module in root.modules()}

    def changed(self, whole: nn.Module, at: str) -> str | None:
        """What was given another value in the module at a path, or below it, in words."""
        for path, module in whole.named_modules():
            kept, now = self._kept.get(id(module), {}), _held(module)
            for name in {**kept, **now}:
                if not _same(kept.get(name, _MISSING), now.get(name, _MISSING)):
                    what = f"{path}.{name}".lstrip(".")
                    return f"gives {what!r} of its module {at!r} another value"
        return None

    def keep(self, whole: nn.Module) -> None:
        """Take what a module has changed itself."""
        for module in whole.modules():
            self._kept[id(module)] = _held(module)


def _held(module: nn.Module) -> dict[str, Any]:
    """Parameters, buffers and modules, and plain attributes."""
    space = {k: v for k, v in vars(module).items() if k != "training" and not k.startswith("_")}
    return {**space, **module._parameters, **module._buffers, **module._modules}


def _outside(found: list[tuple[str, str]], whole: Collection[str]) -> list[tuple[str, str]]:
    return [(p, n) for p, n in found if not any(p == w or p.startswith(f"{w}.") for w in whole)]


_MISSING = object()


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All but the mode."""
    return {k: v for k, v in vars(module).items() if k != "training"}


def _keep(module: nn.Module) -> _Kept:
    attributes = _attributes(module)
    contents = {
        k: copy_of(v)
        for k, v in attributes.items()
        if isinstance(v, (list, dict, set)) and not k.startswith("_")
    }
    return _Kept(
        attributes,
        contents,
        dict(module._buffers),
        dict(module._parameters),
        dict(module._modules),
    )


def copy_of(value: Any) -> Any:
    """A shallow copy of a list, a dict or a set, as a plain one.

    A class's own methods are not asked: a dict that loads what it is asked for would load it all.
    """
    if isinstance(value, OrderedDict):
        return dict(OrderedDict.items(value))
    if isinstance(value, dict):
        return dict(dict.items(value))
    return list(list.__iter__(value) if isinstance(value, list) else set.__iter__(value))


def _same_contents(value: Any, before: Any) -> bool:
    now = copy_of(value)
    if isinstance(now, dict):
        return list(now) == list(before) and all(_same(before[k], v) for k, v in now.items())
    return len(now) == len(before) and all(map(_same, before, now))


def refill(value: Any, contents: Any) -> None:
    """Let a list, a dict or a set hold what another one holds."""
    value.clear()
    if isinstance(value, list):
        value.extend(contents)
    else:
        value.update(contents)


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if isinstance(before, tuple) and isinstance(after, tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    plain = isinstance(before, (bool, int, float, complex, str))
    return plain and type(before) is type(after) and bool(before == after)


def _set(module: nn.Module, name: str, value: Any) -> None:
    if value is _MISSING:
        del vars(module)[name]
    else:
        vars(module)[name] = value
