"""Networks inside of a model, rewritten where they are in a copy of the whole model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from rlawrap.capture.leaves import as_leaves
from rlawrap.config import RLAConfig
from rlawrap.copying import deep_copy
from rlawrap.errors import PlanError, RLAError, RLAWarning
from rlawrap.plan import Plan, Plans
from rlawrap.splice.at import At, find_places
from rlawrap.splice.moved import moved_advice
from rlawrap.splice.rewriting import Prepared, Request, find_plan, prepare, rewrite

T = TypeVar("T")


def apply_within(
    model: nn.Module, at: At, config: RLAConfig, asked: Mapping[str, Any]
) -> nn.Module:
    """A copy of `model` in which the modules that `at` names are rewritten; for `apply`."""
    places = find_places(model, at, "apply")
    options = places.options(_settled(asked))
    requests = {path: Request(config=config, **own) for path, own in options.items()}
    return rewrite_parts(model, requests, places.call)


def rewrite_parts(
    model: nn.Module, requests: Mapping[str, Request], call: str = "apply(model)"
) -> nn.Module:
    """A copy of `model` in which the modules of these paths are rewritten; "" is the model itself.

    All are prepared before the model is copied. In the copy each is rewritten in place, so that
    whatever else refers to the module (another path, a weight that is tied) refers to it still.
    """
    prepared: dict[str, Prepared] = {}
    for path, request in requests.items():
        one = partial(prepare, model.get_submodule(path), request, call)
        prepared[path] = _made_at(path, len(requests) > 1, one, stacklevel=5)
    try:
        twin = deep_copy(model)
    except Exception as error:
        raise PlanError(
            f"{call}: the model cannot be copied: {type(error).__name__}: {error}"
        ) from error
    with torch.random.fork_rng(devices=[]):
        for path, ready in prepared.items():
            rewrite(twin.get_submodule(path), ready)
    return twin


def inspect_within(
    model: nn.Module, at: At, asked: Mapping[str, Any], *, explain: bool = False
) -> Plan | Plans:
    """The plan of each module that `at` names, of one path the plan itself; for `inspect`."""
    places = find_places(model, at, "inspect")
    plans = Plans()
    for path, options in places.options(_settled(asked)).items():
        if explain and places.plural:
            print(f"{path}:")
        one = partial(find_plan, model.get_submodule(path), explain=explain, **options)
        plans[path] = _made_at(path, len(places.paths) > 1, one, stacklevel=4)
    return plans if places.plural else plans[places.paths[0]]


def _settled(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options, of which leaves that can be read once are a tuple."""
    leaves = asked["leaf_modules"]
    settled = leaves if isinstance(leaves, Mapping) else as_leaves(leaves)
    return {**asked, "leaf_modules": settled}


def _made_at(path: str, several: bool, one: Callable[[], T], *, stacklevel: int) -> T:
    """What `one` makes of the module at a path.

    Its refusals and warnings get the path, and the calls that they tell are calls of the whole.
    """

    def placed(text: str) -> str:
        return f"at={path!r}: {moved_advice(text, path, several)}" if path else text

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = one()
    except RLAError as error:
        raise type(error)(placed(str(error))) from error.__cause__
    for warning in caught:
        if issubclass(warning.category, RLAWarning):
            warnings.warn(placed(str(warning.message)), RLAWarning, stacklevel=stacklevel)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return made
