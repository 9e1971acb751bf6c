"""Running a network on the input asked for; where it does not run, finding one that it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import VALUE_ERRORS
from rlawrap.capture.arguments import parameters_of
from rlawrap.capture.probes import Shape, common_sides, kernel_read_first
from rlawrap.capture.shadow import Shadow
from rlawrap.cost.count import Call, DoesNotRun, count_calls, shadow_of
from rlawrap.cost.inputs import Example, InputError, Size, asked_for
from rlawrap.errors import RLAError, spelled
from rlawrap.splice import RLAModel
from rlawrap.splice.inside import rewritten_in

#: Sides that one call after the other is tried for, divided by the number of modules.
EFFORT = 4000
#: The longest side that is looked for, by the number of spatial axes.
LONGEST = {1: 2**18, 2: 2**11, 3: 2**8}
_PLAIN = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def run(
    model: nn.Module,
    size: Size = None,
    in_channels: int | None = None,
    example_input: Any = None,
) -> tuple[Example, list[Call]]:
    """The input that `model` is counted on, and its calls on that.

    Raises `InputError` where it does not run.
    """
    remembered = model.rla.splice.settings.example_input if isinstance(model, RLAModel) else None
    asked = asked_for(model, size, in_channels, example_input, remembered)
    try:
        return asked, count_calls(model, asked)
    except DoesNotRun as problem:
        # The first convolution among the modules need not be the first that runs.
        if asked.given is None and in_channels is None and problem.reads is not None:
            channels, axes = problem.reads
            other = Example((1, channels, *asked.shape[2:]))
            if channels != asked.shape[1] and axes == len(asked.shape) - 2:
                try:
                    return other, count_calls(model, other)
                except DoesNotRun as again:
                    asked, problem = other, again
        raise InputError(
            f"cost: {type(model).__name__} does not run on an input of shape "
            f"{tuple(asked.shape)}: {str(problem).rstrip('.')}",
            reads=problem.reads,
        ) from problem


@dataclass(frozen=True)
class _Try:
    """Arguments of `cost`, as they are written there and on the command line."""

    arguments: dict[str, Any]
    python: str
    options: str


def advised(model: nn.Module, name: str, error: InputError) -> InputError:
    """The error with a call of `cost` that works, where one is found.

    name: the network as it stands in the call that was made: "model", or a name in quotes.
    """
    asks = error.__cause__ is not None and isinstance(error.__cause__.__cause__, VALUE_ERRORS)
    for attempt in () if asks else _tries(model, error.reads):  # at no size there are values
        try:
            run(model, **attempt.arguments)
        except RLAError:
            continue
        call = f"rlawrap.cost({name}, {attempt.python})"
        return InputError(error.what, call, attempt.options)
    return InputError(error.what, _of_a_part(model) if name == "model" else "")


def _of_a_part(model: nn.Module) -> str:
    """The call that counts a part which runs by itself: a rewritten one, or the largest child."""
    sizes = {path: sum(p.numel() for p in m.parameters()) for path, m in model.named_children()}
    parts = list(rewritten_in(model)) or sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    for path in parts:
        try:
            run(model.get_submodule(path))
        except RLAError:
            continue
        return f"rlawrap.cost({spelled(path, model)})"
    return ""


def _tries(model: nn.Module, reads: tuple[int, int] | None) -> Iterator[_Try]:
    """What the network runs on, as far as that is known without a counter."""
    shadow = shadow_of(model)
    channels, axes = reads or kernel_read_first(model) or (0, 0)
    required = [p for p in parameters_of(shadow.root) if p.default is p.empty and p.kind in _PLAIN]
    if len(required) > 1:
        for values in _several(len(required), channels, axes):
            if _error(shadow, values) is None:
                yield _given(values)
        return
    for shape in _images(shadow, channels, axes):
        if _error(shadow, [torch.empty(shape)]) is None:
            yield from (_sized(shape[2:]), _given([torch.empty(shape)]))
    for shape in _others(shadow.root, channels, axes):
        if _error(shadow, [torch.empty(shape)]) is None:
            yield _given([torch.empty(shape)])


def _error(shadow: Shadow, values: Sequence[Tensor]) -> Exception | None:
    """What the network raises on some inputs, in their place tensors on meta."""

    def moved(value: Tensor) -> Tensor:
        return value.to("meta", shadow.dtype if value.is_floating_point() else value.dtype)

    try:
        args, kwargs = Example(tuple(values[0].shape), tuple(map(moved, values))).arguments(shadow)
        with shadow.on_meta(), torch.no_grad():
            shadow.root(*args, **kwargs)
    except Exception as error:
        return error
    return None


def _images(shadow: Shadow, channels: int, axes: int) -> Iterator[Shape]:
    """Images of common sizes, then of the size that the first linear layer asks for, then all."""
    if not axes:
        return
    for sides in common_sides(axes):
        yield (1, channels, *sides)
    fitting = _side_for_linear(shadow, channels, axes)
    if fitting:
        yield (1, channels, *(fitting,) * axes)
    # From the largest: a parameter of the image's size would be broadcast to an image of one pixel.
    for side in range(min(400, EFFORT // len(list(shadow.root.modules()))), 0, -1):
        yield (1, channels, *(side,) * axes)


def _side_for_linear(shadow: Shadow, channels: int, axes: int) -> int | None:
    """The side of an image of which the first linear layer gets as many features as it takes.

    The features become more with the side, so it is searched for by halves.
    """
    given: list[int] = []  # features too many or too few, of each linear layer that ran

    def note(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0].shape[-1] - layer.in_features)

    layers = [m for m in shadow.root.modules() if type(m) is nn.Linear]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    low, high = 0, LONGEST[axes]  # the first is too small, or none; the last may be too large
    while high - low > 1:
        given.clear()
        middle = (low + high) // 2
        failed = _error(shadow, [torch.empty((1, channels, *(middle,) * axes))]) is not None
        wrong = next((n for n in given if n), None)
        if not failed and wrong is None:
            low = middle
            break
        low, high = (low, middle) if wrong is not None and wrong > 0 else (middle, high)
    for hook in hooks:
        hook.remove()
    return low or None


def _several(count: int, channels: int, axes: int) -> Iterator[list[Tensor]]:
    """Inputs for so many arguments: images of one size, some of one channel, a number, an index."""
    if not axes or count > 3:
        return
    for sides in common_sides(axes)[:4]:
        first = torch.empty(1, channels, *sides)
        kinds = [first, torch.empty(1), torch.zeros(1, dtype=torch.long), torch.empty(1, 1, *sides)]
        for rest in itertools.product(kinds, repeat=count - 1):
            yield [first, *rest]


def _others(root: nn.Module, channels: int, axes: int) -> Iterator[Shape]:
    """Inputs of another rank than the first convolution reads: signals, features, clips."""
    layers = [m.in_features for m in root.modules() if isinstance(m, nn.Linear)]
    if layers and not axes:
        yield from ((1, layers[0]), (1, 16, layers[0]))
    for length in (16000, 4096, 1024, 256):
        yield from ((1, length), (1, 1, length), (1, max(channels, 1), length))
    for side in (224, 64, 32):
        yield from ((1, side, side), (1, 8, max(channels, 1), side, side))
        yield from ((1, max(channels, 1), 16, side, side), (1, side, side, max(channels, 1)))


def _sized(sides: Shape) -> _Try:
    size: int | Shape = sides[0] if len(set(sides)) == 1 else sides
    return _Try({"size": size}, f"size={size}", f"--size {'x'.join(map(str, sides))}")


def _given(values: Sequence[Tensor]) -> _Try:
    texts = [_written(value) for value in values]
    text = texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
    floats = all(value.is_floating_point() for value in values)
    options = " ".join(f"--input {'x'.join(map(str, v.shape))}" for v in values) if floats else ""
    arguments = {"example_input": tuple(values)}
    return _Try(arguments, f"example_input={text}", options)


def _written(value: Tensor) -> str:
    sides = ", ".join(map(str, value.shape))
    return f"torch.randn({sides})" if value.is_floating_point() else f"torch.zeros({sides}).long()"
