from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.show.gates import Gates
from rlawrap.show.recording import run_watched
from tests.nets import BlockNet, WaveNet1d


class One(nn.Module):
    """Two residual blocks of one 1x1 convolution each, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Step(), Step())
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(x).mean((2, 3)))


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def trained(model: nn.Module) -> nn.Module:
    """Injections as if they had been trained."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".inject." in f".{name}" or "head.join" in name:
                parameter.normal_(0, 0.2)
    return model


def small(**options: object) -> nn.Module:
    return trained(rlawrap.apply(BlockNet().eval(), k=4, **options)).eval()


def test_gates_are_the_norms_that_one_computes_by_hand() -> None:
    model = trained(rlawrap.apply(One().eval(), k=3, initial_state="zeros")).eval()
    x = torch.randn(2, 2, 4, 4)
    gates = rlawrap.show(model, what="gates", example_input=x).data
    assert isinstance(gates, Gates)
    with torch.no_grad():
        # h^0 is zero, so the first injection adds nothing; the second reads the h of the first.
        first = x + model.blocks[0].conv(x)
        seen: list[Tensor] = []
        way = model.get_submodule("rla.inject.1")
        handle = way.register_forward_hook(lambda m, a, out: seen.append(out))
        model(x)
        handle.remove()
        share = seen[0]
        second = model.blocks[1].conv(first)
    assert [(g.block, g.layer, g.kind, g.elements) for g in gates.gates] == [
        ("blocks.0", "blocks.0.conv", "entry", 32),
        ("blocks.1", "blocks.1.conv", "entry", 32),
        ("head", "fc", "head", 3),
    ]
    assert gates.gates[0].h_norm == 0
    got = gates.gates[1]
    assert got.x_norm == pytest.approx(second.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
    assert got.h_norm == pytest.approx(share.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
    assert got.ratio == pytest.approx(got.h_norm / got.x_norm)
    assert got.h_rms == pytest.approx(got.h_norm / 32**0.5)
    assert gates.to_dict()["gates"][1]["h_norm"] == got.h_norm
    assert "blocks.1.conv" in str(gates)


def test_an_untrained_network_is_told_so() -> None:
    picture = rlawrap.show(rlawrap.apply(BlockNet().eval(), k=4), what="gates")
    assert {g.h_norm for g in picture.data.gates} == {0.0}
    assert "h contributes nothing" in str(picture)
    assert "random numbers (no image was given)" in picture.svg()
    assert [g.kind for g in picture.data.gates][-1] == "head"


def test_random_numbers_are_the_same_each_time_and_nobody_elses() -> None:
    model = small()
    before = torch.get_rng_state()
    one, two = (rlawrap.show(model, what="gates").data for _ in range(2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_as_before() -> None:
    model = small().train()
    model.body[0].eval()
    calls: list[int] = []
    model.fc.register_forward_hook(lambda m, a, out: calls.append(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with rlawrap.disabled(model):
        gates = rlawrap.show(model, what="gates").data
        assert model.rla.splice.disabled
    assert any(g.h_norm > 0 for g in gates.gates)
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert "forward" not in model.__dict__


def test_a_watched_run_returns_what_the_model_does() -> None:
    model, x = small(cell="convlstm"), torch.randn(2, 3, 8, 8)
    assert torch.equal(run_watched(model, (x,), {}, lambda part: {}, lambda *a: None), model(x))


def test_parts_backbones_signals_and_depthwise_entries() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = BlockNet()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.net(-x)

    inside = trained(rlawrap.apply(Pair().eval(), k=4, at="net")).eval()
    gates = rlawrap.show(inside, what="gates", example_input=torch.randn(1, 3, 8, 8)).data
    assert {g.part for g in gates.gates} == {"net"}
    assert "net.body.1.conv1" in str(gates)
    maps = rlawrap.backbone(small())
    gates = rlawrap.show(maps, what="gates").data
    assert "head" not in {g.kind for g in gates.gates}
    wave = rlawrap.apply(WaveNet1d().eval(), k=2)
    assert len(rlawrap.show(wave, what="gates").data.gates) > 2


def test_an_entry_behind_a_depthwise_convolution_is_told() -> None:
    class Inverted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.norm = nn.BatchNorm2d(8)
            self.pw = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.pw(torch.relu(self.norm(self.dw(x))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.blocks = nn.Sequential(Inverted(), Inverted())
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.blocks(self.stem(x)).mean((2, 3)))

    model = trained(rlawrap.apply(Net().eval(), k=4))
    gates = rlawrap.show(model, what="gates").data.gates
    assert [(g.layer, g.kind) for g in gates] == [("blocks.1.pw", "depthwise"), ("fc", "head")]
    assert gates[0].h_norm > 0
