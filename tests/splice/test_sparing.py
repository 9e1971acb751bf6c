"""What runs in place of the written graph computes the same, and steps aside for hooks."""

from __future__ import annotations

import copy
import operator
import warnings
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.resnet import Bottleneck, ResNet

import rlawrap
from rlawrap.cells.tanh import fast_tanh_
from rlawrap.splice import pointwise
from rlawrap.splice.joint import joint_convs
from rlawrap.splice.pointwise import point_conv
from rlawrap.splice.sparing import Spared, add_share_, plus_zeros, spread_share_, zeros_of
from tests.fuse.shaken import shake

OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "split": {"update": "split"},
    "post": {"update": "post"},
    "depthwise": {"cell": "dwconv", "kernel": 5},
    "gru": {"cell": "convgru"},
    "lstm": {"cell": "convlstm"},
    "group": {"norm": "group"},
    "no norm": {"norm": "none"},
    "entry": {"inject": "entry"},
    "depthwise entry": {"inject": "depthwise"},
}


def small(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    if name == "preset":
        preset = rlawrap.models.get_model("dsrla_mobilenetv2_k6", num_classes=5)
        preset.classifier[0].p = 0.0
        return shake(preset).double()
    net: nn.Module
    if name == "resnet18":
        net = torchvision.models.resnet18(num_classes=5)
    elif name == "bottlenecks":
        net = ResNet(Bottleneck, [2, 1, 1, 1], num_classes=5)
    else:
        net = torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5, dropout=0.0)
    return shake(rlawrap.apply(net, k=4, init="paper", **options)).double()


def written(model: nn.Module) -> nn.Module:
    """A copy that runs its graph as it was written: a layer has a hook, which does nothing."""
    twin: Any = copy.deepcopy(model)
    path = next(iter(twin.rla.splice.programs[True].spared.layers))
    twin.get_submodule(path).register_forward_hook(lambda m, a, y: None)
    assert form(twin) == "written" and form(model) == "spared"
    return twin


def form(model: Any) -> str:
    return str(model.rla.splice.form(model))


def calls(model: Any, function: Any) -> int:
    graph: fx.Graph = model.rla.splice.programs[model.training].spared.graph
    return sum(node.target is function for node in graph.nodes)


def check(model: nn.Module, x: Tensor) -> None:
    """Outputs, gradients of input and weights, and running statistics, in both modes."""
    for training in (True, False):
        ours, twin = copy.deepcopy(model), written(model)
        results = []
        for net in (ours, twin):
            net.train(training)
            given = x.clone().requires_grad_()
            out = net(given)
            (out * torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)).sum().backward()
            grads = {name: p.grad for name, p in net.named_parameters()}
            buffers = dict(net.named_buffers())
            results.append({"out": out.detach(), "x": given.grad, **grads, **buffers})
        first, second = results
        assert first.keys() == second.keys()
        for name, value in second.items():
            if value is None:
                assert first[name] is None, name
                continue
            scale = value.abs().max().clamp(min=1e-3)
            assert float((first[name] - value).abs().max() / scale) < 1e-10, name
    # In eval mode without gradients more is written over what nobody else reads.
    with torch.no_grad():
        torch.testing.assert_close(ours(x), twin(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("net", ["resnet18", "bottlenecks", "mobilenet_v2"])
def test_outputs_gradients_and_statistics_are_the_same(net: str, options: dict[str, Any]) -> None:
    if net != "mobilenet_v2" and options.get("inject") == "depthwise":
        pytest.skip("it has no depthwise convolutions")
    check(small(net, **options), torch.randn(3, 3, 45, 38, dtype=torch.float64))


def test_one_image_in_train_mode() -> None:
    model = small("preset")
    check(model, torch.randn(1, 3, 64, 64, dtype=torch.float64))


def test_h0_is_one_pixel_and_its_share_is_spread() -> None:
    model = small("preset")
    assert calls(model, zeros_of) == 1
    assert calls(model, spread_share_) == 1  # h^0 behind the depthwise norm is not zero
    assert calls(model, plus_zeros) == 1
    assert calls(model, torch.zeros_like) == 0
    seen: list[torch.Size] = []
    zeros = zeros_of(torch.zeros(7, 3, 9, 9, dtype=torch.float64), 6)
    inject: Any = model.rla.inject["0"]  # type: ignore[index, union-attr]
    for layer in inject:
        zeros = layer(zeros)
        seen.append(zeros.shape[2:])
    assert set(seen) == {(1, 1)}
    every = inject(torch.zeros(7, 6, 9, 9, dtype=torch.float64))
    torch.testing.assert_close(every, zeros[:1].expand_as(every))


def test_shares_are_written_over_what_convolutions_make() -> None:
    model = small("resnet18")
    blocks = len(model.plan.blocks)  # type: ignore[arg-type, union-attr]
    assert calls(model, add_share_) == 2 * (blocks - 1)  # of each block's input, and of its u


def test_tanh_is_written_over_its_norm() -> None:
    assert calls(small("resnet18"), fast_tanh_) == 8
    assert calls(small("resnet18", norm="none"), fast_tanh_) == 0


def test_wide_values_have_one_backward_pass_for_their_convolutions() -> None:
    """conv1 of a bottleneck and Conv1x1 of the block before it; not where they make more of x."""
    model: Any = small("bottlenecks").train()
    # The first block of a stage has conv1 on x as well, at every stride.
    assert calls(model, joint_convs) == 4
    assert calls(small("mobilenet_v2"), joint_convs) == 0
    out = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert "JointConvs" in names_of_backward(out)


def test_convolutions_of_single_pixels_ask_for_the_faster_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = small("preset").float().to(memory_format=torch.channels_last)
    # Conv1x1 of each block, the last layer of its way into each, and the way to the head.
    assert calls(model, point_conv) == 2 * len(model.plan.blocks) + 1
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    found = []
    monkeypatch.setattr(pointwise, "PIXELS", 1)
    for least in (1, 10**12):
        monkeypatch.setattr(pointwise, "LARGE", least)
        monkeypatch.setattr(pointwise, "LARGE_LEARNING", least)
        net = copy.deepcopy(model).train()
        out = net(x)
        out.square().sum().backward()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        with torch.no_grad():
            found.append([out.detach(), net.eval()(x), *grads])
    for one, other in zip(*found, strict=True):
        scale = float(other.abs().max()) + 1e-2  # some gradients are rounding alone
        assert float((one - other).abs().max()) < 2e-3 * scale
    assert not all(map(torch.equal, *found)), "both went to the same library"


def names_of_backward(out: Tensor) -> set[str]:
    """Of all nodes of the autograd graph, without the ending Backward."""
    found, stack = set(), [out.grad_fn]
    while stack:
        node: Any = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack += [following for following, _ in node.next_functions]
    return {type(node).__name__.lstrip("_").removesuffix("Backward") for node in found}


class Narrowing(nn.Module):
    """A bottleneck that first writes over its input, through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(16, 4, 1, bias=False), nn.Conv2d(4, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x.view(x.shape).mul_(0.5)
        return x + self.conv2(torch.relu(self.conv1(x)))


def test_what_is_written_over_in_between_is_read_twice() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(3, 16, 3), *(Narrowing() for _ in range(3)))
    base = nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    model = shake(rlawrap.apply(base, k=4, source="output", init="paper")).double()
    assert calls(model, joint_convs) == 0
    check(model, torch.randn(2, 3, 12, 12, dtype=torch.float64))


def test_a_trace_of_scripts_records_plain_operations() -> None:
    """With gradients on, as most traces are made."""
    model = small("bottlenecks").eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(model, x, check_trace=False)
    assert "PythonOp" not in str(traced.graph)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-10, atol=1e-10)


def test_cells_with_gates_read_an_h0_of_all_pixels() -> None:
    model = small("resnet18", cell="convgru")
    assert calls(model, torch.zeros_like) == 1


@pytest.mark.parametrize(
    "path", ["layer2.0.conv1", "rla.input.1_128", "rla.inject.2", "rla.inject.2.conv"]
)
def test_a_hook_sees_what_was_written(path: str) -> None:
    """What a hook keeps is the layer's own output, without h's share."""
    model = small("resnet18").eval()
    kept: list[Tensor] = []
    layer = model.get_submodule(path)
    handle = layer.register_forward_hook(lambda m, a, y: kept.append(y))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        given: list[Tensor] = []
        handle.remove()
        layer.register_forward_pre_hook(lambda m, a: given.append(a[0].clone()))
        model(x)
        assert torch.equal(kept[0], layer.forward(given[0]))


def test_a_layer_of_another_class_runs_as_written() -> None:
    """A user's layer in place of a convolution may keep what it returned."""

    class Keeping(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            self.kept: Tensor = super().forward(x)
            return self.kept

    model: Any = small("resnet18").eval()
    old = model.layer2[0].conv1
    new = Keeping(64, 128, 3, stride=2, padding=1, bias=False).double()
    new.load_state_dict(old.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        model.layer2[0].conv1 = new
        torch.testing.assert_close(model(x), expected)
        sums = model.layer2[0].bn1
        seen: list[Tensor] = []
        sums.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        model(x)
    assert seen[0].data_ptr() != new.kept.data_ptr()
    assert not torch.equal(seen[0], new.kept)


@pytest.mark.parametrize("index", ["0", "2"])  # the first reads h^0, which is one pixel
def test_a_layer_put_into_a_way_of_h_runs(index: str) -> None:
    model: Any = small("preset").eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = model(x)
        way = model.rla.inject[index]
        seen: list[Tensor] = []
        way.append(nn.Softplus())
        way[-1].register_forward_hook(lambda m, a, y: seen.append(y))
        after = model(x)
        assert len(seen) == 1
        assert form(model) == "written" and not torch.equal(before, after)
        way._modules.popitem()  # `pop` would number the others anew
        assert form(model) == "spared" and torch.equal(model(x), before)


def test_synchronised_norms_keep_the_pixel() -> None:
    model: Any = small("preset")
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(synced.rla.inject["0"].norm, nn.SyncBatchNorm)
    assert form(synced) == "spared"


def test_autocast_keeps_the_types() -> None:
    for name in ("mobilenet_v2", "preset"):
        model = small(name).float()
        twin = written(model)
        x = torch.randn(2, 3, 64, 64)
        for net in (model.train(), twin.train()):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                net.out = net(x)  # type: ignore[assignment]
        assert model.out.dtype == twin.out.dtype
        torch.testing.assert_close(model.out, twin.out, rtol=0.05, atol=0.05)


def test_add_share_overwrites_only_where_nobody_can_tell() -> None:
    x, share = torch.zeros(2, 3), torch.ones(2, 3)
    assert add_share_(x, share) is x and bool((x == 1).all())
    half = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert add_share_(half, share).dtype == torch.float32 and not half.any()
    batched = torch.func.vmap(add_share_, in_dims=(None, 0))(torch.zeros(3), torch.ones(4, 3))
    assert torch.equal(batched, torch.ones(4, 3))
    parameter = nn.Parameter(torch.zeros(2, 3))
    assert add_share_(parameter, share) is not parameter
    slope = torch.func.grad(lambda s: add_share_(torch.zeros(2, 3), s).square().sum())(share)
    assert torch.equal(slope, 2 * share)


def test_convolutions_whose_pixel_would_tell_are_left() -> None:
    """A padded convolution of a constant is no constant at the borders."""
    seq = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False))
    graph = fx.Graph()
    x = graph.placeholder("x")
    one = graph.call_function(lambda v: v[:, :1], (x,))
    zeros = graph.call_function(torch.zeros_like, (one,))
    h = graph.call_function(torch.nn.functional.pad, (zeros, [0, 0, 0, 0, 0, 3]))
    share = graph.call_module("seq", (h,))
    graph.output(graph.call_function(operator.add, (x, share)))
    spared = Spared.of(graph, {"seq": seq, "seq.0": seq[0], "seq.1": seq[1]}, [h])
    assert any(n.op == "call_module" and n.target == "seq" for n in spared.graph.nodes)
    assert not spared.layers
