"""What calls on meta tensors return, each found once: a deep network repeats its operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from rlawrap._torch import base_of, has_forward_hooks, pytree, writes
from rlawrap.capture.meta import empty_like

#: Modules of Python whose functions return the same for the same shapes.
_PURE_MODULES = (None, "_operator", "torch", "torch.nn.functional", "torch._C._nn")
_SAME = object()


def key_of_module(module: Any, args: Any, kwargs: Any) -> Any:
    """What the shape of an elementary layer's result depends on, or None for other modules."""
    if not isinstance(module, nn.Module) or not type(module).__module__.startswith(
        "torch.nn.modules."
    ):
        return None
    if has_forward_hooks(module) or module._modules:
        return None
    space = vars(module)
    settings = tuple((name, value) for name, value in space.items() if not name.startswith("_"))
    tensors = tuple((n, _signature(t)) for n, t in space["_parameters"].items())
    return _key((type(module), settings, tensors), args, kwargs)


def key_of_function(function: Any, args: Any, kwargs: Any) -> Any:
    """What the shape of a function's result depends on, or None where that is not known."""
    named = isinstance(function, str)
    if not named and getattr(function, "__module__", "") not in _PURE_MODULES:
        return None
    return _key(function, args, kwargs)


def _key(called: Any, args: Any, kwargs: Any) -> Any:
    try:
        key = (called, _signature(args), _signature(kwargs))
        hash(key)
    except TypeError:
        return None
    return key


def _signature(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype, value.device)
    if isinstance(value, (tuple, list)):
        return tuple(map(_signature, value))
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    return (type(value), value)


def keeps_shape(module: Any, args: Any, kwargs: Any) -> bool:
    """Whether a layer is known to return a tensor just like the one that it gets.

    PyTorch finds the shapes of these in Python, which takes most of the time of a recording. One
    that would refuse its input is left to say so itself.
    """
    if kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
        return False
    if not isinstance(module, nn.Module):  # a function of one tensor
        return False
    x = args[0]
    if has_forward_hooks(module) or not x.is_floating_point():
        return False
    if type(module) in _NORMS:
        wide = x.dim() in _NORMS[type(module)] and x.shape[1] == module.num_features
        return wide and not (module.training and x.numel() <= x.shape[1])
    return type(module) in _ACTIVATIONS


#: Norms and the numbers of axes that they take. Where processes train together, SyncBatchNorm
#: refuses what lies on no GPU.
_NORMS: dict[type, tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (2, 3, 4, 5),
}
_ACTIVATIONS = frozenset(
    (
        nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh,
        nn.LeakyReLU, nn.ELU, nn.Mish,
    )
)  # fmt: skip


class Results:
    """New tensors like those that an equal call returned before."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def call_module(self, module: Any, run: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """What `run`, a call of a module that is kept whole, returns."""
        if keeps_shape(module, args, kwargs):
            return args[0].zero_() if getattr(module, "inplace", False) else empty_like(args[0])
        if isinstance(module, nn.RNNBase):
            run = functools.partial(_one_step, module, args, kwargs, run)
        return self.call(key_of_module(module, args, kwargs), run, args, kwargs)

    def call(self, key: Any, run: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """What `run` returns, without running it where the key is known.

        Only results on memory of their own are kept, and that a call overwrote its argument.
        """
        if key is None:
            return run()
        known = self._known.get(key)
        if known is _SAME:
            return args[0].zero_()
        if known is not None:
            return pytree.tree_map_only(Tensor, empty_like, known)
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        versions = [writes(t) for t in given]
        out = run()
        changed = [t for t, v in zip(given, versions, strict=True) if writes(t) != v]
        made = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        if changed:
            if len(changed) == 1 and out is changed[0] is args[0] and _keeps_shape(key, out):
                self._known[key] = _SAME
        elif made and all(base_of(t) is t and all(t is not g for g in given) for t in made):
            self._known[key] = pytree.tree_map_only(Tensor, Tensor.detach, out)
        return out


def _one_step(module: nn.RNNBase, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
    """What an RNN returns, found from one step: PyTorch goes through all of them, on meta too."""
    axis = 1 if module.batch_first else 0
    if kwargs or not isinstance(args[0], Tensor) or args[0].dim() != 3:
        return run()
    steps = args[0].shape[axis]
    out, state = module(args[0].narrow(axis, 0, min(steps, 1)), *args[1:])
    shape = list(out.shape)
    shape[axis] = steps
    return out.new_empty(shape), state


def _keeps_shape(key: Any, out: Tensor) -> bool:
    """Whether a call left the shape of its first argument as it was."""
    shape, strides = key[1][0][:2]
    return bool(out.shape == shape and out.stride() == strides)
