"""`torch.zeros(b, c, h, w)` while tracing, where a size is a proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import fx

_FACTORIES = ("zeros", "ones", "empty", "rand", "randn")


@contextmanager
def packed_sizes() -> Iterator[None]:
    """Give the sizes of PyTorch's factories as a tuple: one by one they take no proxies."""
    with ExitStack() as stack:
        for name in _FACTORIES:
            stack.enter_context(mock.patch.object(torch, name, _packing(getattr(torch, name))))
        yield


def _packing(factory: Callable[..., Any]) -> Callable[..., Any]:
    def packed(*sizes: Any, **settings: Any) -> Any:
        if len(sizes) > 1 and any(isinstance(size, fx.Proxy) for size in sizes):
            return factory(sizes, **settings)
        return factory(*sizes, **settings)

    return packed
