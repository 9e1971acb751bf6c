"""The processes of a run: who this one is, how it meets the others, what they agree on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from rlawrap import _torch
from rlawrap.errors import ConfigError, RLAError, TrainError
from rlawrap.train.process.signals import die_with_parent

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among the others. All methods but `start_agreement` wait for everyone."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    attempt: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def start_agreement(self, values: Sequence[int]) -> Agreement:
        """Begin to find the largest of each value over all processes; `wait` gives them."""
        return Agreement(values, self.world)

    def agree(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes."""
        return self.start_agreement(values).wait()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank, in all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The value of process 0, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def first_does(self, action: Callable[[], T]) -> T:
        """Process 0 does something; all get its result, or all raise its error.

        That is an `RLAError`; an `OSError` becomes a `TrainError`.
        """
        result: Any = None
        error: RLAError | None = None
        if self.first:
            try:
                result = action()
            except RLAError as caught:
                error = caught
            except OSError as caught:
                error = TrainError(f"process 0 could not read or write: {caught}.")
                error.__cause__ = caught
        if self.world > 1:
            result, error = self.share((result, error))
        if error is not None:
            error.told_by_first = not self.first
            raise error
        return result

    def share_bytes(self, data: bytearray | None) -> bytearray:
        """The bytes of process 0, in all of them; for what is too large to pickle twice."""
        if self.world == 1:
            return data if data is not None else bytearray()
        size = self.share(None if data is None else len(data))
        if data is None:
            data = bytearray(size)
        if size:
            dist.broadcast(torch.frombuffer(data, dtype=torch.uint8), src=0)
        return data

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Give every process the buffers (norm statistics) of process 0."""
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


class Agreement:
    """A question to all processes that is answered while this one works on."""

    def __init__(self, values: Sequence[int], world: int) -> None:
        self._values = torch.tensor(values, dtype=torch.int64)
        self._work = None
        if world > 1:
            self._work = dist.all_reduce(self._values, dist.ReduceOp.MAX, async_op=True)

    def wait(self) -> list[int]:
        """The largest of each value over all processes."""
        if self._work is not None:
            self._work.wait()
        return self._values.tolist()


def restart_count() -> int:
    """How often torchrun has restarted the processes: 0 at first."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def choose_device(name: str, local_rank: int) -> torch.device:
    """The device of this process. Raises `ConfigError` when there is no such device."""
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"device={name!r}: choose one of auto, cpu, cuda, mps.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device='mps': PyTorch finds no Apple GPU. Use --device cpu.")
        if local_rank:
            raise ConfigError("device='mps': it serves one process only. Leave out --nproc.")
        return torch.device("mps")
    if not torch.cuda.is_available():
        raise ConfigError("device='cuda': PyTorch finds no CUDA device. Use --device cpu.")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this node has no GPU of its own: there are "
            f"{torch.cuda.device_count()}. Start as many processes, or use --device cpu."
        )
    return torch.device("cuda", local_rank)


def sum_type(device: torch.device) -> torch.dtype:
    """What sums over many images are kept in: double precision, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def join_processes(device: str = "auto", timeout: float = 600.0) -> Iterator[Processes]:
    """Meet the other processes that torchrun (or srun, or mpirun) started, if there are any.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun sets them.
    """
    rank = _integer("RANK", 0)
    world = _integer("WORLD_SIZE", 1)
    if world < 1 or not 0 <= rank < world:
        raise ConfigError(f"RANK={rank}, WORLD_SIZE={world}: need 0 <= RANK < WORLD_SIZE.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()  # no orphans when torchrun itself is killed
    processes = Processes(
        rank=rank,
        world=world,
        device=choose_device(device, _integer("LOCAL_RANK", 0)),
        attempt=restart_count(),
    )
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    if world == 1:
        yield processes
        return
    _meet(processes, timeout)
    try:
        yield processes
    finally:
        # After a failure the others may be gone: leave without waiting for them.
        if sys.exc_info()[0] is None:
            dist.destroy_process_group()


def _meet(processes: Processes, timeout: float) -> None:
    host = os.environ.get("MASTER_ADDR", "")
    port = _integer("MASTER_PORT", 0)
    if not host or not port:
        raise ConfigError(
            f"WORLD_SIZE={processes.world} but MASTER_ADDR or MASTER_PORT is not set. "
            "Start with torchrun, or with `rlawrap train --nproc N`."
        )
    limit = timedelta(seconds=timeout)
    try:
        store = TCPStore(
            host,
            port,
            is_master=processes.first and not _torch.agent_serves_store(),
            timeout=limit,
            wait_for_workers=False,
        )
        # torchrun keeps one store over all its restarts, and there the addresses of dead
        # processes would be found. Each attempt gets keys of its own.
        own = PrefixStore(f"attempt_{processes.attempt}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if processes.device.type == "cuda" else "gloo",
            store=own,
            rank=processes.rank,
            world_size=processes.world,
            timeout=limit,
        )
    except RuntimeError as error:
        hint = " Choose another port." if _torch.is_port_in_use(error) else ""
        raise TrainError(
            f"process {processes.rank} of {processes.world} could not meet the others at "
            f"{host}:{port}: {_torch.first_line(error)}.{hint}"
        ) from error


def _integer(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name}={text!r}: not a whole number.") from None
