"""What `apply` promises, over every family: same function, same keys, the base untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import FAMILIES, BlockNet, family, random_rla, relative, uneven

ALL = list(FAMILIES)


def main(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.fixture(scope="module", params=ALL)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, rlawrap.RLAModel, Tensor]:
    base, x = family(request.param)
    base.eval()
    return request.param, base, rlawrap.apply(base, k=8), x


def test_stages_are_found(case: tuple) -> None:
    name, base, model, _ = case
    assert [len(s.blocks) for s in model.plan.stages] == FAMILIES[name][2]
    assert rlawrap.inspect(base).digest == model.plan.digest


def test_eval_outputs_equal_the_base_at_identity_init(case: tuple) -> None:
    _, base, model, x = case
    base.eval(), model.eval()
    with torch.no_grad():
        assert relative(main(base(x)), main(model(x))) < 1e-6


def test_train_outputs_and_statistics_equal_the_base(case: tuple) -> None:
    _, base, model, x = case
    base, model = copy.deepcopy(base).train(), copy.deepcopy(model).train()
    torch.manual_seed(5)
    expected = base(x)
    torch.manual_seed(5)
    got = model(x)
    assert type(got).__name__ == type(expected).__name__
    assert relative(main(expected), main(got)) < 1e-6
    for key, value in base.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_base_keys_come_first_with_their_shapes(case: tuple) -> None:
    _, base, model, _ = case
    ours = {k: v.shape for k, v in model.state_dict().items()}
    theirs = {k: v.shape for k, v in base.state_dict().items()}
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {k: ours[k] for k in theirs} == theirs
    assert all(k.startswith("rla.") for k in list(ours)[len(theirs) :])
    assert [n for n, _ in model.named_children()][-1] == "rla"


def test_module_tree_keeps_its_classes(case: tuple) -> None:
    _, base, model, _ = case
    kept = {n: type(m) for n, m in model.named_modules() if n and not n.startswith("rla")}
    assert kept == {n: type(m) for n, m in base.named_modules() if n}


def test_every_new_parameter_learns_by_the_second_step(case: tuple) -> None:
    _, _, model, x = case
    model = copy.deepcopy(model).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(1)
    for _ in range(2):
        optimiser.zero_grad()
        out = main(model(x))
        (out * torch.randn(out.shape)).sum().backward()
        optimiser.step()
    for name, parameter in model.named_parameters():
        if name.startswith("rla."):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_h_is_used_and_other_sizes_work(case: tuple) -> None:
    name, base, model, x = case
    base.eval()
    model = random_rla(copy.deepcopy(model)).eval()
    with torch.no_grad():
        assert relative(base(x), model(x)) > 1e-6
        spatial = [n + 5 + 2 * i for i, n in enumerate(x.shape[2:])]
        if name == "r3d_18":
            spatial[0] = 5
        odd = torch.randn(3, x.shape[1], *spatial)
        assert model(odd).shape == base(odd).shape


def test_the_base_is_left_as_it_was() -> None:
    base = uneven(BlockNet()).train()
    base.body[1].eval()
    base.fc.weight.requires_grad_(False)
    calls: list[int] = []
    base.body[0].register_forward_hook(lambda *_: calls.append(1))
    before = {k: v.clone() for k, v in base.state_dict().items()}
    modes = [m.training for m in base.modules()]
    attributes = [sorted(m.__dict__) for m in base.modules()]
    rlawrap.apply(base, k=4, source="branch")
    assert [m.training for m in base.modules()] == modes
    assert [sorted(m.__dict__) for m in base.modules()] == attributes
    assert all(torch.equal(v, base.state_dict()[k]) for k, v in before.items())
    assert not base.fc.weight.requires_grad
    assert all(m.inplace for m in base.modules() if isinstance(m, nn.ReLU))
    assert len(base.body[0]._forward_hooks) == 1


def test_the_global_random_state_is_left_alone_and_seeds_the_new_weights() -> None:
    base = BlockNet()
    state = torch.get_rng_state()
    first = rlawrap.apply(base, k=4, init="paper")
    assert torch.equal(state, torch.get_rng_state())
    again = rlawrap.apply(base, k=4, init="paper")
    weights = [m.state_dict()["rla.inject.1.conv.weight"] for m in (first, again)]
    assert torch.equal(*weights)
    torch.manual_seed(9)
    other = rlawrap.apply(base, k=4, init="paper").state_dict()["rla.inject.1.conv.weight"]
    assert not torch.equal(other, weights[0])


def test_new_layers_follow_dtype_and_mode_of_the_base() -> None:
    model = rlawrap.apply(BlockNet().double().eval(), k=4)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(m.training for m in model.modules())
    assert all(m.training for m in rlawrap.apply(BlockNet().train(), k=4).rla.modules())


def test_frozen_parameters_stay_frozen() -> None:
    base = BlockNet()
    base.stem.requires_grad_(False)
    model = rlawrap.apply(base, k=4)
    assert not model.stem.weight.requires_grad
    assert all(p.requires_grad for p in model.rla.parameters())


def test_a_hand_written_plan_is_followed() -> None:
    base = uneven(BlockNet()).eval()
    plan = rlawrap.Plan.of(
        "BlockNet",
        [
            [
                rlawrap.Block(path="body.1", entries=("body.1.conv1",), output="body.1"),
                rlawrap.Block(path="body.2", entries=("body.2.conv2",), output="body.2"),
            ]
        ],
        head=("fc",),
    )
    model = rlawrap.apply(base, k=4, plan=plan)
    injected = [k for k in model.state_dict() if k.startswith("rla.inject")]
    assert injected == ["rla.inject.1.conv.weight"]
    x = torch.randn(2, 3, 32, 32)
    assert relative(base(x), model(x)) < 1e-6
    assert relative(base(x), random_rla(model)(x)) > 1e-3


def test_a_plan_edited_by_hand_leaves_a_block_out() -> None:
    base = BlockNet()
    plan = rlawrap.inspect(base).without("body.2")
    assert [b.path for b in plan.blocks] == ["body.0", "body.1"]
    model = rlawrap.apply(base, k=4, plan=plan)
    assert "rla.out.1" in dict(model.named_modules())
    assert "rla.out.2" not in dict(model.named_modules())


def test_hooks_on_a_block_output_fire() -> None:
    model = rlawrap.apply(BlockNet(), k=4)
    seen: list[torch.Size] = []
    model.rla.out["1"].register_forward_hook(lambda m, i, o: seen.append(o.shape))
    model(torch.randn(2, 3, 32, 32))
    assert seen == [torch.Size([2, 16, 16, 16])]


def test_a_plan_by_hand_gets_the_shape_that_the_network_was_recorded_at() -> None:
    base, x = BlockNet().eval(), torch.randn(2, 3, 12, 12)
    found = rlawrap.inspect(base, example_input=x)
    plan = rlawrap.Plan.of("BlockNet", [stage.blocks for stage in found.stages], head=found.head)
    model = rlawrap.apply(base, k=4, plan=plan, example_input=x)
    assert (plan.input_shape, model.plan.input_shape) == ((), (2, 3, 12, 12))
    given = rlawrap.apply(base, k=4, plan=found, example_input=x)
    infos = rlawrap.backbone(model).feature_info
    assert [*infos] == [*rlawrap.backbone(given).feature_info] and infos[0].size == (12, 12)
