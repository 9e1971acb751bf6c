"""`at=`: the modules of a network that are to be rewritten alone, and what is asked of each."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlawrap.capture.refusals import refuse_wrapped
from rlawrap.errors import ConfigError, PlanError, did_you_mean, few

At = str | Iterable[str]

#: The options that may be given by path, and what each is where it is not given.
BY_PATH: Mapping[str, Any] = {
    "plan": None,
    "blocks": None,
    "stages": None,
    "leaf_modules": (),
    "example_input": None,
}


@dataclass(frozen=True)
class Places:
    """The modules that `at=` names. paths: one of each. same: of every path of theirs that one.

    plural: whether it is a list or a glob, which may name several.
    """

    paths: tuple[str, ...]
    same: Mapping[str, str]
    plural: bool
    #: The user's call, for messages.
    call: str

    def options(self, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The options of each path; raises `ConfigError` for one of a path that is not named."""
        spread = {name: self._spread(name, value) for name, value in asked.items()}
        return {path: {name: own[path] for name, own in spread.items()} for path in self.paths}

    def _spread(self, name: str, value: Any) -> dict[str, Any]:
        if name == "plan":
            self._check_plan(value)
        if not self._is_by_path(name, value):
            return dict.fromkeys(self.paths, value)
        for path in value:
            if path not in self.same:
                hint = did_you_mean(str(path), self.same, repr)
                raise ConfigError(
                    f"{name}= is given by path, and at= does not name {path!r}; it names "
                    f"{few(self.paths)}.{hint}"
                )
        own = {self.same[path]: given for path, given in value.items()}
        return {path: own.get(path, BY_PATH[name]) for path in self.paths}

    def _is_by_path(self, name: str, value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        if name == "example_input":  # or the arguments of forward by name
            return bool(value) and all(key in self.same for key in value)
        return name != "plan" or "stages" not in value

    def _check_plan(self, value: Any) -> None:
        """Raises `PlanError` for one plan of several modules, and for plans as dicts."""
        if self._is_by_path("plan", value):
            if any(isinstance(own, Mapping) for own in value.values()):
                raise PlanError(
                    "apply: plan= takes a Plan for each path, got a dict; of dicts, "
                    "`plan={path: rlawrap.Plan.from_dict(own) for path, own in plan.items()}`."
                )
        elif value is not None and len(self.paths) > 1:
            raise PlanError(
                f"apply: at= names {len(self.paths)} modules, and plan= is one plan. Give one by "
                f"path, `plan=rlawrap.inspect(model, at={list(self.paths)!r})`."
            )


def find_places(model: nn.Module, at: At, verb: str) -> Places:
    """The modules that `at=` names, each once; `verb` is the user's, for messages.

    Raises `ConfigError` for what is no path, and `PlanError` for a path that the model does not
    have, or whose module cannot be rewritten alone.
    """
    parts = list(at) if isinstance(at, Iterable) and not isinstance(at, str) else [at]
    call = f"{verb}(model, at={(at if isinstance(at, str) else parts)!r})"
    if not parts or not all(isinstance(part, str) for part in parts):
        raise ConfigError(
            f"at={at!r}: give the path of a module, a list of paths, or a glob such as 'towers.*'."
        )
    refuse_wrapped(model, call, at=None)
    modules = dict(model.named_modules(remove_duplicate=False))
    paths: dict[str, None] = {}
    for part in parts:
        paths |= dict.fromkeys(_matching(modules, part))
    first: dict[int, str] = {}
    for path in paths:
        first.setdefault(id(modules[path]), path)
    named = tuple(first.values())
    _refuse_nested(modules, named)
    for path in named:
        refuse_wrapped(model, call, at=path)
        _refuse_uncalled(path, modules[path])
    same = {path: first[id(m)] for path, m in modules.items() if id(m) in first}
    return Places(named, same, not isinstance(at, str) or at not in modules, call)


def _matching(modules: Mapping[str, nn.Module], part: str) -> list[str]:
    """The paths that are `part`, or that match it name by name."""
    if not part:
        raise ConfigError("at='' is the model itself, which is rewritten with `at=None`.")
    if part in modules:
        return [part]
    globs = part.split(".")
    found = [path for path in modules if path and _matches(path.split("."), globs)]
    if not found:
        near = difflib.get_close_matches(part, [path for path in modules if path], n=4)
        hint = f" Paths near it: {', '.join(near)}." if near else ""
        raise PlanError(f"at={part!r}: the model has no such module.{hint}")
    return found


def _matches(names: list[str], globs: list[str]) -> bool:
    return len(names) == len(globs) and all(map(fnmatch.fnmatchcase, names, globs))


def _refuse_nested(modules: Mapping[str, nn.Module], named: tuple[str, ...]) -> None:
    """Raise `ConfigError` where one of the modules lies in another."""
    for outer in named:
        inside = {id(m) for m in modules[outer].modules()} - {id(modules[outer])}
        inner = [path for path in named if id(modules[path]) in inside]
        if inner:
            rest = [path for path in named if path not in inner]
            fewer = [path for path in named if path != outer]
            raise ConfigError(
                f"at= names {outer!r} and {few(inner)}, which lies in it; one of them can be "
                f"rewritten: `at={rest!r}`, or `at={fewer!r}`."
            )


def _refuse_uncalled(path: str, module: nn.Module) -> None:
    """Raise `PlanError` for a list or dict of modules, which has no forward of its own."""
    if type(module).forward is not nn.Module.forward:
        return
    children = [name for name, child in module.named_children() if _learns(child)]
    told = f" Name what it holds, `at='{path}.*'`." if children else ""
    raise PlanError(
        f"at={path!r}: a {type(module).__name__} has no forward, and nothing calls it.{told}"
    )


def _learns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
