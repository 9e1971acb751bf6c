from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import rlawrap
from rlawrap.attention import ECA, SE, eca_kernel
from rlawrap.errors import ConfigError, PlanError
from tests.nets import Dropping, Small


def _resnet() -> nn.Module:
    return torchvision.models.resnet18(weights=None).eval()


def _convnext() -> nn.Module:
    """ConvNeXt with two short, narrow stages; its branches end in a scale and stochastic depth."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], 0.1, num_classes=5)


def _chain() -> nn.Module:
    """As VGG: one Sequential, no shortcuts."""
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 8), (8, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


class Ones(nn.Module):
    """Stands in for a gate that changes nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class TwoPaths(nn.Module):
    """A block whose forward takes an optional argument and drops units as training says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        if shortcut is None:
            shortcut = x
        y = self.norm(self.conv(x)) * scale
        y = nn.functional.dropout(y, 0.5, self.training)
        return torch.relu(y + shortcut)


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(TwoPaths(8) for _ in range(3))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x, x * 0.5 if i == 1 else None, scale=2.0)
        return self.fc(x.mean((2, 3)))


class Flat(nn.Module):
    """No block modules: everything in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.bn1(self.conv1(x)) + x)
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(x.mean((2, 3)))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet18": _resnet,
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(weights=None),
    "convnext": _convnext,
    "chain": _chain,
    "r3d_18": lambda: torchvision.models.video.r3d_18(weights=None),
    "caller": Caller,
    "flat": Flat,
}


def _input(name: str) -> Tensor:
    return torch.randn(2, 3, 4, 32, 32) if name == "r3d_18" else torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_gate_a_block_at_the_end_of_its_branch(name: str) -> None:
    base = FAMILIES[name]().eval()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    model = rlawrap.attend(base, "eca")
    assert isinstance(model, type(base))
    assert type(model).__name__ == type(base).__name__
    plan = rlawrap.inspect(base)
    gates = {path: m for path, m in model.named_modules() if isinstance(m, ECA)}
    assert len(gates) == len(plan.blocks)
    for block, (path, gate) in zip(plan.blocks, gates.items(), strict=True):
        kernel = gate.conv.weight.shape[-1]
        assert block.channels is not None
        assert kernel == eca_kernel(block.channels), path

    # Keys only appear, and the base is as it was.
    kept = {
        k: v for k, v in model.state_dict().items() if not k.endswith("conv.weight") or k in before
    }
    assert list(kept) == list(before) == list(base.state_dict())
    assert all(torch.equal(base.state_dict()[k], v) for k, v in before.items())
    assert not any(isinstance(m, ECA) for m in base.modules())

    # With gates that change nothing it computes what the base does: only the gates are new.
    x = _input(name)
    with torch.no_grad():
        gated, plain = model(x), base(x)
        assert not torch.equal(gated, plain)
        for path in gates:
            parent, _, child = path.rpartition(".")
            model.get_submodule(parent)._modules[child] = Ones()
        torch.testing.assert_close(model(x), plain)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_for_apply(name: str) -> None:
    base = FAMILIES[name]().eval()
    attended = rlawrap.attend(base, "se", reduction=4)
    model = rlawrap.apply(attended, k=4)
    assert [b.path for b in model.plan.blocks] == [b.path for b in rlawrap.inspect(base).blocks]
    assert [b.entries for b in model.plan.blocks] == [
        b.entries for b in rlawrap.inspect(base).blocks
    ]
    x = _input(name)
    with torch.no_grad():
        torch.testing.assert_close(model(x), attended(x))
    assert any(isinstance(m, SE) for m in rlawrap.unwrap(model).modules())


def test_the_value_before_the_addition_is_what_is_gated() -> None:
    """Block by block against the equation x = relu(gate(bn2(...)) + shortcut)."""
    model = rlawrap.attend(_resnet(), "eca")
    block = model.get_submodule("layer2.0")
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        y = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))  # type: ignore[operator]
        wanted = torch.relu(block.eca(y) + block.downsample(x))  # type: ignore[operator]
        torch.testing.assert_close(block(x), wanted)


def test_gates_act_before_stochastic_depth() -> None:
    model = rlawrap.attend(_convnext(), "eca").train()
    reached: list[bool] = []
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 1.0  # drops everything
        if isinstance(module, ECA):
            module.register_forward_pre_hook(lambda gate, args: reached.append(args[0].any()))
    model(_input("convnext"))
    assert len(reached) == 4
    assert all(reached)


class View(nn.Module):
    """A block whose branch is a view of what it overwrites behind the sum."""

    read_again = False

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        view = y.view(y.shape)
        out = x + view
        y.zero_()
        return torch.relu(out) * (1 - view) if self.read_again else torch.relu(out)


class ReadAgain(View):
    read_again = True


def _of(block: type[nn.Module]) -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), block(), block(), pool, nn.Flatten(), nn.Linear(8, 2))


def test_a_gate_of_a_view_learns_though_its_tensor_is_overwritten() -> None:
    model = rlawrap.attend(_of(View), "se")
    model(torch.randn(2, 3, 18, 18)).sum().backward()
    block, x = model.get_submodule("1"), torch.randn(2, 8, 16, 16)
    torch.testing.assert_close(block(x), torch.relu(x + block.se(block.conv(x))))  # type: ignore[operator]
    assert all(p.grad is not None for p in model.parameters())


def test_a_gate_of_a_view_that_is_read_when_overwritten_is_refused() -> None:
    net = _of(ReadAgain)
    names = [name for name, _ in net.named_modules()]
    with pytest.raises(rlawrap.PlanError, match=r"forward of a ReadAgain, .* zero_ overwrites"):
        rlawrap.attend(net, "se")
    assert [name for name, _ in net.named_modules()] == names
    assert type(net[1]) is ReadAgain  # type: ignore[index]


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


class Scaled(nn.Module):
    """A block whose branch ends in a module of several operations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(8, 8, 3, padding=1), Scale()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.conv(x))


def test_the_block_holds_the_gate_of_what_its_parts_return() -> None:
    base = nn.Sequential(nn.Conv2d(3, 8, 3), Scaled(), Scaled(), nn.Flatten(), nn.LazyLinear(2))
    base(torch.zeros(2, 3, 18, 18))
    model = rlawrap.attend(base, "eca", example_input=torch.zeros(2, 3, 18, 18))
    assert [path for path, m in model.named_modules() if isinstance(m, ECA)] == ["1.eca", "2.eca"]


def test_mobilenet_gates_are_the_next_child_of_the_branch() -> None:
    base = torchvision.models.mobilenet_v2(weights=None)
    model = rlawrap.attend(base, kernel=lambda channels: 1 if channels < 96 else 3)
    new = {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in base.state_dict()}
    assert new["features.1.conv.3.conv.weight"] == (1, 1, 1)
    assert new["features.17.conv.4.conv.weight"] == (1, 1, 3)
    assert len(new) == 17


def test_optional_arguments_and_training_mode_are_kept() -> None:
    model = rlawrap.attend(Caller(), "eca").train()
    x = torch.randn(2, 3, 16, 16)
    torch.manual_seed(1)
    first = model(x)
    torch.manual_seed(2)
    assert not torch.equal(first, model(x)), "dropout drops in train mode"
    model.eval()
    assert torch.equal(model(x), model(x))
    block = model.get_submodule("blocks.0")
    with pytest.raises(TypeError):
        block(x, x, 2.0)  # scale is keyword-only, as it was


def test_the_same_value_is_gated_in_train_mode() -> None:
    base = Small(Dropping(), Dropping())
    model = rlawrap.attend(base, "eca")
    with torch.no_grad():
        for gate in (m for m in model.modules() if isinstance(m, ECA)):
            gate.conv.weight.zero_()  # a gate of one half
    x = torch.randn(4, 8, 6, 6)
    for training in (False, True):
        plain, gated = base.body[0].train(training), model.get_submodule("body.0").train(training)
        torch.manual_seed(1)
        branch = plain(x) - x
        torch.manual_seed(1)
        torch.testing.assert_close(gated(x), x + 0.5 * branch)


def test_survives_copying_pickling_and_a_second_gate() -> None:
    model = rlawrap.attend(_resnet(), "eca")
    twin, read = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    both = rlawrap.attend(model, "se")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twin(x), model(x))
        assert torch.equal(read(x), model(x))
        for path, module in both.named_modules():
            if isinstance(module, SE):
                parent, _, child = path.rpartition(".")
                both.get_submodule(parent)._modules[child] = Ones()
        assert torch.equal(both(x), model(x))
        # A copy has gates of its own.
        twin.layer1[0].eca.conv.weight.fill_(9)  # type: ignore[index,union-attr,operator]
        assert not torch.equal(twin(x), model(x))


def test_every_gate_learns_and_batch_norms_can_be_converted() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(rlawrap.attend(_resnet(), "eca")).eval()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    gates = [m for m in model.modules() if isinstance(m, ECA)]
    assert len(gates) == 8
    assert all(gate.conv.weight.grad.abs().sum() > 0 for gate in gates)  # type: ignore[union-attr]


def test_compiles_whole() -> None:
    model = rlawrap.attend(Caller(), "eca").eval()
    x = torch.randn(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))


def test_leaves_the_random_state_alone() -> None:
    base = _resnet()
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    rlawrap.attend(base, "se")
    assert torch.equal(torch.rand(1), wanted)


def test_bad_input() -> None:
    base = _resnet()
    for arguments, reason in (
        ({"kind": "cbam"}, "choose 'eca' or 'se'"),
        ({"kind": "se", "kernel": 3}, "kernel= is for 'eca'"),
        ({"kind": "se", "reduction": 0}, "whole number of at least 1"),
        ({"kernel": 4}, "must be odd"),
        ({"kernel": lambda c: "3"}, "must be odd"),
        ({"plan": rlawrap.inspect(base), "blocks": "layer1.*"}, "not both"),
    ):
        with pytest.raises(ConfigError, match=reason):
            rlawrap.attend(base, **arguments)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="attend first, then apply"):
        rlawrap.attend(rlawrap.apply(base, k=2))
    with pytest.raises(PlanError):
        rlawrap.attend("resnet18")  # type: ignore[arg-type]


def test_a_single_block_gets_its_gate_though_no_hidden_state_could_run() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(torch.relu(self.conv1(x)))

    net = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.Flatten(2))
    with pytest.raises(PlanError, match="nothing reads h"):
        rlawrap.inspect(net)
    assert [n for n, m in rlawrap.attend(net, "se").named_modules() if isinstance(m, SE)] == [
        "1.se"
    ]
