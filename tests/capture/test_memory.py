"""Item assignment, views and writing in place: in order, and seen by who reads the memory later."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Variable

import rlawrap
from tests.capture.checking import Block, Net, applied, check, images


class Strided(Net):
    def before(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        z[:, ::2] = x[:, 1:].mean(1, keepdim=True)
        z[..., 1:, :] += x[..., :-1, :]
        z[:, 1] = 0.5
        return z


class Shift(Block):
    """Moves channels along the images of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        out[:-1, :2] = x[1:, :2]
        out[-1:, :2] = x[:1, :2]
        out[:, 2:] = x[:, 2:]
        return x + self.body(out)


class Volume(Net):
    """A cost volume, folded back into an image."""

    def before(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        cost = x.new_zeros(n, c, 3, h, w)
        cost[:, :, 0] = x
        for i in (1, 2):
            cost[:, :, i, :, i:] = x[..., i:] - x[..., :-i]
        return cost.sum(2)


class Wavelet(Block):
    """Takes the four corners of every square apart and puts them together again."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (x.shape[2] // 2 * 2, x.shape[3] // 2 * 2))
        a, b = x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2]
        y = torch.zeros_like(x)
        y[:, :, 0::2, 0::2], y[:, :, 1::2, 1::2] = b, a
        return x + self.body(y)


class ThroughAView(Net):
    """Writes to a view, then reads the tensor that it shows."""

    def before(self, x: Tensor) -> Tensor:
        y = x * 2
        first, rest = y[:, :1], y[:, 1:]
        first.mul_(3.0)
        first += 1
        rest[:, 0].add_(first[:, 0])
        return y + first


class ThroughTheBase(Net):
    """Keeps a view of a tensor that is written to."""

    def before(self, x: Tensor) -> Tensor:
        y = x + 1
        flat = y.view(x.size(0), -1)
        y.clamp_(max=1.2)
        y[:, 0] *= 0.5
        return y - flat.mean(1).view(-1, 1, 1, 1)


class Chunks(Block):
    """Writes to one part of a split; the other stays."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.0
        a, b = y[:, :4], y[:, 4:]
        a.relu_()
        return x + self.body(torch.cat([b, a], 1))


class Returned(Net):
    """Functions that may return what they got are no other name of it."""

    def before(self, x: Tensor) -> Tensor:
        y = x.contiguous().to(x.dtype).float()
        z = F.dropout(y, 0.0, self.training)
        z = z.add_(1) if z is y else z + 1
        return z * 2 + x.type_as(y) * 0


class Masked(Net):
    def before(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[y < 0] = 0.1
        y.masked_fill_(y > 1, 1.0)
        y[:, torch.tensor([0, 2])] = x[:, [1, 1]]
        return y


class Zeros(Net):
    """Writes into tensors of its own making, before and after they are used."""

    def before(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.size(0), 1, x.size(2), 1)
        y = x * mask
        mask[:, :, ::2] = 0
        mask[0] = 1
        return y + x * mask


class Variables(Block):
    """Wraps tensors the old way, in `Variable`s: a buffer, a value and what it makes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(8))

    def forward(self, x: Tensor) -> Tensor:
        picked = torch.index_select(x, 1, Variable(self.order))
        none = Variable(torch.zeros(x.size(0), 4, x.size(2), x.size(3)))
        return picked + self.body(x) + torch.cat([Variable(x)[:, :4], none], 1)


class Noise(Block):
    """Random numbers of the old way: a new draw for every call."""

    def forward(self, x: Tensor) -> Tensor:
        mask = Variable(torch.FloatTensor(4, 1, 1, 1).bernoulli_(0.5))
        return x + self.body(x) * mask[: x.size(0)]


WRITING = [
    Strided, Volume, ThroughAView, ThroughTheBase, Returned, Masked, Zeros,
]  # fmt: skip


def _net(kind: type[nn.Module]) -> Net:
    return kind() if issubclass(kind, Net) else Net(kind)


KINDS = [*WRITING, Shift, Wavelet, Chunks, Variables]


def test_what_a_variable_shows_is_drawn_anew() -> None:
    base = _net(Noise)
    model = applied(base)
    x = torch.randn(3, 3, 16, 16)
    outputs = []
    for seed in range(6):
        torch.manual_seed(seed)
        expected = base(x)
        torch.manual_seed(seed)
        outputs.append(model(x))
        torch.testing.assert_close(outputs[-1], expected)
    assert any(not torch.allclose(outputs[0], out) for out in outputs[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_written_as_the_base_writes(kind: type[Any]) -> None:
    base = _net(kind)
    check(base, applied(base), images())


@pytest.mark.parametrize("kind", [Strided, Shift, Wavelet, ThroughAView])
def test_under_checkpointing(kind: type[Any]) -> None:
    base = _net(kind)
    model = applied(base)
    model.set_grad_checkpointing(True)
    check(base, model, images([(2, 16, 16), (3, 20, 24)]))


@pytest.mark.parametrize("kind", [Strided, Shift, ThroughTheBase])
def test_exported(kind: type[Any]) -> None:
    base = _net(kind).eval()
    x = torch.randn(3, 3, 16, 16)
    program = torch.export.export(applied(base).eval(), (x,))
    torch.testing.assert_close(program.module()(x), base(x), rtol=1e-4, atol=1e-5)


def test_the_flow_runs_through_what_is_written() -> None:
    model = rlawrap.apply(_net(Shift), k=4)
    assert [b.entries for b in model.plan.blocks] == [(f"body.{i}.a",) for i in range(3)]


class Frames(nn.Conv3d):
    """Causal in time: what precedes a piece of a film is kept from the piece before."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=(0, 1, 1))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = x[:, :, :1].expand(-1, -1, 2, -1, -1) if self.last is None else self.last
        x = torch.cat([before, x], 2)
        self.last = x[:, :, -2:]
        return super().forward(x)


class Film(nn.Module):
    """Residual blocks over a film that comes in two pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 1)
        self.blocks = nn.ModuleList(FilmBlock() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            block.a.last = block.b.last = None
        pieces = []
        for piece in self.stem(x).split(2, 2):
            for block in self.blocks:
                piece = block(piece)
            pieces.append(piece)
        for block in self.blocks:
            block.a.last = block.b.last = None
        return torch.cat(pieces, 2)


class FilmBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Frames(), Frames()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


def test_a_convolution_that_keeps_what_came_before() -> None:
    base = Film()
    x = torch.randn(2, 3, 4, 6, 6)
    model = rlawrap.apply(base, k=4, example_input=x)
    assert [b.path for b in model.plan.blocks] == [
        *("blocks.0", "blocks.1", "blocks.2"), *("blocks.0#1", "blocks.1#1", "blocks.2#1")
    ]  # fmt: skip
    assert [b.entries for b in model.plan.blocks[:3]] == [
        ("blocks.0.a:conv3d",), ("blocks.1.a:conv3d",), ("blocks.2.a:conv3d",)
    ]  # fmt: skip
    check(base, model, [x, torch.randn(2, 3, 4, 6, 6)])
