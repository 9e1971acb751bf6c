"""The cells against their equations, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.cells import CellSpec, get_cell, list_cells, make_norm


def parts(name: str, k: int = 3, **spec: object) -> tuple[object, dict[str, nn.Module]]:
    cell = get_cell(name)(CellSpec(k=k, **spec))  # type: ignore[arg-type]
    return cell, {**cell.shared(), **cell.own()}


def draw(k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, k, 5, 5), torch.randn(2, k, 5, 5), torch.randn(2, k, 5, 5)


def test_registered_cells() -> None:
    assert {"conv", "dwconv", "convlstm", "convgru"} <= set(list_cells())
    with pytest.raises(rlawrap.ConfigError, match="Did you mean `cell='convgru'`"):
        get_cell("convgro")


@pytest.mark.parametrize("name", ["conv", "dwconv"])
@pytest.mark.parametrize("update", ["pre", "split", "post"])
def test_convolutional_cells(name: str, update: str) -> None:
    u, h, _ = draw()
    cell, m = parts(name, update=update)
    if update == "pre":
        expected = m["conv"](torch.tanh(m["norm"](u + h)))
    elif update == "split":
        expected = u + m["conv"](torch.tanh(m["norm"](h)))
    else:
        expected = torch.tanh(m["norm"](m["conv"](u + h)))
    torch.testing.assert_close(cell.step(m, u, (h,)), (expected,))  # type: ignore[attr-defined]
    assert m["conv"].groups == (3 if name == "dwconv" else 1)
    assert m["conv"].bias is None


def test_lstm() -> None:
    cell, m = parts("convlstm")
    u, h, c = draw()
    gates = F.conv2d(torch.cat([torch.tanh(m["norm"](u)), h], 1), m["conv"].weight, padding=1)
    i, f, o, g = gates.chunk(4, 1)
    after = f.sigmoid() * c + i.sigmoid() * g.tanh()
    got = cell.step(m, u, (h, c))  # type: ignore[attr-defined]
    torch.testing.assert_close(got, (o.sigmoid() * after.tanh(), after))


def test_gru() -> None:
    cell, m = parts("convgru")
    u, h, _ = draw()
    x = torch.tanh(m["norm"](u))
    reset, update = m["gates"](torch.cat([x, h], 1)).chunk(2, 1)
    reset, update = m["reset_norm"](reset).sigmoid(), m["update_norm"](update).sigmoid()
    new = m["out_norm"](m["out"](torch.cat([x, reset * h], 1))).tanh()
    got = cell.step(m, u, (h,))  # type: ignore[attr-defined]
    torch.testing.assert_close(got, (update * h + (1 - update) * new,))
    assert m["out_norm"].num_groups == 1 and m["out_norm"].eps == 1e-6


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dimensions_and_norms(dims: int) -> None:
    x = torch.randn(2, 4, *(6,) * dims)
    for kind in ("batch", "group", "layer", "instance", "none"):
        assert make_norm(kind, 4, dims)(x).shape == x.shape
    cell, m = parts("conv", k=4, dims=dims, kernel=5)
    assert cell.step(m, x, (x,))[0].shape == x.shape  # type: ignore[attr-defined]
    assert m["conv"].kernel_size == (5,) * dims


def test_layer_norm_is_over_all_values_of_a_sample() -> None:
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(make_norm("layer", 4, 2)(x), F.layer_norm(x, x.shape[1:]))


def test_what_is_no_cell_cannot_be_registered() -> None:
    with pytest.raises(rlawrap.ConfigError, match="no subclass of"):
        rlawrap.register_cell("broken")(nn.Linear)  # type: ignore[type-var]


@pytest.mark.parametrize("kind", ["group", "layer", "instance"])
def test_norms_take_one_pixel_of_one_image(kind: str) -> None:
    norm = make_norm(kind, 4, 2)
    assert norm(torch.randn(1, 4, 1, 1)).shape == (1, 4, 1, 1)
    x = torch.randn(2, 4, 5, 5)
    groups = {"group": 2, "layer": 1, "instance": 4}[kind]
    torch.testing.assert_close(norm(x), torch.nn.functional.group_norm(x, groups))


def test_a_registration_without_a_name_is_refused() -> None:
    with pytest.raises(
        rlawrap.ConfigError, match=r"used on 'Mine' without a name.*\(\"my_cell\"\)"
    ):
        rlawrap.register_cell(type("Mine", (rlawrap.Cell,), {}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "update", "ends", "forms"),
    [
        ("conv", "pre", False, True),
        ("conv", "split", False, True),
        ("dwconv", "post", True, True),
        ("convlstm", "pre", True, False),
        ("convgru", "pre", True, False),
    ],
)
def test_what_a_cell_says_of_itself(name: str, update: str, ends: bool, forms: bool) -> None:
    cell = get_cell(name)(CellSpec(k=4, update=update))
    assert (cell.ends_active, cell.has_forms) == (ends, forms)
