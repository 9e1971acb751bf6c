from __future__ import annotations

import pytest
import torch
import torchvision
from torch import fx

import rlawrap
from rlawrap.cells import fast_tanh
from rlawrap.cells.tanh import fast_tanh_


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_are_those_of_tanh(dtype: torch.dtype) -> None:
    z = torch.linspace(-30, 30, 1201, dtype=torch.float64).to(dtype)
    tolerance = {torch.float32: 3e-7, torch.float64: 5e-16, torch.bfloat16: 0}[dtype]
    kept = z.clone()
    assert float((fast_tanh(z) - torch.tanh(z)).abs().max()) <= tolerance
    assert torch.equal(z, kept)
    assert fast_tanh(torch.tensor([torch.inf, -torch.inf])).tolist() == [1, -1]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own call
def test_gradients_of_all_kinds() -> None:
    z = torch.randn(5, dtype=torch.float64, requires_grad=True)
    checks = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(fast_tanh, z, **checks)
    assert torch.autograd.gradgradcheck(fast_tanh, z)
    rows = torch.randn(2, 3, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.jacrev(fast_tanh))(rows)
    torch.testing.assert_close(slopes, torch.diag_embed(1 - torch.tanh(rows) ** 2))


def test_its_result_is_all_that_it_saves() -> None:
    z = torch.randn(4, 4, requires_grad=True)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        tanh = fast_tanh(z)
    assert [t.data_ptr() for t in saved] == [tanh.data_ptr()]


def test_tracers_keep_it_and_exporters_see_tanh() -> None:
    graph = fx.symbolic_trace(fast_tanh).graph
    assert [n.target for n in graph.nodes if n.op == "call_function"] == [fast_tanh]
    model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=4).eval()
    exported = torch.export.export(model, (torch.zeros(1, 3, 64, 64),))
    names = [str(node.target) for node in exported.graph.nodes]
    assert names.count("aten.tanh.default") == 8
    assert "aten.sigmoid_.default" not in names


def test_cells_run_by_it() -> None:
    model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=4)
    functions = [node.target for node in model.rla.splice.graph.nodes]
    assert functions.count(fast_tanh) == 8 and torch.tanh not in functions


def test_in_place_where_no_gradients_are_asked_for() -> None:
    z = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = z.tanh()
    assert fast_tanh_(z).data_ptr() != z.data_ptr()  # gradients may be asked for
    with torch.no_grad():
        made = fast_tanh_(z)
        assert made.data_ptr() == z.data_ptr()
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-15)
        half = torch.zeros(2, dtype=torch.bfloat16)
        assert fast_tanh_(half).data_ptr() != half.data_ptr()
