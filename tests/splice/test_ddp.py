"""DistributedDataParallel over two gloo processes: no unused parameter, one gradient for all."""

from __future__ import annotations

import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import rlawrap
from tests.forks import SERVER, forks
from tests.nets import BlockNet, random_rla


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    model = random_rla(rlawrap.apply(BlockNet(), k=4))
    model.drop.p = 0.0
    ddp = DistributedDataParallel(model)
    optimiser = torch.optim.SGD(ddp.parameters(), lr=0.1)
    torch.manual_seed(rank)
    for _ in range(3):  # an unused parameter raises at the second step
        optimiser.zero_grad()
        ddp(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimiser.step()
    torch.save(dict(ddp.module.named_parameters()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_stay_equal() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        forks()
        mp.start_processes(_worker, args=(folder,), nprocs=2, start_method=SERVER)
        first, second = (torch.load(f"{folder}/{r}.pt", weights_only=True) for r in (0, 1))
    start = dict(random_rla(rlawrap.apply(BlockNet(), k=4)).named_parameters())
    assert first.keys() == second.keys() == start.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    moved = [n for n in first if n.startswith("rla.") and not torch.equal(first[n], start[n])]
    assert len(moved) == sum(n.startswith("rla.") for n in first)
