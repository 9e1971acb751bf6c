"""Gates in modules that loop over their children, and in modules that run several times."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.attention import SE
from tests.nets import Residual, Small


class Looping(nn.Module):
    """A residual block whose branch is all children, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.act, self.conv2 = nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for child in self.children():
            y = child(y)
        return x + y


class Growing(nn.Module):
    """A layer of a dense block: it takes all maps before."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.conv(torch.relu(self.norm(torch.cat(maps, 1))))


class Dense(nn.Module):
    """A dense block whose layers are all of its children."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(3):
            self.add_module(f"layer{i}", Growing(8 + 4 * i))
        self.turn = nn.Conv2d(20, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for name, layer in self.named_children():
            if name != "turn":
                maps.append(layer(maps))
        return self.turn(torch.cat(maps, 1))


class TwoViews(Small):
    """All blocks run on the image and on its mirror image."""

    def features(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.features(x) + self.features(x.flip(3))) / 2)


class OneNorm(nn.Module):
    """A residual block that runs its norm twice; the branch ends in the second call."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm is None else norm

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv2(torch.relu(self.norm(self.conv1(x)))))


class Starred(nn.Module):
    """A residual block that takes its maps, and its options, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, *maps: Tensor, scale: float = 1.0, **options: Tensor) -> Tensor:
        x = torch.relu(sum(maps) * scale)  # type: ignore[call-overload]
        return x + options["factor"] * self.norm(self.conv(x))


class Stars(Small):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.body):
            x = block(*[x] * (i + 1), factor=x.mean((2, 3), keepdim=True), scale=0.5)
        return self.fc(x.mean((2, 3)))


def _gates(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if isinstance(module, SE)}


def _runs(model: nn.Module, x: Tensor) -> dict[str, int]:
    """How often each gate runs in one forward."""
    gates = _gates(model)
    runs = dict.fromkeys(gates, 0)

    def count(path: str) -> Callable[..., None]:
        return lambda *call: runs.update({path: runs[path] + 1})

    handles = [gate.register_forward_hook(count(path)) for path, gate in gates.items()]
    model(x)
    for handle in handles:
        handle.remove()
    return runs


def _image() -> Tensor:
    return torch.randn(2, 3, 16, 16)


def test_a_loop_over_the_children_leaves_the_gate_out() -> None:
    model = rlawrap.attend(Small(Looping(), Looping(), Looping()), "se").eval()
    x = _image()
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert _runs(again, x) == {f"body.{i}.se": 1 for i in range(3)}
        block, maps = again.body[0], torch.randn(2, 8, 6, 6)
        branch = block.conv2(torch.relu(block.norm(block.conv1(maps))))
        torch.testing.assert_close(block(maps), maps + block.se(branch))


def test_a_second_gate_follows_the_first_though_the_forward_loops() -> None:
    model = rlawrap.attend(rlawrap.attend(Small(Looping(), Looping()), "eca"), "se").eval()
    assert _runs(model, _image()) == {"body.0.se": 1, "body.1.se": 1}
    block, maps = model.body[0], torch.randn(2, 8, 6, 6)
    branch = block.conv2(torch.relu(block.norm(block.conv1(maps))))
    torch.testing.assert_close(block(maps), maps + block.se(block.eca(branch)))


def test_a_dense_block_that_loops_over_its_layers() -> None:
    model = rlawrap.attend(Small(Dense(), Dense(), Dense()), "se", blocks=Dense).eval()
    assert _runs(model, _image()) == {f"body.{i}.se": 1 for i in range(3)}
    block, maps = model.body[0], torch.randn(2, 8, 6, 6)
    plain = Dense().eval()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "se." not in k})
    torch.testing.assert_close(block(maps), block.se(plain(maps)))


def test_a_looping_network_takes_a_hidden_state() -> None:
    gated = rlawrap.attend(Small(Looping(), Looping(), Looping()), "se").eval()
    model = rlawrap.apply(gated, k=4)
    x = _image()
    torch.testing.assert_close(model(x), gated(x))
    assert _runs(model, x) == {f"body.{i}.se": 1 for i in range(3)}


def test_blocks_that_run_twice_have_one_gate_for_both_runs() -> None:
    model = rlawrap.attend(TwoViews(Residual(8, 8), Residual(8, 8)), "se").eval()
    x = _image()
    assert _runs(model, x) == {"body.0.se": 2, "body.1.se": 2}
    maps = torch.randn(2, 8, 6, 6)
    block = model.body[1]
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(maps)))))
    torch.testing.assert_close(block(maps), torch.relu(block.se(branch) + maps))
    whole = (model.features(x) + model.features(x.flip(3))) / 2
    torch.testing.assert_close(model(x), model.fc(whole))


@pytest.mark.parametrize("net", [Small, TwoViews])
def test_the_call_that_ends_the_branch_is_gated(net: type[Small]) -> None:
    """Of two calls of one norm the second, however often the block runs."""
    model = rlawrap.attend(net(OneNorm(), OneNorm()), "se").eval()
    times = 2 if net is TwoViews else 1
    assert _runs(model, _image()) == {"body.0.se": times, "body.1.se": times}
    block, maps = model.body[1], torch.randn(2, 8, 6, 6)
    branch = block.norm(block.conv2(torch.relu(block.norm(block.conv1(maps)))))
    torch.testing.assert_close(block(maps), maps + block.se(branch))


def test_blocks_that_share_a_norm_have_gates_of_their_own() -> None:
    norm = nn.BatchNorm2d(8)
    model = rlawrap.attend(Small(OneNorm(norm), OneNorm(norm)), "se").eval()
    assert model.body[0].norm is model.body[1].norm
    assert _runs(model, _image()) == {"body.0.se": 1, "body.1.se": 1}
    block, maps = model.body[1], torch.randn(2, 8, 6, 6)
    branch = block.norm(block.conv2(torch.relu(block.norm(block.conv1(maps)))))
    torch.testing.assert_close(block(maps), maps + block.se(branch))


def test_a_sequential_branch_that_runs_twice_has_one_gate_at_its_end() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.branch(x))

    model = rlawrap.attend(TwoViews(Branch(), Branch()), "se").eval()
    assert _runs(model, _image()) == {"body.0.branch.2": 2, "body.1.branch.2": 2}


def test_blocks_that_take_any_number_of_arguments() -> None:
    model = rlawrap.attend(Stars(Starred(), Starred()), "se").eval()
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert _runs(again, _image()) == {"body.0.se": 1, "body.1.se": 1}
        block, one, two = again.body[1], torch.randn(3, 8, 6, 6), torch.randn(3, 8, 6, 6)
        x, factor = torch.relu((one + two) * 0.5), torch.rand(3, 8, 1, 1)
        wanted = x + block.se(factor * block.norm(block.conv(x)))
        torch.testing.assert_close(block(one, two, factor=factor, scale=0.5), wanted)
