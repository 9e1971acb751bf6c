"""Several convolutions with one backward pass: the same numbers, and its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlawrap.splice import joint, pointwise
from rlawrap.splice.joint import Geometry, _each, joint_convs

GEOMETRY = Geometry((1, 1), (0, 0), (1, 1))
OURS = (False, True)


def given(kernel: int = 1, dims: int = 2) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *[5] * dims, dtype=torch.float64, requires_grad=True)
    sizes = ([m, 3, *[kernel] * dims] for m in (4, 2))
    weights = [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in sizes]
    return x, weights


@pytest.mark.parametrize(
    ("kernel", "dims", "geometry"),
    [
        (1, 2, GEOMETRY),
        (3, 2, ((2, 1), (1, 2), (1, 2))),
        (3, 1, ((1,), (1,), (1,))),
        (1, 3, ((1, 1, 1), (0, 0, 0), (1, 1, 1))),
    ],
)
def test_gradients_of_first_and_second_order(kernel: int, dims: int, geometry: Any) -> None:
    x, weights = given(kernel, dims)
    shape = Geometry(*geometry)
    found = []
    for function in (joint_convs, _each):
        outputs = function(x, weights, shape, OURS)
        loss = sum((y.sin().sum() for y in outputs), torch.zeros(()))
        first = torch.autograd.grad(loss, (x, *weights), create_graph=True)
        again = sum((g.square().sum() for g in first), torch.zeros(()))
        found.append((*outputs, *first, *torch.autograd.grad(again, (x, *weights))))
    assert "JointConvs" in type(joint_convs(x, weights, shape, OURS)[0].grad_fn).__name__
    for ours, single in zip(*found, strict=True):
        torch.testing.assert_close(ours, single, rtol=1e-12, atol=1e-12)


def test_an_output_that_nobody_reads() -> None:
    x, weights = given()
    first, _ = joint_convs(x, weights, GEOMETRY, OURS)
    of_x, of_unread = torch.autograd.grad(first.sum(), (x, weights[1]))
    expected = weights[0].detach().sum(0)[None].expand(2, 3, 5, 5)
    torch.testing.assert_close(of_x, expected)
    assert not of_unread.any()


def test_single_ones_where_something_stays_still() -> None:
    x, weights = given()

    def is_joint() -> bool:
        made = joint_convs(x, weights, GEOMETRY, OURS)[0]
        return "JointConvs" in type(made.grad_fn).__name__

    assert is_joint()
    with torch.no_grad():
        assert not is_joint()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = joint_convs(x.float(), [w.float() for w in weights], GEOMETRY, OURS)
        assert made[0].dtype == torch.bfloat16
    weights[0].requires_grad_(False)
    assert not is_joint()
    weights[0].requires_grad_(True)
    x.requires_grad_(False)
    assert not is_joint()


def test_transforms_see_single_convolutions() -> None:
    x, weights = given()

    def loss(w: Tensor) -> Tensor:
        return joint_convs(x.detach(), [w, weights[1].detach()], GEOMETRY, OURS)[0].square().sum()

    stacked = torch.stack([weights[0].detach(), 2 * weights[0].detach()])
    slopes = torch.func.vmap(torch.func.grad(loss))(stacked)
    torch.testing.assert_close(slopes[1], 2 * slopes[0])


def test_large_ones_of_single_pixels_go_to_onednn_in_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pointwise, "LARGE_LEARNING", 1)
    monkeypatch.setattr(pointwise, "PIXELS", 1)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = [torch.randn(m, 3, 1, 1, requires_grad=True) for m in (4, 2)]
    dilations: list[list[int]] = []
    backward = torch.ops.aten.convolution_backward

    def recorded(*args: Any) -> Any:
        dilations.append([*args[6]])
        return backward(*args)

    outputs = joint_convs(x, weights, GEOMETRY, OURS)
    expected = torch.autograd.grad(sum(y.sin().sum() for y in outputs), (x, *weights))
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", recorded)
    outputs = joint_convs(x, weights, GEOMETRY, OURS)
    found = torch.autograd.grad(sum(y.sin().sum() for y in outputs), (x, *weights))
    monkeypatch.setattr(pointwise, "LARGE_LEARNING", 10**9)
    outputs = joint_convs(x, weights, GEOMETRY, OURS)
    by_products = torch.autograd.grad(sum(y.sin().sum() for y in outputs), (x, *weights))
    assert dilations == [[2, 2], [1, 1]]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, by_products)


def test_the_base_s_own_are_called_as_it_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def point_conv(x: Tensor, weight: Tensor) -> Tensor:
        asked.append(weight)
        return torch.nn.functional.conv2d(x, weight)

    monkeypatch.setattr(joint, "point_conv", point_conv)
    x, weights = given()
    joint_convs(x, weights, GEOMETRY, OURS)
    assert [w.shape for w in asked] == [weights[1].shape]
    asked.clear()
    joint_convs(x, weights, GEOMETRY._replace(stride=(2, 2)), OURS)
    assert not asked
