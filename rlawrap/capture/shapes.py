"""Shapes of every node at several input sizes, on fake tensors: no memory, no arithmetic."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ASSERT, FAKE_LOGGER, has_forward_hooks, pytree, unset_fake_temporarily
from rlawrap.capture.probes import Shape, candidate_inputs, fake_inputs, image_of, probes_of
from rlawrap.capture.trace import Trace
from rlawrap.errors import PlanError


@dataclass(frozen=True)
class Shapes:
    """For every node, its shape at each probe size; None where the network refused that size."""

    table: Mapping[fx.Node, tuple[Shape | None, ...]]
    inputs: tuple[Shape, ...]
    dtypes: Mapping[fx.Node, torch.dtype]
    #: Numbers, and tuples of them, that forward computes and that no probe size changes.
    numbers: Mapping[fx.Node, Any]

    def of(self, node: fx.Node, probe: int = 0) -> Shape | None:
        row = self.table.get(node)
        return row[probe] if row else None

    def rows(self, node: fx.Node) -> tuple[Shape | None, ...]:
        return self.table.get(node, (None,) * len(self.inputs))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs a traceback for every size an operator refuses; a probe may well be refused."""
    logger = logging.getLogger(FAKE_LOGGER)
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def propagate(trace: Trace, values: Mapping[str, Any]) -> tuple[dict[fx.Node, Any], str | None]:
    """Run the graph on fake tensors; what follows a failure is left out. Also the first error."""
    env: dict[fx.Node, Any] = {}
    modules = dict(trace.root.named_modules(remove_duplicate=False))
    known: dict[Any, Any] | None = trace.known if _keeps_shapes(trace) else None
    error: str | None = None
    lost: set[fx.Node] = set()
    trace.root.eval()
    with trace.fake_mode, torch.no_grad(), _quiet():
        for node in trace.graph.nodes:
            if any(source in lost for source in node.all_input_nodes):
                lost.add(node)
                continue
            try:
                env[node] = run_node(trace, node, modules, env, values, known)
            except Exception as problem:
                lost.add(node)
                message = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
                error = error or f"{_place(trace, node)}: {message}"
    return env, error


def _place(trace: Trace, node: fx.Node) -> str:
    """Where a node lies, in the user's words: the module it calls or the forward it stands in."""
    leaf = trace.leaf(node)
    if leaf is not None:
        return f"module {str(node.target)!r} ({type(leaf).__name__})"
    path = trace.owner(node)[0]
    owner = f"module {path!r}" if path else f"the forward of {type(trace.root).__name__}"
    return f"{getattr(node.target, '__name__', node.target)} in {owner}"


def _call_leaf(trace: Trace, leaf: nn.Module, args: Any, kwargs: Any) -> Any:
    """Call a leaf on fake tensors; one whose code asks for values runs on real ones.

    Only a module that was kept whole because tracing could not follow it comes to that.
    """
    try:
        return leaf(*args, **kwargs)
    except Exception:
        if type(leaf).__module__.startswith("torch.nn."):
            raise

        def real(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            random = value.is_floating_point()
            return (torch.rand if random else torch.zeros)(
                tuple(value.shape), dtype=value.dtype, device=value.device
            )

        with unset_fake_temporarily(), torch.random.fork_rng(devices=[]):
            tensors = [*leaf.named_parameters(), *leaf.named_buffers()]
            memo = {
                id(t): nn.Parameter(real(t), t.requires_grad)
                if isinstance(t, nn.Parameter)
                else real(t)
                for _, t in tensors
            }
            twin = copy.deepcopy(leaf, memo)
            out = twin(*pytree.tree_map(real, args), **pytree.tree_map(real, kwargs))
        return pytree.tree_map_only(torch.Tensor, trace.fake_mode.from_tensor, out)


def run_node(
    trace: Trace,
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    env: Mapping[fx.Node, Any],
    values: Mapping[str, Any],
    known: dict[Any, Any] | None,
) -> Any:
    """What one node returns on fake tensors; `known` keeps results by operation and shapes."""
    if node.op == "placeholder":
        if node.target in values:
            return values[str(node.target)]
        if node.args:
            return node.args[0]
        raise PlanError(f"the input {node.target!r} has no value; pass example_input=")
    if node.op == "get_attr":
        value: Any = trace.root
        for atom in str(node.target).split("."):
            value = getattr(value, atom)
        return value
    args = fx.node.map_arg(node.args, env.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, env.__getitem__)
    if node.op == "output" or _asserts_values(node, args):
        return None
    key = None if known is None else _key(node, modules, args, kwargs)
    if key is not None and known is not None and key in known:
        return known[key]
    result: Any
    if node.op == "call_module":
        result = _call_leaf(trace, modules[str(node.target)], args, kwargs)
    elif node.op == "call_method":
        result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    if key is not None and known is not None:
        known[key] = result
    return result


def _asserts_values(node: fx.Node, args: Any) -> bool:
    """An assertion about the values of a tensor, which a fake one has not."""
    return node.target is ASSERT and isinstance(args[0], torch.Tensor)


_RESHAPES_IN_PLACE = frozenset(
    "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ resize_ resize_as_ set_ "
    "as_strided_".split()
)


def _keeps_shapes(trace: Trace) -> bool:
    """Whether no node changes the shape of a tensor that exists, so that results can be shared."""
    return all(n.target not in _RESHAPES_IN_PLACE for n in trace.graph.nodes)


def _key(node: fx.Node, modules: Mapping[str, nn.Module], args: Any, kwargs: Any) -> Any:
    """What the shape of a result depends on, or None: a deep network repeats its operations."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        plain = type(module).__module__.startswith("torch.nn.modules.")
        hooked = has_forward_hooks(module)
        if not plain or hooked or next(module.children(), None) is not None:
            return None
        weight = getattr(module, "weight", None)
        dtype = weight.dtype if isinstance(weight, torch.Tensor) else None
        called: Any = (type(module), module.extra_repr(), module.training, dtype)
    elif node.op == "call_method" or getattr(node.target, "__module__", "") in _PURE_MODULES:
        called = node.target
    else:
        return None
    try:
        key = (called, _signature(args), _signature(kwargs))
        hash(key)
    except TypeError:
        return None
    return key


_PURE_MODULES = (None, "_operator", "torch", "torch.nn.functional", "torch._C._nn")


def _signature(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype, value.device)
    if isinstance(value, (tuple, list)):
        return tuple(_signature(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    return (type(value), value)


def measure(
    trace: Trace, example: Any = None, also: Trace | None = None
) -> tuple[Shapes, list[str]]:
    """Shapes at the network's own size and at probe sizes; notes on the sizes it refused.

    `also` is the trace in training mode, where it differs: an auxiliary head may need more pixels.
    Raises `PlanError` if no size can be run, with the network's own error for the likeliest one.
    """
    if example is not None:
        first = image_of(example)
        tries = [tuple(first.shape)]
    else:
        tries = candidate_inputs(trace.root)
    failure = ""
    folded = None
    for shape in tries:
        env, error = propagate(trace, fake_inputs(trace, example, shape))
        if error is None and also is not None:
            error = propagate(also, fake_inputs(also, example, shape))[1]
            error = error and f"in training mode, {error}"
        if error is None and _keeps_images_apart(trace, env, shape[0]):
            return _probe(trace, example, shape, env)
        if error is None:
            folded = folded or (shape, env)
        failure = failure or f"at input {tuple(shape)}: {error}"
    if folded is not None:
        return _probe(trace, example, *folded)
    raise PlanError(
        f"{type(trace.root).__name__} runs at none of the sizes tried; {failure}. "
        "Pass example_input= with a tensor (or a tuple, or a dict by name) that it accepts."
    )


def _keeps_images_apart(trace: Trace, env: Mapping[fx.Node, Any], batch: int) -> bool:
    """Whether some tensor returned has a row for each image.

    `x.view(-1, 8 * 4 * 4)` before a classifier takes any larger image for several.
    """
    output = next(reversed(trace.graph.nodes))
    returned = [env[n] for n in output.all_input_nodes if isinstance(env.get(n), torch.Tensor)]
    return not returned or any(value.shape[:1] == (batch,) for value in returned)


def measure_at(trace: Trace, shape: Shape) -> Shapes:
    """Shapes at a size that is known to run, and at its probes."""
    env, error = propagate(trace, fake_inputs(trace, None, shape))
    if error is not None:
        raise PlanError(f"{type(trace.root).__name__} fails in training mode: {error}")
    return _probe(trace, None, shape, env)[0]


def _probe(
    trace: Trace, example: Any, shape: Shape, env: dict[fx.Node, Any]
) -> tuple[Shapes, list[str]]:
    runs, inputs, notes = [env], [shape], []
    apart = _keeps_images_apart(trace, env, shape[0])
    for other in probes_of(shape)[1:]:
        run, error = propagate(trace, fake_inputs(trace, example, other))
        if error is not None:
            notes.append(f"the network itself refuses {'x'.join(map(str, other[2:]))} ({error})")
        elif apart and not _keeps_images_apart(trace, run, other[0]):
            _drop_folded(trace, env, run, other[0])
            notes.append(f"at {'x'.join(map(str, other[2:]))} the network takes one image for more")
        runs.append(run)
        inputs.append(other)
    table, dtypes, numbers = {}, {}, {}
    for node in trace.graph.nodes:
        value = env.get(node)
        if _plain(value) and all(node not in run or run[node] == value for run in runs):
            numbers[node] = value
        rows = tuple(
            tuple(int(n) for n in run[node].shape)
            if isinstance(run.get(node), torch.Tensor)
            else None
            for run in runs
        )
        if rows[0] is not None:
            table[node] = rows
            dtypes[node] = env[node].dtype
    return Shapes(table, tuple(inputs), dtypes, numbers), notes


def _drop_folded(
    trace: Trace, env: Mapping[fx.Node, Any], run: dict[fx.Node, Any], batch: int
) -> None:
    """Take out of a run what derives from the tensor in which images got mixed."""
    lost: set[fx.Node] = set()
    for node in trace.graph.nodes:
        first, value = env.get(node), run.get(node)
        folded = (
            isinstance(first, torch.Tensor)
            and isinstance(value, torch.Tensor)
            and first.shape[:1] == (batch,) != value.shape[:1]
        )
        if folded or any(source in lost for source in node.all_input_nodes):
            lost.add(node)
            run.pop(node, None)


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_plain, value))
    return isinstance(value, (bool, int, float, str))
