"""Counting: one forward pass of a shadow of the model on fake tensors, call by call.

Nothing is computed, no activation is allocated, and the model itself is never run: the shadow is a
copy whose tensors have shapes and no data. `torch.utils.flop_counter.FlopCounterMode` counts the
convolutions and matrix products; what the paper's count needs besides is given to it as formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import TorchDispatchMode, clear_hooks, pytree
from rlawrap.capture.shadow import Shadow, make_shadow
from rlawrap.copying import deep_copy
from rlawrap.cost.inputs import Example
from rlawrap.cost.operations import Ops, convolution_reads, counted, counter


@dataclass(frozen=True)
class Call:
    """What ran between two changes of module: the innermost module's path, and the operations.

    The path is empty for what the network's own `forward` does between its modules. `reads` names
    the parameters that were read here first.
    """

    path: str
    ops: Ops
    reads: tuple[str, ...] = ()


class DoesNotRun(Exception):
    """The model's own error on an input, in a line; `reads` is what its first convolution reads.

    That is the number of channels and of spatial axes.
    """

    def __init__(self, error: Exception, reads: tuple[int, int] | None) -> None:
        super().__init__(str(error).splitlines()[0] if str(error) else type(error).__name__)
        self.reads = reads


class Recorder(TorchDispatchMode):
    """Splits the running totals of a counter at every entry to and exit from a module.

    It sees the tensors that operations read, too, and so the parameters, whatever holds them.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.counter = counter()
        self.calls: list[Call] = []
        self._stack = [""]
        self._seen = Ops()
        self._unread = {id(p): name for name, p in root.named_parameters()}
        self._reads: list[str] = []
        #: Channels and spatial axes that the first convolution reads.
        self.first_reads: tuple[int, int] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.first_reads is None:
            self.first_reads = convolution_reads(func, args)
        for value in pytree.tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and id(value) in self._unread:
                self._reads.append(self._unread.pop(id(value)))
        return func(*args, **kwargs)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """The region whose operations are counted."""
        with torch.no_grad(), self.counter, self:
            yield
            self.flush()

    def flush(self, *, always: bool = False) -> None:
        """End the call that runs, if it did anything."""
        now = counted(self.counter)
        if always or self._reads or now != self._seen:
            self.calls.append(Call(self._stack[-1], now - self._seen, tuple(self._reads)))
            self._seen, self._reads = now, []

    def enter(self, path: str) -> None:
        """A module is called."""
        self.flush()
        self._stack.append(path)

    def leave(self) -> None:
        """The innermost module returns; its call is noted whatever it did."""
        self.flush(always=True)
        self._stack.pop()


def shadow_of(model: nn.Module) -> Shadow:
    """The shadow of `model` in eval mode: on meta tensors, without hooks that read activations."""
    shadow = make_shadow(model)
    shadow.root.eval()
    return shadow


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, without the hooks that read activations."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta")) for p in model.parameters()}
    memo |= {id(b): b.to("meta") for b in model.buffers()}
    skeleton = deep_copy(model, memo)
    for module in skeleton.modules():
        clear_hooks(module)
    return skeleton


def count_calls(model: nn.Module, example: Example) -> list[Call]:
    """Every call of a module, in the order in which they end, for an input.

    A module that calls others appears again for what it did itself between and after them.

    Raises `DoesNotRun` with the model's own error.
    """
    shadow = shadow_of(model)
    args, kwargs = example.arguments(shadow)
    recorder = Recorder(shadow.root)
    for path, module in shadow.root.named_modules():
        if path:
            # Ours come first in and last out, so that a hook of the model's own is inside.
            module.register_forward_pre_hook(_entering(recorder, path), prepend=True)
            module.register_forward_hook(lambda *call: recorder.leave())
    try:
        with shadow.on_meta(), recorder.counting():
            shadow.root(*args, **kwargs)
    except Exception as error:
        raise DoesNotRun(error, recorder.first_reads) from error
    return recorder.calls


def _entering(recorder: Recorder, path: str) -> Callable[..., None]:
    return lambda *call: recorder.enter(path)


def total_of(calls: Sequence[Call]) -> Ops:
    """What some calls did together."""
    return sum((call.ops for call in calls), Ops())
