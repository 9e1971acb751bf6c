"""Hooks on blocks and stages fire in the base's order, with its values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, Residual, family, random_rla, relative, uneven

NAMES = ["resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "googlenet", "block_net"]


def watch(model: nn.Module, log: list[Any], backward: bool) -> None:
    """Every kind of hook on every module of the base."""

    def note(kind: str, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, *values: Any) -> None:
            tensors = [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Tensor)]
            log.append((kind, path, [t.detach().clone() for t in tensors]))

        return hook

    for path, module in model.named_modules():
        if path and not path.startswith("rla"):
            module.register_forward_pre_hook(note("pre", path))
            module.register_forward_pre_hook(note("pre kw", path), with_kwargs=True)
            module.register_forward_hook(note("post", path))
            if backward:
                module.register_full_backward_hook(note("backward", path))
                module.register_full_backward_pre_hook(note("backward pre", path))


def run(model: nn.Module, x: Tensor) -> None:
    torch.manual_seed(2)
    out = model(x)
    out = out if isinstance(out, Tensor) else out[0]
    out.square().sum().backward()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_every_hook_fires_in_order_with_the_values_of_the_base(name: str) -> None:
    base, x = family(name)
    for module in base.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    # `y += x` behind a full backward hook is an error of PyTorch's, in the base as well.
    backward = name in ("block_net", "mobilenet_v2")
    if name == "block_net":
        base = uneven(Plain())
    model = rlawrap.apply(base.train(), k=4)
    mine: list[Any] = []
    its: list[Any] = []
    watch(model, mine, backward), watch(base, its, backward)
    run(model, x.requires_grad_()), run(base, x)
    assert [entry[:2] for entry in mine] == [entry[:2] for entry in its]
    leaves = [m for m in base.modules() if not [*m.children()]]
    assert len({path for _, path, _ in mine}) > len(leaves)
    for (kind, path, got), (_, _, expected) in zip(mine, its, strict=True):
        assert len(got) == len(expected), (kind, path)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=f"{kind} of {path}")


class PlainResidual(Residual):
    """Without in-place operations, which full backward hooks do not take."""

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.project is None else self.project(x)
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + short)


class Plain(BlockNet):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            PlainResidual(8, 8), PlainResidual(8, 16, 2), PlainResidual(16, 16)
        )


def changed_by(model: nn.Module, path: str, hook: Callable[..., Any], kind: str, x: Tensor) -> Any:
    module = model.get_submodule(path)
    handle = getattr(module, f"register_forward_{kind}")(hook)
    out = model(x)
    handle.remove()
    return out


@pytest.mark.parametrize("path", ["body", "body.0", "body.1.project", "stem", "fc"])
def test_hooks_that_change_values_change_what_follows(path: str) -> None:
    base, x = family("block_net")
    model = rlawrap.apply(base.eval(), k=4)
    double = {
        "hook": lambda m, args, out: out * 2 + 1,
        "pre_hook": lambda m, args: args[0] * 2 + 1,
    }
    for kind, hook in double.items():
        expected = changed_by(base, path, hook, kind, x)
        assert relative(base(x), expected) > 1e-3
        assert relative(expected, changed_by(model, path, hook, kind, x)) < 1e-6
    assert torch.equal(model(x), base(x))


def test_h_is_updated_from_the_changed_output_of_a_block() -> None:
    model = random_rla(rlawrap.apply(uneven(BlockNet()).eval(), k=4))
    seen: list[Tensor] = []
    model.rla.input["0_8"].register_forward_hook(lambda m, args, out: seen.append(args[0]))
    x = torch.randn(2, 3, 16, 16)
    changed_by(model, "body.0", lambda m, args, out: out * 3, "hook", x)
    model(x)
    assert torch.equal(seen[0], seen[1] * 3)


class Keywords(nn.Module):
    """Blocks that take a keyword and give a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(8, 8, 3, padding=1), 1.0

    def forward(self, x: Tensor, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x))
        return x + y, y


class KeywordNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b, self.c = Keywords(), Keywords(), Keywords()

    def forward(self, x: Tensor) -> Tensor:
        x, y = self.a(x=self.stem(x))
        x, y = self.b(x, skip=y)
        x, y = self.c(x, y)
        return x.mean((2, 3)) + y.mean((2, 3))


def test_keywords_and_tuples() -> None:
    base = KeywordNet().eval()
    model = rlawrap.apply(base, k=4)
    x = torch.randn(2, 3, 16, 16)
    logs: list[list[Any]] = [[], []]
    for net, log in zip((base, model), logs, strict=True):
        for name in "abc":
            module = net.get_submodule(name)
            module.register_forward_pre_hook(
                lambda m, a, k, n=name, log=log: log.append((n, len(a), sorted(k))),
                with_kwargs=True,
            )
            module.register_forward_hook(
                lambda m, a, k, out, n=name: (out[0] * 2, out[1] + 1), with_kwargs=True
            )
    assert relative(base(x), model(x)) < 1e-6
    assert logs[0] == logs[1] == [("a", 0, ["x"]), ("b", 1, ["skip"]), ("c", 2, [])]


def test_hooks_of_all_modules_fire() -> None:
    base, x = family("block_net")
    model = rlawrap.apply(base.eval(), k=4)
    paths: dict[nn.Module, str] = {}
    for net in (base, model):
        paths |= {m: n for n, m in net.named_modules() if not n.startswith("rla")}
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: seen.append(paths[m]) if m in paths else None
    )
    base(x)
    expected = list(seen)
    seen.clear()
    model(x)
    handle.remove()
    assert seen == expected and "body.1" in seen


def test_copies_checkpoints_and_compiled_models_run_them() -> None:
    model = random_rla(rlawrap.apply(uneven(Plain()).train(), k=4))
    counts: list[int] = []
    model.body[1].register_forward_hook(lambda m, args, out: counts.append(1))
    x = torch.randn(2, 3, 16, 16)
    copy.deepcopy(model)(x)
    copy.copy(model)(x)
    assert len(counts) == 2
    model.set_grad_checkpointing()
    model(x).sum().backward()
    assert len(counts) >= 3  # the second run of the segment may end before
    model.set_grad_checkpointing(False)
    model.body[1].register_forward_hook(lambda m, args, out: out * 2)
    torch._dynamo.reset()
    eager = model.eval()(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative(eager, compiled(x)) < 1e-6


def test_a_backbone_runs_those_of_what_is_left() -> None:
    base, x = family("resnet18")
    maps = rlawrap.backbone(rlawrap.apply(base.eval(), k=4), ["layer1", "layer2.0"])
    seen: list[str] = []
    for path in ("layer1", "layer1.1", "layer2.0"):
        maps.get_submodule(path).register_forward_hook(lambda m, a, o, p=path: seen.append(p))
    maps(x)
    assert seen == ["layer1.1", "layer1", "layer2.0"]


def test_a_module_that_was_taken_out_is_not_missed() -> None:
    base, x = family("small_googlenet")
    model = random_rla(rlawrap.apply(base.eval(), k=4))
    before = model(x)
    model.aux = None
    assert torch.equal(model(x), before)
    del model._modules["aux"]
    assert torch.equal(model(x), before)
    seen: list[int] = []
    model.a.register_forward_hook(lambda m, args, out: seen.append(1))
    model(x)
    assert seen == [1]


def test_a_hook_that_drops_values_is_told() -> None:
    model = rlawrap.apply(KeywordNet().eval(), k=4)
    model.b.register_forward_hook(lambda m, a, out: out[0])
    with pytest.raises(rlawrap.RLAError, match="hook of a Keywords returned fewer tensors"):
        model(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("method", ["GradCAM", "GradCAMPlusPlus", "EigenCAM"])
@pytest.mark.filterwarnings("ignore")
def test_class_activation_maps_are_those_of_the_base(method: str) -> None:
    cam = pytest.importorskip("pytorch_grad_cam")
    base, x = family("resnet18")
    model = rlawrap.apply(base.eval(), k=4)
    maps = []
    for net in (base, model):
        with getattr(cam, method)(model=net, target_layers=[net.layer4]) as explain:
            maps.append(torch.from_numpy(explain(input_tensor=x, targets=None)))
    assert maps[0].std() > 1e-3
    torch.testing.assert_close(maps[1], maps[0])
