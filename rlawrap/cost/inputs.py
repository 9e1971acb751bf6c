"""The input that a network is counted on: what the user asks for, or a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.arguments import Arguments, image_of, make_arguments, parameters_of
from rlawrap.capture.probes import Shape, kernel_read_first
from rlawrap.capture.shadow import Shadow
from rlawrap.errors import ConfigError, PlanError

IMAGE_SIZE = 224

Size = int | Sequence[int] | None


class InputError(PlanError):
    """A network does not run on the input that it was given, or nothing tells what it takes.

    `options` are those of the command line that make it run, empty where there are none; `reads`
    is how many channels and spatial axes the first convolution reads that ran, if one did.
    """

    def __init__(
        self,
        what: str,
        call: str = "",
        options: str = "",
        *,
        reads: tuple[int, int] | None = None,
    ) -> None:
        self.what, self.options, self.reads = what, options, reads
        super().__init__(self.advising(call))

    def advising(self, call: str) -> str:
        """The message, with a call that works."""
        if call:
            return f"{self.what}; this call works: {call}"
        return (
            f"{self.what}. Pass example_input= with a tensor (or a tuple, or a dict by name) that "
            "it accepts."
        )


@dataclass(frozen=True)
class Example:
    """An input: one image of a shape, or the arguments of a call.

    With `resized` the arguments are those of an image of that shape, else they are as given.
    """

    shape: Shape
    given: Any = None
    resized: bool = False

    def bound(self, shadow: Shadow) -> Arguments:
        """The arguments of a shadow's forward by name, too; `PlanError` where none is an image."""
        as_given = self.given is not None and not self.resized
        return make_arguments(shadow, self.given, None if as_given else self.shape)

    def arguments(self, shadow: Shadow) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for a shadow, as meta tensors."""
        if self.given is None:
            image = torch.empty(self.shape, dtype=shadow.dtype, device="meta")
            first = next(iter(parameters_of(shadow.root)), None)
            if first is not None and first.kind is first.KEYWORD_ONLY:
                return (), {first.name: image}
            return (image,), {}
        if self.resized:
            made = self.bound(shadow)
            return made.args, dict(made.kwargs)
        moved = pytree.tree_map_only(
            Tensor, lambda t: torch.empty_like(t, device="meta"), self.given
        )
        if isinstance(moved, Mapping):
            return (), dict(moved)
        return tuple(moved) if isinstance(moved, (tuple, list)) else (moved,), {}


def asked_for(
    model: nn.Module,
    size: Size = None,
    in_channels: int | None = None,
    example: Any = None,
    remembered: Any = None,
) -> Example:
    """The input to count `model` on.

    `example` is counted as it is; of one `remembered` from the rewrite one image is, at `size`.
    Raises `ConfigError` for a bad size, `InputError` for a network that tells nothing.
    """
    if example is not None:
        if size is not None or in_channels is not None:
            raise ConfigError("cost: give example_input=, or size= and in_channels=, not both.")
        tensors = [t for t in pytree.tree_leaves(example) if isinstance(t, Tensor)]
        if not tensors:
            raise ConfigError("cost: example_input= holds no tensor.")
        images = [t for t in tensors if t.dim() >= 3]
        return Example(tuple((images or tensors)[0].shape), example)
    if remembered is not None and in_channels is None:
        image = tuple(image_of(remembered).shape)
        sides = image[2:] if size is None else _sides(size, len(image) - 2)
        if len(sides) == len(image) - 2:
            return Example((1, image[1], *sides), remembered, resized=True)
    return Example(input_shape(model, size, in_channels))


def input_shape(model: nn.Module, size: Size = None, in_channels: int | None = None) -> Shape:
    """(1, channels, *sides) for a network, from its first convolution and the size asked for."""
    read = kernel_read_first(model)
    if read is None and (in_channels is None or size is None or isinstance(size, int)):
        raise InputError(
            f"cost: {type(model).__name__} holds no convolution module and no parameter of a "
            "kernel's shape, so the shape of its input is unknown"
        )
    if size is None:
        own = getattr(model, "default_cfg", None)
        size = tuple(own["input_size"][1:]) if own and "input_size" in own else IMAGE_SIZE
    sides = _sides(size, read[1] if read else 1)
    if read is not None and len(sides) != read[1]:
        raise ConfigError(
            f"cost: size={sides} has {len(sides)} sides, but the first convolution of "
            f"{type(model).__name__} has {read[1]} spatial axes."
        )
    if in_channels is None:
        assert read is not None
        in_channels = read[0]
    return (1, in_channels, *sides)


def _sides(size: int | Sequence[int], axes: int) -> tuple[int, ...]:
    sides = (size,) * axes if isinstance(size, int) else tuple(int(side) for side in size)
    if not sides or min(sides) < 1:
        raise ConfigError(f"cost: size={sides} is no size; every side must be at least 1.")
    return sides
