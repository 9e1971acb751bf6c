"""The inputs of an export: an example, which of its axes may change, and inputs to compare on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.cost.inputs import Size, input_shape
from rlawrap.errors import ConfigError, PlanError

#: Axis -> its name in the file; a third spatial axis is depth, as PyTorch orders them.
_SIDES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Shapes of the tensors that a network is traced on. any_batch, any_size: axes that may change.

    Axis 0 is the batch, those from 2 on are sides.
    """

    shapes: tuple[tuple[int, ...], ...]
    any_batch: bool
    any_size: bool
    dtype: torch.dtype
    device: torch.device

    def example(self) -> tuple[Tensor, ...]:
        """Tensors of the shapes; a batch that may change is 2, since tracing fixes 1."""
        shapes = [(2, *s[1:]) if self.any_batch else s for s in self.shapes]
        return self._tensors(shapes)

    def to_compare(self) -> list[tuple[Tensor, ...]]:
        """Two sets of inputs, as unlike as they may be; one where nothing may change."""
        found = [self.example()]
        if self.any_batch or self.any_size:
            found.append(self._tensors([self._other(shape) for shape in self.shapes]))
        return found

    def _other(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        batch = 3 if self.any_batch else shape[0]
        if not self.any_size or len(shape) < 3:
            return (batch, *shape[1:])
        return (batch, shape[1], shape[2] * 3 // 4, *shape[3:])

    def _tensors(self, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        made = (torch.randn(shape, generator=generator) for shape in shapes)
        return tuple(tensor.to(self.device, self.dtype) for tensor in made)

    def dynamic_axes(self) -> tuple[dict[int, Any], ...]:
        """For `torch.export`, the axes of each tensor that may change."""
        free = torch.export.Dim.DYNAMIC
        return tuple(dict.fromkeys(self._free(shape), free) for shape in self.shapes)

    def _free(self, shape: tuple[int, ...]) -> list[int]:
        sides = range(2, len(shape)) if self.any_size else ()
        return [*([0] if self.any_batch else []), *sides]

    def describe(self) -> tuple[str, ...]:
        """A text for each tensor.

        >>> Inputs(shapes=((1, 3, 8, 8),), any_batch=True, any_size=True, dtype=torch.float32,
        ...        device=torch.device("cpu")).describe()
        ('float32 [batch, 3, height, width]',)
        """
        kind = str(self.dtype).removeprefix("torch.")
        return tuple(f"{kind} [{', '.join(self._axes(shape))}]" for shape in self.shapes)

    def _axes(self, shape: tuple[int, ...]) -> list[str]:
        names = dict(zip(range(2, len(shape)), _SIDES.get(len(shape) - 2, ()), strict=False))
        names[0] = "batch"
        free = self._free(shape)
        return [names.get(i, f"axis {i}") if i in free else str(n) for i, n in enumerate(shape)]


def choose_inputs(
    model: nn.Module, example_input: Any, batch: int | None, size: Size, call: str = "export"
) -> Inputs:
    """What a network is traced on; `batch` and `size` fix what else may change.

    Raises `ConfigError` for what contradicts itself or is no tensor.
    """
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    if batch is not None and batch < 1:
        raise ConfigError(f"{call}: batch={batch} is no batch; it must be at least 1.")
    if example_input is None:
        try:
            shapes = [input_shape(model, size)]
        except PlanError as error:
            raise ConfigError(f"{call}: {str(error).removeprefix('cost: ')}") from error
        except ConfigError as error:
            raise ConfigError(f"{call}: {str(error).removeprefix('cost: ')}") from error
    else:
        if size is not None:
            raise ConfigError(
                f"{call}: give example_input=, which tells a size, or size=, which fixes it, not "
                "both."
            )
        given = example_input if isinstance(example_input, (tuple, list)) else (example_input,)
        if not given or not all(isinstance(t, Tensor) and t.is_floating_point() for t in given):
            raise ConfigError(
                f"{call}: example_input= must be a tensor of floating-point numbers or a tuple of "
                "such; write a network that takes other arguments into one that takes these."
            )
        shapes = [tuple(tensor.shape) for tensor in given]
    if batch is not None:
        shapes = [(batch, *shape[1:]) for shape in shapes]
    return Inputs(
        shapes=tuple(shapes),
        any_batch=batch is None,
        any_size=size is None,
        dtype=first.dtype,
        device=first.device,
    )
