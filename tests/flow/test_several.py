"""Networks of several inputs: chains that do not mix, and what is told of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, random_rla

IMAGE = torch.zeros(2, 3, 16, 16)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8, 8), Residual(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x)).mean((2, 3))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.fc = Encoder(), nn.Linear(16, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.fc(torch.cat([self.encoder(a), self.encoder(b)], 1))


class Triplet(Siamese):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return self.encoder(a), self.encoder(b), self.encoder(c)


class Modalities(nn.Module):
    """Two encoders of their own, fused by a block that sees both."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.rgb, self.depth = Encoder(), Encoder()
        self.fusion, self.fc = Residual(8, 8), nn.Linear(8, 4)
        self.fused = fused

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        a = self.rgb.body(self.rgb.stem(rgb))
        b = self.depth.body(self.depth.stem(depth))
        if not self.fused:
            return a, b
        return self.fc(self.fusion(a + b).mean((2, 3)))


def test_two_images_through_one_network_are_two_chains() -> None:
    with pytest.warns(
        rlawrap.RLAWarning, match=r"`rlawrap.apply\(model, at='encoder'\)`"
    ) as caught:
        model = rlawrap.apply(Siamese(), k=4, init="paper", example_input=(IMAGE, IMAGE))
    assert [w.filename for w in caught] == [__file__]
    assert any("'encoder' runs once for each of 2 inputs" in note for note in model.plan.notes)
    assert [b.after for b in model.plan.blocks] == [None, 0, None, 2]
    random_rla(model)
    a, b, c = torch.randn(3, 2, 3, 16, 16)
    second = list(model.rla.inject["3"].parameters())
    grads = [torch.autograd.grad(model(x, b).sum(), second) for x in (a, c)]
    assert all(x.any() and torch.allclose(x, y, atol=1e-6) for x, y in zip(*grads, strict=True))


def test_the_advised_call_gives_one_hidden_state_for_all() -> None:
    model: Any = rlawrap.apply(Siamese().eval(), at="encoder", k=4, init="paper")
    random_rla(model.encoder)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.encoder(x), model.encoder(x.clone()))
    assert model(x, x).shape == (2, 4)


def test_every_run_for_an_output_of_its_own_is_a_chain() -> None:
    with pytest.warns(rlawrap.RLAWarning, match="once for each of 3 inputs"):
        model = rlawrap.apply(Triplet(), k=4, example_input=(IMAGE,) * 3)
    assert [b.after for b in model.plan.blocks] == [None, 0, None, 2, None, 4]


def test_two_modalities_do_not_mix_before_they_are_fused() -> None:
    plan = rlawrap.inspect(Modalities(), example_input=(IMAGE, IMAGE))
    assert [(b.path, b.after) for b in plan.blocks] == [
        ("rgb.body.0", None), ("rgb.body.1", 0), ("depth.body.0", None), ("depth.body.1", 2),
        ("fusion", 3),
    ]  # fmt: skip
    assert plan.notes == ()


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_without_a_block_of_one_branch_no_state_passes_to_the_other(gone: int) -> None:
    net = Modalities().eval()
    plan = rlawrap.inspect(net, example_input=(IMAGE, IMAGE))
    less = plan.without(plan.blocks[gone].path)
    chains = [None, None, 1, 2] if gone < 2 else [None, 0, None, 2]
    assert [b.after for b in less.blocks] == chains
    model = rlawrap.apply(net, k=4, plan=less, example_input=(IMAGE, IMAGE))
    random_rla(model)
    rgb, depth = torch.randn(2, 2, 3, 16, 16)
    last = less.blocks[-2].path
    seen: list[Tensor] = []
    model.get_submodule(last).register_forward_hook(lambda m, i, out: seen.append(out))
    model(rgb, depth), model(torch.randn_like(rgb), depth)
    assert last.startswith("depth") and torch.equal(*seen)


def test_outputs_of_two_inputs_have_a_chain_each() -> None:
    model = rlawrap.apply(Modalities(fused=False), k=4, example_input=(IMAGE, IMAGE))
    assert [(b.path, b.after) for b in model.plan.blocks] == [
        ("rgb.body.0", None), ("rgb.body.1", 0), ("depth.body.0", None), ("depth.body.1", 2),
    ]  # fmt: skip


class Clips(nn.Module):
    """Takes (batch, frames, channels, height, width) and runs the frames as images."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        return self.encoder(x.flatten(0, 1)).reshape(n, -1, 8).mean(1)


def test_frames_as_images_have_a_state_each() -> None:
    net = Clips().eval()
    clip = torch.randn(2, 5, 3, 16, 16)
    model = rlawrap.apply(net, k=4, example_input=clip).eval()
    assert [b.path for b in model.plan.blocks] == ["encoder.body.0", "encoder.body.1"]
    for x in (clip, torch.randn(3, 5, 3, 16, 16), torch.randn(1, 4, 3, 16, 16)):
        assert torch.allclose(model(x), net(x), atol=1e-5)


def test_a_number_of_frames_that_forward_counts_is_held() -> None:
    class Counted(Clips):
        def forward(self, x: Tensor) -> Tensor:
            n, frames = x.shape[:2]
            y = self.encoder(x.flatten(0, 1)).reshape(n, frames, 8)
            return sum(y[:, i] for i in range(frames)) / frames  # type: ignore[return-value]

    model = rlawrap.apply(Counted(), k=4, example_input=torch.zeros(2, 5, 3, 16, 16))
    assert any("recorded for 5 along its second axis" in note for note in model.plan.notes)
    with pytest.raises(AssertionError, match="traced for the second axis"):
        model(torch.zeros(2, 4, 3, 16, 16))


def test_an_example_of_two_axes_is_refused_with_the_call_to_make() -> None:
    with pytest.raises(rlawrap.PlanError, match=r"no tensor of \(batch, channels, length\)"):
        rlawrap.inspect(nn.Conv1d(1, 4, 3), example_input=torch.zeros(2, 100))
