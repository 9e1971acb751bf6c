"""Examples of other batches, sizes and precisions, and calls with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def call(model: nn.Module, example: Any) -> Any:
    """The model's output for an example as `example_input=` takes it.

    Lists in it are made anew: some forwards write into theirs.
    """
    example = mapped(example, lambda tensor: tensor)
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def mapped(example: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The example with each of its tensors changed."""
    if isinstance(example, Tensor):
        return change(example)
    if isinstance(example, dict):
        return {key: mapped(value, change) for key, value in example.items()}
    if isinstance(example, (tuple, list)):
        return type(example)(mapped(value, change) for value in example)
    return example


def first_tensor(example: Any) -> Tensor:
    """The first tensor of an example, which says how large its batch is."""
    seen: list[Tensor] = []
    mapped(example, lambda t: seen.append(t) or t)  # type: ignore[func-returns-value]
    return seen[0]


def one_more(example: Any) -> Any:
    """A batch of one more: every tensor with the batch's length has its first item again."""
    batch = first_tensor(example).shape[0]

    def change(tensor: Tensor) -> Tensor:
        alike = tensor.dim() and tensor.shape[0] == batch
        return torch.cat([tensor, tensor[:1]]) if alike else tensor

    return mapped(example, change)


def grown(example: Any, *by: int) -> Any:
    """The last sides of every image (of a rank as the first tensor's) larger by these."""
    rank = first_tensor(example).dim()
    sides = rank - 2

    def change(tensor: Tensor) -> Tensor:
        if tensor.dim() != rank or not tensor.is_floating_point() or sides < 1:
            return tensor
        more = (*by, *by[-1:] * sides)[:sides]
        shape = (*tensor.shape[:2], *(n + m for n, m in zip(tensor.shape[2:], more, strict=True)))
        return torch.rand(shape) if tensor.min() >= 0 else torch.randn(shape)

    return mapped(example, change)


def in_precision(example: Any, dtype: torch.dtype) -> Any:
    return mapped(example, lambda t: t.to(dtype) if t.is_floating_point() else t)


def runs(base: nn.Module, example: Any, modes: tuple[bool, ...] = (False, True)) -> bool:
    """Whether the network takes an example, in these modes; its tensors stay as they were.

    Some move their parameters by hand in training, such as the words of a code book.
    """
    mode = base.training
    tensors = [t.detach() for t in (*base.parameters(), *base.buffers())]
    state = [t.clone() for t in tensors]
    try:
        with torch.no_grad():
            for training in modes:
                call(base.train(training), example)
    except Exception:  # whatever the network itself raises for what it cannot take
        return False
    finally:
        base.train(mode)
        for tensor, before in zip(tensors, state, strict=True):
            tensor.copy_(before)
    return True
