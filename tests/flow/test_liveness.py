"""What a gradient passes, told from the graph and compared with the gradients themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlawrap.capture.trace import Trace
from rlawrap.flow.liveness import Liveness
from rlawrap.flow.traced import trace_model

PIXELS = (2, 3)


def by_parts(scale: Tensor) -> Tensor:
    """The scale, of which a view was written into."""
    scale[:2].add_(1.0)
    return scale


Use = Callable[["Uses", Tensor, Tensor], Tensor]

#: What a network may do with a layer's output: by the reason for which it is lost, if it is.
LOST: dict[str, tuple[str, Use]] = {
    "detached": ("passes no gradient on", lambda net, x, y: y.detach() * 2),
    "data": ("passes no gradient on", lambda net, x, y: y.data + 1),
    "rounded": ("passes no gradient on", lambda net, x, y: torch.round(y)),
    "like": ("passes no gradient on", lambda net, x, y: torch.ones_like(y)),
    "compared": ("returns no floats", lambda net, x, y: x[:, :1] * (y > 0)),
    "argmax": ("returns no floats", lambda net, x, y: y.argmax(1).float()),
    "no part": ("keeps nothing of it", lambda net, x, y: torch.cat([x, y[:, :0]], 1)),
    "shape": ("reads its shape or type alone", lambda net, x, y: x.mean(1, True).expand_as(y)),
    "number": ("multiplies it by zero", lambda net, x, y: 0.0 * y),
    "buffer": ("multiplies it by zero", lambda net, x, y: y * net.zero.view(1, 4, 1, 1)),
    "zeros": ("multiplies it by zero", lambda net, x, y: torch.zeros(4, 1, 1) * y),
    "kernel": ("multiplies it by zero", lambda net, x, y: F.conv2d(y, net.kernel * net.zero)),
    "one value": (
        "normalises each value alone",
        lambda net, x, y: net.groups(y.mean(PIXELS, True)),
    ),
    "one channel": ("normalises each value alone", lambda net, x, y: net.one(y.mean(1)[..., None])),
    "one choice": ("normalises each value alone", lambda net, x, y: y.mean(1, True).softmax(1)),
    "centred": (
        "averages what an instance norm has centred",
        lambda net, x, y: net.point(F.instance_norm(y)).mean(PIXELS),
    ),
    "centred groups": (
        "averages what an instance norm has centred",
        lambda net, x, y: F.adaptive_avg_pool2d(net.groups(y), 1),
    ),
}
ALIVE: dict[str, Use] = {
    "scale at zero": lambda net, x, y: net.gamma * y,
    "straight through": lambda net, x, y: y + (y.round() - y).detach(),
    "square": lambda net, x, y: y * y,
    "masked": lambda net, x, y: y * (y > 0),
    "part of a mask": lambda net, x, y: y * net.some.view(1, 4, 1, 1),
    "written": lambda net, x, y: y * net.filled.fill_(1.0),
    "written later": lambda net, x, y: (y * net.seen.clone(), net.seen.add_(1.0))[0],
    "filled zeros": lambda net, x, y: y * torch.zeros(4, 1, 1).add_(1),
    "filled by parts": lambda net, x, y: y * by_parts(torch.zeros(4, 1, 1)),
    "view written later": lambda net, x, y: (y * net.parted.clone(), by_parts(net.parted))[0],
    "active": lambda net, x, y: torch.relu(net.groups(y)).mean(PIXELS),
    "smoothed": lambda net, x, y: F.avg_pool2d(net.groups(y), 3, 1, 1).mean(PIXELS),
    "pairs": lambda net, x, y: nn.functional.group_norm(y, 2).mean(PIXELS),
    "choices": lambda net, x, y: y.softmax(1),
}


_BUFFERS = (
    ("zero", (0.0,) * 4),
    ("some", (0.0, 0.0, 1.0, 1.0)),
    ("filled", (0.0,)),
    ("seen", (0.0,)),
    ("parted", (((0.0,),),) * 4),
)


class Uses(nn.Module):
    """A layer for each use, of one image; all results are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in (*LOST, *ALIVE))
        self.groups, self.one, self.point = nn.GroupNorm(4, 4), nn.LayerNorm(1), nn.Conv2d(4, 4, 1)
        self.gamma, self.kernel = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(4, 4, 1, 1))
        for name, values in _BUFFERS:
            self.register_buffer(name, torch.tensor(values))

    def forward(self, x: Tensor) -> list[Tensor]:
        uses = [*(use for _, use in LOST.values()), *ALIVE.values()]
        return [use(self, x, layer(x)) for use, layer in zip(uses, self.layers, strict=True)]


def learning(net: Uses) -> list[bool]:
    """For each use, whether a gradient comes back from its result, once values have changed."""
    nn.init.ones_(net.gamma)
    net(torch.randn(2, 3, 8, 8))
    found = []
    for layer, out in zip(net.layers, net(torch.randn(2, 3, 8, 8)), strict=True):
        (gradient,) = (
            torch.autograd.grad(
                (out * torch.randn_like(out)).sum(), layer.weight, allow_unused=True
            )
            if out.requires_grad
            else (None,)
        )
        found.append(gradient is not None and gradient.abs().max().item() > 1e-5)
    return found


def _layers(trace: Trace) -> list[fx.Node]:
    return [n for n in trace.graph.nodes if str(n.target).startswith("layers.")]


def test_what_is_lost_and_what_is_alive() -> None:
    net = Uses()
    flow = trace_model(net, example_input=torch.zeros(2, 3, 8, 8)).flow
    living = Liveness(flow)
    alive, names = living.returned(), [*LOST, *ALIVE]
    layers = _layers(flow.trace)
    assert [name for name, n in zip(names, layers, strict=True) if n in alive] == [*ALIVE]
    reasons = [[why for _, why in living.cuts(n)][:1] for n in layers[: len(LOST)]]
    assert reasons == [[why] for why, _ in LOST.values()]
    assert [name for name, learns in zip(names, learning(net), strict=True) if learns] == [*ALIVE]
