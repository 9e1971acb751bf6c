"""The cost of networks with a hidden state."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import rlawrap
from rlawrap.cost import Count, PartCost, cost
from tests.refused import classifier


@pytest.fixture(scope="module")
def rla_resnet50() -> nn.Module:
    return rlawrap.apply(torchvision.models.resnet50(), config=rlawrap.variant("rla"))


def test_exact_counts_of_rla_resnet50(rla_resnet50: nn.Module) -> None:
    total = cost(rla_resnet50).total
    assert (total.params, total.macs) == (25_870_696, 4_454_648_064)
    assert total.norm_elements == 11_559_296
    # The average pooling of h between the stages, one per output: 32 channels at 28, 14 and 7.
    assert total.pool_elements == 32 * (28**2 + 14**2 + 7**2)


def test_the_base_is_counted_as_if_alone(rla_resnet50: nn.Module) -> None:
    """Injections lie beside the base, so its share is exactly the plain network's cost."""
    plain = cost(torchvision.models.resnet50())
    wrapped = cost(rla_resnet50)
    assert wrapped.base == plain.total
    assert [p.base for p in wrapped.parts] == [p.base for p in plain.parts]


def test_what_each_part_adds(rla_resnet50: nn.Module) -> None:
    parts = {part.name: part.rla for part in cost(rla_resnet50).parts}
    assert list(parts) == ["stem", "stage 0", "stage 1", "stage 2", "stage 3", "head"]
    assert parts["stem"] == Count()
    # Stage 0: Conv1x1 of 256 channels, Conv3x3, three norms, three injections into 64 channels.
    assert parts["stage 0"].params == 256 * 32 + 32 * 32 * 9 + 3 * 64 + 3 * 32 * 64
    per_pixel = 256 * 32 + 32 * 32 * 9 + 32 * 64
    assert parts["stage 0"].macs == 3 * 56 * 56 * per_pixel
    # h is pooled for the first block of a stage, and that stage pays for it.
    assert [parts[f"stage {i}"].pool_elements for i in range(4)] == [0, 32 * 784, 32 * 196, 32 * 49]
    # The head: a norm of 32 channels, and 32 columns of the classifier.
    assert parts["head"] == Count(
        params=64 + 32 * 1000, macs=32 * 1000, norm_elements=32 * 49, pool_elements=0
    )


def test_a_cell_shared_by_the_network_is_counted_in_every_stage() -> None:
    model = rlawrap.apply(torchvision.models.resnet18(), k=8, share="network")
    apart = rlawrap.apply(torchvision.models.resnet18(), k=8, share="stage")

    def macs(parts: tuple[PartCost, ...]) -> list[int]:
        return [part.rla.macs for part in parts]

    shared, own = cost(model, size=64), cost(apart, size=64)
    assert macs(shared.parts) == macs(own.parts)
    assert own.total.params - shared.total.params == 3 * 8 * 8 * 9


def test_train_mode_and_hidden_state_are_left_alone() -> None:
    model = rlawrap.apply(torchvision.models.resnet18(), k=8)
    model.layer2.eval()
    modes = [m.training for m in model.modules()]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model.eval()(x)
        model.train()
        model.layer2.eval()
        cost(model, size=64)
        assert modes == [m.training for m in model.modules()]
        assert torch.equal(model.eval()(x), before)


class Twin(nn.Module):
    """Two networks for one image; with `boxes`, then a choice by value that no counting follows."""

    def __init__(self, boxes: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.fc = classifier(), classifier(), nn.Linear(2, 3)
        self.boxes = boxes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(self.a(x) + self.b(x))
        return y[y > 0] if self.boxes else y


def test_a_model_with_rewritten_networks_inside() -> None:
    base = Twin()
    model = rlawrap.apply(base, at="b", k=2)
    plain, held, alone = cost(base, 12), cost(model, 12), cost(model.b, 12)
    assert held.name == "Twin with RLA in b, k=2"
    assert [(p.name, p.rla == Count()) for p in held.parts] == [
        ("a", True), ("b", False), ("fc", True)
    ]  # fmt: skip
    assert held.base == plain.total
    assert (held.rla.params, held.rla.macs) == (alone.rla.params, alone.rla.macs)
    assert held.rla.params == sum(v.numel() for v in added_weights(model))


def added_weights(model: nn.Module) -> list[torch.Tensor]:
    return [p for name, p in model.named_parameters() if ".rla." in name]


def test_what_cannot_be_counted_as_a_whole_is_counted_in_parts() -> None:
    base = Twin(boxes=True)
    for model, call in (
        (rlawrap.apply(base, at="b", k=2), "rlawrap.cost(model.b)"),
        (base, "rlawrap.cost(model.a)"),
    ):
        with pytest.raises(rlawrap.PlanError, match=r"aten\.nonzero") as refusal:
            cost(model)
        assert str(refusal.value).endswith(f"this call works: {call}")
        assert eval(call, {"rlawrap": rlawrap, "model": model}).total.params > 0
