"""What the parts of a network get while it runs on an example: images that no guess would find."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.effects import random_generators_kept
from rlawrap.copying import deep_copy


def part_inputs(model: nn.Module, example: Any, paths: Iterable[str]) -> dict[str, Any]:
    """Of the modules at some paths that run, an `example_input` like the first one that each gets.

    A copy of the model runs, in evaluation mode, as far as it comes. Empty without an example.
    """
    if example is None:
        return {}
    got: dict[str, Any] = {}

    def keep(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        if path not in got:
            # What runs later may overwrite it.
            got[path] = pytree.tree_map_only(
                Tensor, lambda t: t.detach().clone(), _as_example(module, args, kwargs)
            )

    try:
        twin = deep_copy(model).eval()
        for path in paths:
            part = twin.get_submodule(path)
            part.register_forward_pre_hook(partial(keep, path), with_kwargs=True)
        with torch.no_grad(), random_generators_kept():
            if isinstance(example, Mapping):
                twin(**example)
            else:
                twin(*(example if isinstance(example, (tuple, list)) else (example,)))
    except Exception:
        pass  # of no use to who asked for something else
    return got


def _as_example(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Arguments as `example_input=` takes them: by name where some were given so."""
    if not kwargs:
        return args
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)


def described_input(example: Any) -> str:
    """What a part gets, for a message.

    >>> described_input((torch.zeros(2, 3, 8, 8),))
    'a tensor of (2, 3, 8, 8)'
    >>> described_input({"x": torch.zeros(2, 3), "mask": None})
    'a dict of x: a tensor of (2, 3), mask: None'
    """
    if isinstance(example, Mapping):
        return "a dict of " + ", ".join(f"{k}: {_described(v)}" for k, v in example.items())
    if len(example) == 1:
        return _described(example[0])
    return "a tuple of " + ", ".join(map(_described, example))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {tuple(value.shape)}"
    plain = value is None or isinstance(value, (bool, int, float))
    return str(value) if plain else f"a {type(value).__name__}"
