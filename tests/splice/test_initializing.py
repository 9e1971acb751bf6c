"""Models of a base on the meta device, and the values that their layers of h get."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, random_rla

SHIFT = torch.linspace(0, 1, 16)


class Shifted(nn.Module):
    """Residual blocks, a constant that lies in no module, and an auxiliary output in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8, 8), Residual(8, 16, 2), Residual(16, 16))
        self.fc, self.aux = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.body(self.stem(x)).mean((2, 3))
        x = x + SHIFT.to(x.device)
        return (self.fc(x), self.aux(F.relu(x))) if self.training else self.fc(x)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return Shifted().state_dict()


def empty(**options: object) -> rlawrap.RLAModel:
    with torch.device("meta"):
        model = rlawrap.apply(Shifted(), k=4, **options)  # type: ignore[arg-type]
    assert all(t.is_meta for t in model.state_dict().values())
    assert model(torch.randn(2, 3, 16, 16, device="meta"))[0].is_meta
    return model


@pytest.mark.parametrize(("init", "assign"), [("identity", False), ("paper", True)])
def test_it_equals_apply_on_a_real_base(
    weights: dict[str, Tensor], init: str, assign: bool
) -> None:
    base = Shifted()
    base.load_state_dict(weights)
    torch.manual_seed(3)
    wanted = rlawrap.apply(base, k=4, init=init, cell="convgru")
    model = empty(init=init, cell="convgru")
    if not assign:
        model = model.to_empty(device="cpu")
    missing = model.load_state_dict(weights, strict=False, assign=assign).missing_keys
    assert all(name.startswith("rla.") for name in missing)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    rlawrap.initialize(model)
    assert torch.equal(before, torch.random.get_rng_state())
    for mine, its in (
        (dict(model.named_parameters()), dict(wanted.named_parameters())),
        (dict(model.named_buffers()), dict(wanted.named_buffers())),
    ):
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[name], its[name]) for name in mine)
        assert [t.requires_grad for t in mine.values()] == [t.requires_grad for t in its.values()]
    constants = {n for n, _ in model.rla.named_buffers() if n.startswith("constants")}
    assert len(constants) == 2 and not constants & set(rlawrap.rla_state_dict(model))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(x), wanted.eval()(x))
    if init == "identity":
        assert torch.equal(model(x), base.eval()(x))
        assert not model.rla.inject["1"].conv.weight.any()
    assert model.rla.input["0_8"].weight.std() > 0.1


def test_without_values_no_output_looks_like_one(weights: dict[str, Tensor]) -> None:
    x = torch.randn(2, 3, 16, 16)
    model = empty()
    model.load_state_dict(weights, strict=False, assign=True)
    with pytest.raises(rlawrap.PlanError, match=r"rla\.input.*call rlawrap.initialize\(model\)"):
        model.eval()(x)
    model = empty().to_empty(device="cpu")
    model.load_state_dict(weights, strict=False)
    assert model.eval()(x).isnan().all()
    full = random_rla(rlawrap.apply(Shifted(), k=4)).state_dict()
    rlawrap.initialize(model)
    model.load_state_dict(full)
    assert model(x).isfinite().all()


def test_what_cannot_be_initialized_is_refused() -> None:
    with pytest.raises(rlawrap.PlanError, match=r"'stem.weight' of the base has no values.*to_emp"):
        rlawrap.initialize(empty())
    with pytest.raises(rlawrap.PlanError, match=r"initialize\(model\): expected a model made by"):
        rlawrap.initialize(Shifted())


def test_an_ordinary_model_is_drawn_anew() -> None:
    model = random_rla(rlawrap.apply(Shifted(), k=4))
    base = {k: v.clone() for k, v in rlawrap.unwrap(model).state_dict().items()}
    weight = model.rla.inject["1"].conv.weight.requires_grad_(False)
    rlawrap.initialize(model)
    assert model.rla.inject["1"].conv.weight is weight and not weight.any()
    assert not weight.requires_grad
    assert all(torch.equal(base[k], v) for k, v in rlawrap.unwrap(model).state_dict().items())
