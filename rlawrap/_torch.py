"""Every private name and every message text of PyTorch that rlawrap relies on, and why.

Each entry says why nothing public would do. All are there in 2.9, the oldest version that rlawrap
takes; where an entry says more of its age, that is when its present form came. A version of PyTorch
that breaks one of them is mended here.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.nn.modules import module as _module
from torch.utils import _pytree as _pytree_module
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.hooks import BackwardHook as BackwardHook

# `FakeTensorMode`: finds a shape where meta tensors have no kernel for it, as `torch.export` does;
# nothing public does so. Since 2.0. `pytree`: nested tuples, lists and dicts taken apart; nothing
# public does. `TorchDispatchMode`: sees every operation below autograd, as PyTorch's own counter of
# operations does. Since 2.0.

pytree = _pytree_module

#: Base classes of layers: the public classes (Conv1d … Conv3d, Dropout …) have no other parent of
#: their own. `_ConvTransposeNd` has been one since 1.6; all batch and instance norms, SyncBatchNorm
#: and the lazy ones included, are `_NormBase`.
ConvNd: type[Any] = nn.modules.conv._ConvNd
ConvTransposeNd: type[Any] = nn.modules.conv._ConvTransposeNd
NormBase: type[Any] = nn.modules.batchnorm._NormBase
DropoutNd: type[Any] = nn.modules.dropout._DropoutNd
#: `torch.nn.utils.parametrizations.spectral_norm`, which is a function. Since 1.9.
SpectralNorm: type[Any] = nn.utils.parametrizations._SpectralNorm

#: `torch._assert`: an assertion that a graph keeps; a plain `assert` is gone after tracing. Since
#: 1.8, and what `torch.fx` documents for it.
ASSERT = torch._assert

#: The functions that make tensors and take a `device`; what `torch.set_default_device` goes by.
#: Since 2.0.
CONSTRUCTORS: frozenset[Any] = frozenset(_device_constructors())


def scripted_source(function: Any) -> Any:
    """The Python function that `torch.jit.script` compiled; None where it is not kept.

    Nothing public gives it back; kept for `torch.compile` to inline. Since 2.1.
    """
    return getattr(function, "_torchdynamo_inline", None)


#: What an operator of a library is called by (`torch.ops.torchvision.nms`); public by its name,
#: documented nowhere. Since 1.8.
OpPacket: type[Any] = torch._ops.OpOverloadPacket


def without_modes() -> Any:
    """A region in which torch's functions do not ask `TorchFunctionMode`s.

    Public is only `DisableTorchFunctionSubclass`, which leaves the modes on. Since 1.7.
    """
    return torch._C.DisableTorchFunction()


def is_recorded(tensor: Tensor) -> bool:
    """Whether a compiler, an exporter or a tracer writes down what is done with a tensor.

    Fake tensors are of other types. `torch.jit.is_tracing` is not in the documentation; since 1.0.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return type(tensor) is not Tensor or torch.compiler.is_compiling() or tracing


def is_transformed(*tensors: Tensor) -> bool:
    """Whether vmap, grad or jvp of `torch.func` stands behind one of some tensors.

    Nothing public tells; a batched tensor cannot be written over one that is not. Since 2.0.
    """
    return any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))


def checkpoint_function() -> Any:
    """The autograd function of reentrant checkpoints, which a recording looks into. Since 0.4."""
    from torch.utils import checkpoint

    return checkpoint.CheckpointFunction


#: What fake tensors raise for an operation whose result, or its shape, follows from values. Since
#: 2.0.
VALUE_ERRORS = (DataDependentOutputException, DynamicOutputShapeException)


def asks_for_value(error: RuntimeError) -> bool:
    """Whether a function needed the value of a meta tensor, which is a plain RuntimeError."""
    return "item() cannot be called on meta tensors" in str(error)


@contextmanager
def quiet_fakes() -> Iterator[None]:
    """Without the logger of fake tensors, which prints a traceback for all that they refuse."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


# Graphs


def root_of(graph: fx.Graph) -> fx.Node:
    """What stands before the first node of a graph, also of an empty one."""
    return graph._root


def last_node(graph: fx.Graph) -> fx.Node:
    """The last node of a growing graph; `graph.nodes` would be walked from its start."""
    return graph._root.prev


def forget_tracer(graph: fx.Graph) -> None:
    """Drop the tracer that made a graph, which holds on to the network and is not pickled."""
    graph._tracer_cls = None
    graph._tracer_extras = None


# Calls of modules and their hooks

#: `torch.utils.hooks.BackwardHook`: what `nn.Module.__call__` makes of full backward hooks. Public
#: by its name, but documented nowhere. Since 1.8.

#: The attribute that `nn.Module.compile` sets: a copy of a model compiles itself. Since 2.2.
COMPILED_CALL = "_compiled_call_impl"


def pre_hooks(module: nn.Module) -> list[tuple[Any, bool]]:
    """The forward pre-hooks that a call of `module` runs, in order, each with whether it takes
    keyword arguments; what `nn.Module.__call__` reads. `_forward_pre_hooks_with_kwargs` since 2.0.
    """
    own = module._forward_pre_hooks
    with_kwargs = module._forward_pre_hooks_with_kwargs
    both = [(h, False) for h in _module._global_forward_pre_hooks.values()]
    return both + [(hook, key in with_kwargs) for key, hook in own.items()]


def forward_hooks(module: nn.Module) -> list[tuple[Any, bool]]:
    """The forward hooks that a call of `module` runs, as `pre_hooks`."""
    own, with_kwargs = module._forward_hooks, module._forward_hooks_with_kwargs
    both = [(hook, False) for hook in _module._global_forward_hooks.values()]
    return both + [(hook, key in with_kwargs) for key, hook in own.items()]


def own_pre_hooks(module: nn.Module) -> dict[int, Any]:
    """The table of a module's forward pre-hooks, to look through and to take some out."""
    return module._forward_pre_hooks


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a module has forward hooks or pre-hooks of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables of the hooks that run around a call of a module."""
    return [
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    ]


def forward_hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables of the hooks before and behind a forward."""
    return hook_tables(module)[:2]


def clear_hooks(module: nn.Module, *, before: bool = False) -> None:
    """Take off the forward hooks of a module, and those `before` its forward if asked."""
    module._forward_hooks.clear()
    module._forward_hooks_with_kwargs.clear()
    module._forward_hooks_always_called.clear()
    if before:
        module._forward_pre_hooks.clear()
        module._forward_pre_hooks_with_kwargs.clear()


def hooks_source(name: str, ours: int) -> str:
    """Python text: whether the module in the variable `name` has hooks, `ours` pre-hooks apart."""
    return (
        f"{name}._forward_hooks or len({name}._forward_pre_hooks) != {ours} "
        f"or {name}._backward_hooks or {name}._backward_pre_hooks"
    )


def backward_hooks(module: nn.Module) -> tuple[list[Any], list[Any], list[Any]]:
    """(full backward hooks, hooks of the old kind, backward pre-hooks) of a call of `module`."""
    full, old = module._get_backward_hooks()
    return list(full), list(old), list(module._get_backward_pre_hooks())


def global_hooks() -> bool:
    """Whether hooks are registered for all modules (`register_module_forward_hook` and its kin)."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


# Tensors


def lerp_all(averages: list[Tensor], values: list[Tensor], weight: float) -> None:
    """Move every average towards its value, in place: `Tensor.lerp_` for a list, one kernel.

    `torch._foreach_lerp_` is what `torch.optim` uses itself; public is only the loop over single
    tensors, a kernel each.
    """
    torch._foreach_lerp_(averages, values, weight)


def writes(tensor: Tensor) -> int:
    """How often a tensor's memory was written to; -1 for one of inference mode, which has no count.

    `_version` is what autograd itself checks. Since 0.4.
    """
    return -1 if tensor.is_inference() else tensor._version


def base_of(tensor: Tensor) -> Tensor:
    """The tensor that a view shows; the tensor itself if it is none. `_base` since 0.4."""
    return tensor if tensor._base is None else tensor._base


def memory_of(tensor: Tensor) -> int:
    """A number of the memory that a tensor lies in, also on `meta`. `_cdata` since 2.0."""
    return int(tensor.untyped_storage()._cdata)


# Loader processes


def is_loader_timeout(error: RuntimeError) -> bool:
    """Whether a DataLoader gave up waiting for a batch after its `timeout`.

    That is a plain RuntimeError, which only its text tells from others.
    """
    return str(error).startswith("DataLoader timed out")


def leave_deaths_to_next(loader: DataLoader[Any]) -> None:
    """Have a DataLoader tell of a process that died when it is asked for a batch, not before.

    A handler of SIGCHLD raises the error wherever the main thread is, be it in the middle of an
    optimiser's step. It goes by PyTorch's list of processes, off which they are taken here; `next`
    looks after them by itself after each timeout.
    """
    iterator: Any = loader._iterator
    if getattr(iterator, "_worker_pids_set", False):
        torch._C._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def loader_processes(loader: DataLoader[Any]) -> list[Any]:
    """The processes of a DataLoader, as `multiprocessing` has them; `_workers` since 0.4."""
    return list(getattr(loader._iterator, "_workers", ()))


#: Words of errors that a DataLoader raises itself when its processes fail, or the way to them.
_LOADER_FAILED = ("DataLoader worker (pid", "Too many open files", "ancdata", "shared memory")


def is_loader_failure(error: BaseException) -> bool:
    """Whether a DataLoader's processes failed, not the data set in them.

    The data set's errors come with a text of their own. All others are plain errors of the system
    (no descriptors, no memory, a broken connection), or RuntimeErrors that only their text tells.
    """
    text = str(error)
    if "in DataLoader worker process" in text:
        return False
    if isinstance(error, (OSError, EOFError)):
        return True
    return isinstance(error, RuntimeError) and any(word in text for word in _LOADER_FAILED)


def kill_loader_processes(loader: DataLoader[Any]) -> None:
    """End the processes of a DataLoader at once, also those that hang in a read.

    A DataLoader has no `close`: it ends its processes when it is collected, and waits for them.
    `_iterator` keeps them since 1.7. They are taken off PyTorch's list of processes first, or it
    raises an error wherever the main thread is, for one that died.
    """
    leave_deaths_to_next(loader)
    for worker in loader_processes(loader):
        worker.kill()
    loader._iterator = None


# Processes that meet


def agent_serves_store() -> bool:
    """Whether torchrun's agent serves the store at MASTER_ADDR:MASTER_PORT, not process 0.

    A variable of torchrun that is not documented. The documented way, `init_method="env://"`, reads
    it itself, but has no keys per attempt.
    """
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def is_port_in_use(error: RuntimeError) -> bool:
    """Whether a store could not be served as its port is taken.

    That is a `DistNetworkError`, which has its error number in its text alone.
    """
    return isinstance(error, dist.DistNetworkError) and "in use" in str(error)


#: Words of gloo and NCCL for a connection that broke or a peer that does not answer.
_LOST = ("Connection closed", "Connection reset", "gloo", "NCCL", "Broken pipe", "Timed out")


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether a collective failed since another process is gone or does not answer.

    NCCL and the stores raise a `DistError`, which is public; gloo raises a plain RuntimeError, and
    NCCL, too, where its watchdog does.
    """
    return isinstance(error, dist.DistError) or any(word in str(error) for word in _LOST)


def without_source_line(error: RuntimeError) -> str:
    """The first line of an error, without the place in gloo's source that it begins with."""
    return re.sub(r"^\[\S+\]\s*", "", first_line(error))


def first_line(error: Exception) -> str:
    """What an error says, without the C++ stack that may follow; its class when it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, kw_only=True)
class TorchrunEnd:
    """How torchrun ended: by a signal, or as the process of some rank failed, or well (neither).

    exitcode: of the process that failed first; negative for the signal that killed it.
    """

    signal: int | None = None
    failed_rank: int | None = None
    exitcode: int = 0


def _keep_ignoring(context: Any) -> None:
    """Have torchrun ignore what is ignored now (SIGHUP, by nohup), also in the processes it starts.

    Before 2.10 it sets handlers of its own right before it starts them, whatever was there.
    """
    start = context._start
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]

    def start_ignoring(self: Any) -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        start(self)

    context._start = start_ignoring


def run_torchrun(arguments: Sequence[str], *, signals: Sequence[str], patience: int) -> TorchrunEnd:
    """Be torchrun's agent, in this process, and say nothing in its name.

    signals: names of those that are passed on to the processes and end the run. patience: seconds
    that the processes have after one, before they are killed.

    Raises `OSError` when the processes could not meet. `torch.distributed.run`, since 1.9, is
    documented as a command alone, its functions and errors are not.
    """
    # The agent's own reports repeat what the processes have said, with tracebacks.
    os.environ.setdefault("LOGLEVEL", "CRITICAL")
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import (
        PContext,
        SignalException,
        SubprocessContext,
    )
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    def end(number: int, frame: FrameType | None) -> None:
        raise SignalException(f"signal {number}", sigval=signal.Signals(number))

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    known = torchrun.get_args_parser().format_help()
    endings = {"--signals-to-handle": ",".join(signals), "--shutdown-timeout": patience}
    options = [f"{name}={value}" for name, value in endings.items() if name in known]
    if "--signals-to-handle" not in known:  # since 2.10; torchrun handles some of them before
        for name in signals:
            signal.signal(getattr(signal, name), end)
        _keep_ignoring(SubprocessContext)
    if "--shutdown-timeout" not in known:  # since 2.12; half a minute before
        PContext.close.__defaults__ = (None, patience)
    try:
        torchrun.run(torchrun.parse_args([*options, *arguments]))
    except SignalException as error:
        return TorchrunEnd(signal=int(error.sigval))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return TorchrunEnd(failed_rank=rank, exitcode=failure.exitcode)
    except RendezvousError as error:
        raise ConnectionError(str(error)) from error
    return TorchrunEnd()


def compile_and_package(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compile a program with AOTInductor into a file that ends in .pt2.

    AOTInductor is documented under these names of `torch._inductor`, and has no others. Since 2.6.
    """
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(program, package_path=str(path))


def load_package(path: Path) -> Callable[..., Any]:
    """What `compile_and_package` wrote, to be called. Since 2.6."""
    from torch._inductor import aoti_load_package

    return aoti_load_package(str(path))
