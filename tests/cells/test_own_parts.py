"""Cells of the user's own: their weights stay, and they may hold parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.cells.cell_registry import _CELLS
from tests.nets import BlockNet, random_rla, relative

K = 4


class Drawn(nn.Conv2d):
    """A layer that initialises itself."""

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 0.25)


class Scaled(nn.Module):
    """A layer with a child and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((K, 1, 1), 1.5))
        self.act = nn.Tanh()

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return self.act(self.scale * x) * by


class Decay(rlawrap.Cell):
    """h' = (decay * h).T + Conv(scaled(u, gain)) / count, with a bias of the block's own."""

    def shared(self) -> Mapping[str, nn.Module | Tensor]:
        conv = Drawn(K, K, 1, bias=False)
        dense = self.spec.conv(K, K)
        with torch.no_grad():
            dense.weight.fill_(0.125)  # type: ignore[union-attr]
        return {
            "decay": nn.Parameter(torch.linspace(0.1, 0.9, K)),
            "count": torch.tensor(2.0),
            "scaled": Scaled(),
            "layers": nn.ModuleList([conv, dense]),
        }

    def own(self) -> Mapping[str, nn.Module | Tensor]:
        return {"gain": nn.Parameter(torch.ones(K, 1, 1)), "idle": nn.Parameter(torch.zeros(K))}

    def step(self, layers, u, state):  # type: ignore[no-untyped-def]
        shared = layers["layers"][1](layers["layers"][0](layers["scaled"](u, by=layers["gain"])))
        bias = layers["scaled"].scale + layers["idle"].view(-1, 1, 1)
        return (state[0] * layers["decay"].view(-1, 1, 1) + shared / layers["count"] + bias,)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    rlawrap.register_cell("decay-of-the-test")(Decay)
    yield
    del _CELLS["decay-of-the-test"]


def made(**options: object) -> rlawrap.RLAModel:
    return rlawrap.apply(BlockNet(), k=K, cell="decay-of-the-test", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("init", ["identity", "paper"])
def test_a_cell_keeps_the_weights_that_it_gave(init: str) -> None:
    rla = made(init=init).rla
    cell = rla.cell["0"]
    assert torch.equal(cell.decay, torch.linspace(0.1, 0.9, K))
    assert cell.layers[0].weight.eq(0.25).all()
    assert cell.layers[1].weight.eq(0.125).all()
    assert cell.scaled.scale.eq(1.5).all() and rla.block["1"].gain.eq(1).all()
    assert rla.inject["1"].conv.weight.eq(0).all() == (init == "identity")


def test_layers_of_the_spec_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    weight = rlawrap.CellSpec(k=64).conv(64, 64).weight.detach()  # type: ignore[operator, union-attr]
    assert abs(float(weight.std()) / (2 / (64 * 9)) ** 0.5 - 1) < 0.02


def test_the_step_computes_with_bare_parameters() -> None:
    """Checked against the equation, written out on what the model's own modules return."""
    net = BlockNet().eval()
    model = random_rla(rlawrap.apply(net, k=K, cell="decay-of-the-test")).eval()
    inputs: list[Tensor] = []
    for name in ("0_8", "1_16"):
        model.rla.input[name].register_forward_hook(lambda m, a, out: inputs.append(out))
    got: list[Tensor] = []
    pool = model.rla.head.norm
    pool.register_forward_pre_hook(lambda m, a: got.append(a[0]))
    model(torch.randn(2, 3, 16, 16))
    h = torch.zeros_like(inputs[0])
    for i, u in enumerate(inputs):
        cell, own = model.rla.cell["1" if i else "0"], model.rla.block[str(i)]
        if u.shape != h.shape:
            h = nn.functional.avg_pool2d(h, 2)
        y = cell.layers[1](cell.layers[0](cell.scaled(u, own.gain))) / 2
        h = h * cell.decay.view(-1, 1, 1) + y + cell.scaled.scale + own.idle.view(-1, 1, 1)
    torch.testing.assert_close(got[0], h)


def test_bare_parameters_are_saved_copied_moved_and_trained(tmp_path: Path) -> None:
    model = random_rla(made(share="network"))
    keys = rlawrap.rla_state_dict(model)
    assert {"rla.cell.0.decay", "rla.cell.0.count", "rla.block.2.idle"} <= set(keys)
    rlawrap.save(model, tmp_path / "a")
    twin = rlawrap.load(tmp_path / "a", BlockNet())
    x = torch.randn(2, 3, 16, 16)
    want = model.eval()(x)
    assert torch.equal(twin(x), want)
    other = copy.deepcopy(model)
    assert other.rla.cell["0"].decay is not model.rla.cell["0"].decay
    assert torch.equal(other(x), want)
    assert relative(want, other.double()(x.double()).float()) < 1e-5
    assert other.rla.cell["0"].decay.dtype == torch.float64
    assert other.to("meta")(x.double().to("meta")).shape == want.shape
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model.train()(x).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.rla.parameters())
    maps = rlawrap.backbone(model, ["body.1"]).eval()
    assert maps(x)["0"].shape == (2, 16, 8, 8)
    assert maps.rla.block["0"].gain.shape == (K, 1, 1)


def test_bare_parameters_outlive_a_new_classifier() -> None:
    from rlawrap.splice.classifier import _write_anew

    model = random_rla(made())
    x = torch.randn(2, 3, 16, 16)
    want, kept = model.eval()(x), dict(model.rla.named_parameters())
    _write_anew(model, lambda base: None)
    assert torch.equal(model(x), want)
    assert all(kept[name] is p for name, p in model.rla.named_parameters())


@pytest.mark.parametrize(("share", "cells"), [("network", 1), ("stage", 2), ("none", 3)])
def test_layers_that_a_cell_holds_are_shared_as_the_config_says(share: str, cells: int) -> None:
    class Holds(Decay):
        """Makes its layers once."""

        def __init__(self, spec: rlawrap.CellSpec) -> None:
            super().__init__(spec)
            self.parts = super().shared()

        def shared(self) -> Mapping[str, nn.Module | Tensor]:
            return self.parts

    _CELLS["decay-of-the-test"] = Holds
    rla = made(share=share).rla
    assert len({id(c.decay) for c in rla.cell.values()}) == len(rla.cell) == cells
    assert len({id(c.layers[0].weight) for c in rla.cell.values()}) == cells


def test_a_cell_that_no_model_can_hold_is_refused() -> None:
    class Loose(Decay):
        """Reads a parameter that nobody holds."""

        def step(self, layers, u, state):  # type: ignore[no-untyped-def]
            return (u * nn.Parameter(torch.ones(K, 1, 1)),)

    class Bare(Decay):
        """Returns a tensor, no tuple."""

        def step(self, layers, u, state):  # type: ignore[no-untyped-def]
            return u

    class Named(Decay):
        """Takes a name that modules have."""

        def own(self) -> Mapping[str, nn.Module | Tensor]:
            return {"keys": nn.Parameter(torch.ones(K))}

    for cls, message in (
        (Loose, r"Loose: step computes with a tensor of shape \(4, 1, 1\)"),
        (Bare, r"Bare: step returns a tuple of its 1 state tensors, got Proxy"),
        (Named, r"Named: 'keys' of its shared\(\) or own\(\) cannot be held"),
    ):
        _CELLS["decay-of-the-test"] = cls
        with pytest.raises(rlawrap.ConfigError, match=message):
            made()
