"""`backbone`: feature maps with h running inside, no parameter without a gradient."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

import rlawrap
from tests.nets import Residual, family, random_rla, relative


def block_outputs(model: rlawrap.RLAModel, x: Tensor, indices: list[int]) -> list[Tensor]:
    seen: dict[int, Tensor] = {}
    for i in indices:
        model.rla.out[str(i)].register_forward_hook(lambda m, a, o, i=i: seen.update({i: o}))
    model(x)
    return [seen[i] for i in indices]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
@pytest.mark.parametrize("source", ["output", "branch"])
@pytest.mark.filterwarnings("ignore::rlawrap.RLAWarning")
def test_maps_are_the_block_outputs(name: str, source: str) -> None:
    base, x = family(name)
    model = random_rla(rlawrap.apply(base.eval(), k=4, source=source))
    maps = rlawrap.backbone(model)
    ends = [sum(len(s.blocks) for s in model.plan.stages[: i + 1]) - 1 for i in range(99)]
    ends = ends[: len(model.plan.stages)]
    expected = block_outputs(copy.deepcopy(model), x, ends)
    got = maps(x)
    assert list(got) == [str(i) for i in range(len(ends))]
    for a, b in zip(expected, got.values(), strict=True):
        assert torch.equal(a, b)
    assert maps.out_channels == [m.shape[1] for m in got.values()]
    keys = list(model.state_dict())
    assert [k for k in keys if k in maps.state_dict()] == list(maps.state_dict())


def test_h_is_not_lost_and_the_model_is_left_alone() -> None:
    base, x = family("resnet18")
    model = random_rla(rlawrap.apply(base.eval(), k=4))
    before = model(x)
    names = {"layer2": "c3", "layer4.0": "c5"}
    bare = {b.path: i for i, b in enumerate(model.plan.blocks)}
    maps = rlawrap.backbone(model, names)(x)
    without = block_outputs(rlawrap.apply(base, k=4), x, [bare["layer2.1"], bare["layer4.0"]])
    assert list(maps) == ["c3", "c5"]
    assert all(relative(a, b) > 1e-4 for a, b in zip(without, maps.values(), strict=True))
    assert torch.equal(model(x), before)


def test_every_parameter_gets_a_gradient() -> None:
    base, x = family("resnet18")
    maps = rlawrap.backbone(random_rla(rlawrap.apply(base, k=4, initial_state="none"))).train()
    assert not any(k.startswith(("fc", "rla.head")) for k in maps.state_dict())
    sum(m.square().sum() for m in maps(x).values()).backward()
    assert [n for n, p in maps.named_parameters() if p.grad is None] == []


def test_a_feature_pyramid_takes_it() -> None:
    base, x = family("resnet18")
    maps = rlawrap.backbone(rlawrap.apply(base.eval(), k=4), ["layer1", "layer2", "layer3"])
    pyramid = FeaturePyramidNetwork(maps.out_channels, 16)
    assert [tuple(m.shape[1:]) for m in pyramid(maps(x)).values()] == [
        (16, 16, 16),
        (16, 8, 8),
        (16, 4, 4),
    ]


def test_copies_keep_their_attributes_and_there_is_no_way_back() -> None:
    base, x = family("googlenet")
    maps = rlawrap.backbone(random_rla(rlawrap.apply(base.eval(), k=4)), ["inception4e"])
    twin = copy.deepcopy(maps)
    assert torch.equal(twin(x)["0"], maps(x)["0"])
    assert twin.out_channels == [832] and twin.blocks == ["inception4e"]
    with pytest.raises(rlawrap.PlanError, match="the model is a backbone"):
        rlawrap.unwrap(maps)
    with pytest.raises(rlawrap.PlanError, match="state_dict"):
        pickle.dumps(maps)


class Named(nn.Module):
    """Residual blocks in a list called `blocks`, and a projection called `out_channels`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(8, 8) for _ in range(3))
        self.out_channels = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.out_channels(x.mean((2, 3)))


def test_names_of_the_base_stay_the_bases() -> None:
    model = random_rla(rlawrap.apply(Named().eval(), k=4))
    x = torch.randn(2, 3, 16, 16)
    for maps in (rlawrap.backbone(model), copy.deepcopy(rlawrap.backbone(model))):
        assert isinstance(maps.blocks, nn.ModuleList)
        assert (maps.rla.blocks, maps.rla.out_channels) == (["blocks.2"], [8])
        assert torch.equal(maps(x)["0"], block_outputs(copy.deepcopy(model), x, [2])[0])


def test_efficientnet_of_timm() -> None:
    timm = pytest.importorskip("timm")
    base = timm.create_model("efficientnet_b0").eval()
    maps = rlawrap.backbone(rlawrap.apply(base, k=4))
    x = torch.randn(1, 3, 64, 64)
    assert [m.shape[1] for m in maps(x).values()] == maps.out_channels == maps.rla.out_channels
    assert isinstance(maps.blocks, nn.Sequential)


def test_unknown_paths_are_named() -> None:
    base, _ = family("resnet18")
    model = rlawrap.apply(base, k=4)
    with pytest.raises(rlawrap.PlanError, match=r"'layer9' names no block.*layer1.0"):
        rlawrap.backbone(model, ["layer9"])
    with pytest.raises(rlawrap.PlanError, match="empty"):
        rlawrap.backbone(model, {})
