"""Running a network and comparing what comes out, and what must be as it was before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.copying import deep_copy
from tests.fuzz.build import inputs_of, tensors_of
from tests.fuzz.spec import NetSpec


class Broken(AssertionError):
    """An invariant that does not hold."""


def demand(holds: bool, text: str) -> None:
    if not holds:
        raise Broken(text)


class Snapshot:
    """All that `apply` must leave as it was: bits, modes, hooks, flags, attributes."""

    def __init__(self, net: nn.Module) -> None:
        self.state = {k: v.clone() for k, v in net.state_dict().items()}
        self.order = list(net.state_dict())
        self.identities = [(n, id(p), p.requires_grad) for n, p in net.named_parameters()]
        self.modules = [(n, *self._of(m)) for n, m in net.named_modules(remove_duplicate=False)]
        self.random = torch.get_rng_state()

    @staticmethod
    def _of(module: nn.Module) -> tuple[Any, ...]:
        attributes = module.__dict__
        hooks = {k: dict(v) for k, v in attributes.items() if k.endswith("_hooks")}
        plain = {
            k: v for k, v in attributes.items() if isinstance(v, (bool, int, float, str, tuple))
        }
        parts = {k: {n: id(m) for n, m in attributes[k].items()} for k in ("_modules", "_buffers")}
        return list(attributes), hooks, plain, parts, type(module)

    def compare(self, net: nn.Module, after: str) -> None:
        now = Snapshot(net)
        demand(self.order == now.order, f"{after} changed the keys of the input model")
        for key, value in self.state.items():
            demand(bits_equal(value, now.state[key]), f"{after} changed {key}")
        demand(self.identities == now.identities, f"{after} changed parameters or requires_grad")
        for was, new in zip(self.modules, now.modules, strict=True):
            demand(was == new, f"{after} changed module {was[0]!r}: {was[1:]} -> {new[1:]}")
        demand(torch.equal(self.random, now.random), f"{after} used the global random state")


def bits_equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def close(a: Any, b: Any, tolerance: float, what: str) -> None:
    """Same structure, shapes, and values up to a relative error."""
    first, second = tensors_of(a), tensors_of(b)
    demand(len(first) == len(second), f"{what}: {len(first)} outputs became {len(second)}")
    demand(
        type(a) is type(b) or isinstance(a, Tensor),
        f"{what}: a {type(a).__name__} became a {type(b).__name__}",
    )
    if isinstance(a, dict):
        demand(list(a) == list(b), f"{what}: other keys")
    for x, y in zip(first, second, strict=True):
        demand(x.shape == y.shape, f"{what}: shape {tuple(x.shape)} became {tuple(y.shape)}")
        scale = x.abs().max().clamp(min=1e-6)
        error = float((x - y).abs().max() / scale)
        demand(error <= tolerance, f"{what}: relative error {error:.2g}")


def differs(a: Any, b: Any) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(tensors_of(a), tensors_of(b), strict=True))


def run(
    net: nn.Module, spec: NetSpec, *, training: bool = False, keep: bool = False, **inputs: Any
) -> Any:
    """One forward in a mode from a fixed random state; modes and buffers are put back.

    `keep=True` leaves the statistics that a forward in train mode updates.
    """
    modes = [m.training for m in net.modules()]
    buffers = {} if keep or not training else {n: b.clone() for n, b in net.named_buffers()}
    net.train(training)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        try:
            return net(**inputs_of(spec, **{"seed": 1, **inputs}))
        finally:
            for module, mode in zip(net.modules(), modes, strict=True):
                module.training = mode
            for name, value in buffers.items():
                net.get_buffer(name).copy_(value)


def loss_of(output: Any) -> Tensor:
    """Mean distance to fixed random targets over all floating outputs."""
    total = None
    for i, t in enumerate(t for t in tensors_of(output) if t.is_floating_point()):
        generator = torch.Generator().manual_seed(i)
        target = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
        term = ((t - target) ** 2).mean()
        total = term if total is None else total + term
    assert total is not None
    return total


def runs(net: nn.Module, spec: NetSpec) -> bool:
    """Whether the base itself works: forward in both modes, and backward.

    Not where its outputs are so large (1000) that no h could be seen beside them.
    """
    twin = deep_copy(net)
    try:
        values = [t.double().abs().max() for t in tensors_of(run(twin, spec))]
        twin.train()
        loss = loss_of(twin(**inputs_of(spec, seed=1)))
        loss.backward()
    except (RuntimeError, ValueError):
        return False
    finite = all(bool(p.grad.isfinite().all()) for p in twin.parameters() if p.grad is not None)
    return finite and bool(loss.isfinite()) and max(values) < 1e3


@contextmanager
def without_onednn(spec: NetSpec) -> Iterator[None]:
    """No oneDNN for 3-d networks.

    It leaves a part of the weight's gradient of a strided 3-d convolution unwritten, such as
    `nn.Conv3d(3, 12, 7, stride=2, padding=3)` on 6x5x5 pixels (torch 2.14.1 on CPU), and a long run
    of the fuzzer ended in a corrupted heap.
    """
    if spec.layers.dims < 3:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        with torch.backends.mkldnn.flags(enabled=False):
            yield
