"""Imports inside of a forward, which the first recording of a process is the first to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NETS = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def before(self, x):
        return x

    def forward(self, x):
        return x + self.b(torch.relu(self.a(self.before(x))))


class Einops(Block):
    def before(self, x):
        from einops import rearrange
        rows = rearrange(x, "b c h w -> b (h w) c")
        return rearrange(rows, "b (h w) c -> b c h w", h=x.shape[2])


class Parts(Block):
    def before(self, x):
        from lazy.parts import halves
        return halves(x)


class Grids(Block):
    def before(self, x):
        from lazy.grids import grid
        return x + grid(x.shape[2], x.shape[3])


class Net(nn.Sequential):
    def __init__(self, block):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), block(), block(), block(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )
"""

PARTS = """
import torch


def halves(x):
    half = int(x.shape[2] / 2)
    return torch.cat([x[:, :, half:], x[:, :, :half]], 2)
"""

GRIDS = """
import functools
import torch

KEPT = {}


@functools.lru_cache
def ramp(n):
    return torch.linspace(0, 1, n)


def grid(h, w):
    if (h, w) not in KEPT:
        KEPT[h, w] = ramp(h).view(-1, 1) + ramp(w)
    return KEPT[h, w]
"""

WRITE = """
import pickle, sys, warnings
import torch, rlawrap
from lazy import nets
warnings.simplefilter("error", rlawrap.RLAWarning)
for block, late in (
    (nets.Einops, "einops"), (nets.Parts, "lazy.parts"), (nets.Grids, "lazy.grids")
):
    assert late not in sys.modules
    net = nets.Net(block).eval()
    model = rlawrap.apply(net, k=4)
    assert late in sys.modules
    assert model.plan.notes == (), (late, model.plan.notes)
    assert len(model.plan.blocks) == 3
    for size in ((2, 3, 224, 224), (3, 3, 32, 40), (1, 3, 18, 18)):
        x = torch.randn(size)
        torch.testing.assert_close(model(x), net(x))
pickle.dump(rlawrap.attend(nets.Net(nets.Einops).eval(), "se"), open(sys.argv[1], "wb"))
"""

READ = """
import pickle, sys
import torch
model = pickle.load(open(sys.argv[1], "rb"))
assert "einops" in sys.modules
for size in ((3, 3, 32, 40), (1, 3, 18, 18)):
    for training in (False, True):
        assert model.train(training)(torch.zeros(size)).shape == (size[0], 5)
"""


@pytest.fixture
def lazy(tmp_path: Path) -> Path:
    """A folder with a package of networks that import while they run."""
    package = tmp_path / "lazy"
    package.mkdir()
    for name, text in (("__init__", ""), ("nets", NETS), ("parts", PARTS), ("grids", GRIDS)):
        (package / f"{name}.py").write_text(text)
    return tmp_path


def _run(folder: Path, code: str) -> None:
    """Run code in a fresh process, which finds the package and rlawrap; it is given a file."""
    code = f"import sys; sys.path[:0] = {[str(folder), *sys.path]!r}\n{code}"
    command = [sys.executable, "-c", code, str(folder / "gated.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_rewrite_of_a_process_is_as_any_other(lazy: Path) -> None:
    _run(lazy, WRITE)
    _run(lazy, READ)
