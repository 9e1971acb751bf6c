"""FSDP2 over two gloo processes: stages and the root sharded, same outputs and gradients."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import rlawrap
from tests.forks import SERVER, forks
from tests.nets import Residual, random_rla, relative, uneven

fsdp = pytest.importorskip("torch.distributed.fsdp", reason="FSDP2 is not in this torch")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("FSDP2 is not in this torch", allow_module_level=True)


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.layer2 = nn.Sequential(Residual(8, 16, 2), Residual(16, 16))
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def build() -> nn.Module:
    torch.manual_seed(0)
    return random_rla(rlawrap.apply(uneven(Staged()).eval(), k=4))


def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    model = build()
    for stage in (model.layer1, model.layer2):
        fsdp.fully_shard(stage, mesh=mesh)
    fsdp.fully_shard(model, mesh=mesh)
    out = model(images())
    out.square().sum().backward()
    gradients: dict[str, Any] = {n: p.grad.full_tensor() for n, p in model.named_parameters()}
    if rank == 0:
        kept = isinstance(model, Staged) and isinstance(model, rlawrap.RLAModel)
        torch.save({"out": out.detach(), "kept": kept, **gradients}, f"{folder}/result.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_equal_to_the_model_of_one_process() -> None:
    model = build()
    out = model(images())
    out.square().sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        forks()
        mp.start_processes(_worker, args=(folder,), nprocs=2, start_method=SERVER)
        result = torch.load(f"{folder}/result.pt", weights_only=True)
    assert result.pop("kept")
    assert relative(out, result.pop("out")) < 1e-6
    assert len(result) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert relative(parameter.grad, result[name]) < 1e-4, name
