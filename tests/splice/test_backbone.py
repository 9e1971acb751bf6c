"""`backbone`: feature maps with h running inside, no parameter without a gradient."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

import rlawrap
from tests.nets import Residual, Small, family, random_rla, relative


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
    # timm's own list tells of other maps.
    assert maps.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert copy.deepcopy(maps).feature_info.channels() == maps.out_channels


def test_unknown_paths_are_named() -> None:
    base, _ = family("resnet18")
    model = rlawrap.apply(base, k=4)
    with pytest.raises(rlawrap.PlanError, match=r"'layer9' names no block.*layer1.0"):
        rlawrap.backbone(model, ["layer9"])
    with pytest.raises(rlawrap.PlanError, match=r"Nearest: .*layer1"):
        rlawrap.backbone(model, ["layer1.x"])
    with pytest.raises(rlawrap.PlanError, match="empty"):
        rlawrap.backbone(model, {})
    with pytest.raises(rlawrap.PlanError, match=r"out_indices=\[4\].*4 stages, 0 to 3; 4 is none"):
        rlawrap.backbone(model, out_indices=[4])
    with pytest.raises(rlawrap.PlanError, match="out_indices= is empty"):
        rlawrap.backbone(model, out_indices=[])
    with pytest.raises(rlawrap.PlanError, match="not both"):
        rlawrap.backbone(model, ["layer1"], out_indices=[0])
    with pytest.raises(rlawrap.PlanError, match="output='array'; one of 'dict', 'list', 'tuple'"):
        rlawrap.backbone(model, output="array")  # type: ignore[arg-type]
    with pytest.raises(rlawrap.PlanError, match=r"frozen_stages=5.* up to 4 stages"):
        rlawrap.backbone(model, frozen_stages=5)
    with pytest.raises(rlawrap.PlanError, match="the last map comes before the end of stage 2"):
        rlawrap.backbone(model, out_indices=[0, 1], frozen_stages=3)


@pytest.mark.parametrize(("output", "cls"), [("list", list), ("tuple", tuple)])
def test_maps_by_the_number_of_their_stage_as_a_list_or_tuple(output: Any, cls: type) -> None:
    base, x = family("resnet18")
    model = random_rla(rlawrap.apply(base.eval(), k=4))
    expected = rlawrap.backbone(model)(x)
    got = rlawrap.backbone(model, out_indices=(1, -1), output=output)(x)
    assert type(got) is cls
    assert all(torch.equal(a, b) for a, b in zip(got, [expected["1"], expected["3"]], strict=True))


@pytest.mark.filterwarnings("ignore::rlawrap.RLAWarning")
def test_channels_and_strides_are_measured() -> None:
    infos = rlawrap.backbone(rlawrap.apply(family("mobilenet_v2")[0], k=4)).feature_info
    assert infos.reduction() == [2, 4, 8, 16, 32]
    assert infos.channels() == [16, 24, 32, 96, 320]
    assert infos.module_name()[-1] == "features.17" and infos[-1].size == (7, 7)
    assert infos[1:].get_dicts()[0] == {
        "name": "1", "path": "features.3", "channels": 24, "size": (56, 56), "stride": 4
    }  # fmt: skip


class Valid(nn.Sequential):
    """Windows without padding: 224 pixels give 111, then 55, which are no quotients."""

    def __init__(self) -> None:
        stem = nn.Conv2d(3, 8, 3, 2)
        super().__init__(stem, Residual(8, 8), nn.Conv2d(8, 8, 3, 2), Residual(8, 8))


def test_strides_are_how_the_maps_grow_and_no_quotient_of_sizes() -> None:
    infos = rlawrap.backbone(rlawrap.apply(Valid(), k=4)).feature_info
    assert [info.size for info in infos] == [(111, 111), (55, 55)]
    assert infos.reduction() == [2, 4]


class Frames(Valid):
    """A clip's frames lie in the batch of the maps."""

    def forward(self, clip: Tensor) -> Tensor:
        made: Tensor = super().forward(clip.flatten(0, 1))
        return made


class Electrodes(nn.Module):
    """A signal's channels become an axis of the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, (1, 4), (1, 4))
        self.body = nn.Sequential(Residual(8, 8), nn.MaxPool2d((1, 2)), Residual(8, 8))

    def forward(self, signal: Tensor) -> Tensor:
        made: Tensor = self.body(self.stem(signal.unsqueeze(1)))
        return made


def test_strides_of_maps_with_more_or_fewer_axes_than_the_image() -> None:
    frames = rlawrap.apply(Frames(), k=4, example_input=torch.randn(2, 4, 3, 64, 64))
    assert rlawrap.backbone(frames).feature_info.reduction() == [2, 4]
    electrodes = rlawrap.apply(Electrodes(), k=4, example_input=torch.randn(2, 22, 256))
    infos = rlawrap.backbone(electrodes).feature_info
    assert [info.size for info in infos] == [(22, 64), (22, 32)]
    assert infos.reduction() == [4, 8]


def test_a_map_of_one_size_has_no_stride() -> None:
    body = [Residual(8, 8), nn.AdaptiveAvgPool2d(4), Residual(8, 8)]
    maps = rlawrap.backbone(rlawrap.apply(Small(*body), k=4))
    assert [info.stride for info in maps.feature_info] == [1, None]
    with pytest.raises(rlawrap.PlanError, match=r"\['body.2'\] have no stride.*return_layers="):
        maps.feature_info.reduction()


def frozen_names(maps: nn.Module) -> set[str]:
    return {name for name, p in maps.named_parameters() if not p.requires_grad}


def moved(maps: nn.Module, x: Tensor) -> set[str]:
    """The statistics that a step in train mode changes."""
    before = {name: b.clone() for name, b in maps.named_buffers()}
    maps.train()(x)
    return {n for n, b in maps.named_buffers() if "mean" in n and not torch.equal(b, before[n])}


STEM = {"conv1.weight", "bn1.weight", "bn1.bias"}
STAGE_0 = {
    *(f"layer1.{block}.{conv}.weight" for block in (0, 1) for conv in ("conv1", "conv2")),
    *(f"layer1.{block}.{bn}.weight" for block in (0, 1) for bn in ("bn1", "bn2")),
    *(f"layer1.{block}.{bn}.bias" for block in (0, 1) for bn in ("bn1", "bn2")),
}  # fmt: skip
H_0 = {
    *("rla.inject.0.conv.weight", "rla.inject.1.conv.weight", "rla.input.0_64.weight"),
    *("rla.cell.0.conv.weight", "rla.block.0.norm.weight", "rla.block.0.norm.bias"),
    *("rla.block.1.norm.weight", "rla.block.1.norm.bias"),
}


def test_what_is_frozen_stays_so_through_freeze_base_and_back() -> None:
    base, _ = family("resnet18")
    maps = rlawrap.backbone(rlawrap.apply(base, k=4), frozen_stages=1).train()
    rlawrap.unfreeze_base(rlawrap.freeze_base(maps))
    assert not maps.bn1.training and not maps.layer1.training and maps.layer2[0].bn1.training
    assert frozen_names(maps) > STEM


def test_modes_that_were_set_by_hand_are_kept() -> None:
    base, _ = family("resnet18")
    model = rlawrap.apply(base, k=4).train()
    model.layer2.eval()
    maps = rlawrap.backbone(model)
    assert maps.training and maps.layer1.training and not maps.layer2.training


@pytest.mark.parametrize("copied", [False, True])
def test_frozen_stages_are_still_with_the_way_of_h_through_them(copied: bool) -> None:
    base, x = family("resnet18")
    model = random_rla(rlawrap.apply(base, k=4, initial_state="zeros"))
    maps = rlawrap.backbone(model, frozen_stages=1)
    maps = copy.deepcopy(maps) if copied else maps
    assert frozen_names(maps) == STEM | STAGE_0 | H_0
    assert all(p.requires_grad for p in model.parameters())
    still = {"bn1.", "layer1.", "rla.block.0.", "rla.block.1."}
    statistics = {name for name, _ in maps.named_buffers() if "mean" in name}
    free = {name for name in statistics if not name.startswith(tuple(still))}
    assert moved(maps, x) == free and len(free) < len(statistics)
    sum(m.square().sum() for m in maps(x).values()).backward()
    assert {n for n, p in maps.named_parameters() if p.grad is None} == STEM | STAGE_0 | H_0
    assert not maps.layer1.training and maps.layer2.training and maps.training


def test_the_stem_alone_or_the_norms_alone() -> None:
    base, x = family("resnet18")
    model = rlawrap.apply(base, k=4)
    stem = rlawrap.backbone(model, frozen_stages=0)
    assert frozen_names(stem) == STEM
    assert "bn1.running_mean" not in moved(stem, x) and "layer1.0.bn1.running_mean" in moved(
        stem, x
    )
    norms = rlawrap.backbone(model, norm_eval=True)
    assert frozen_names(norms) == moved(norms, x) == set()
    assert norms.layer1[0].training and not norms.rla.block["0"]["norm"].training
    assert moved(rlawrap.backbone(model), x)


def test_a_cell_that_later_stages_share_is_not_frozen() -> None:
    base, _ = family("resnet18")
    maps = rlawrap.backbone(rlawrap.apply(base, k=4, share="network"), frozen_stages=1)
    own = H_0 - {"rla.cell.0.conv.weight", "rla.inject.0.conv.weight"}
    assert frozen_names(maps) == STEM | STAGE_0 | own
    whole = rlawrap.backbone(rlawrap.apply(base, k=4, share="network"), frozen_stages=4)
    assert all(not p.requires_grad for p in whole.parameters())


class InOneForward(nn.Module):
    """Residual steps written in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.one(x).relu()
        return x + self.two(x).relu()


def test_stems_are_told_where_the_blocks_are_no_modules() -> None:
    maps = rlawrap.backbone(rlawrap.apply(InOneForward(), k=4), frozen_stages=0)
    assert frozen_names(maps) == {"stem.weight", "stem.bias"}


def test_a_hook_runs_where_a_shortcut_has_no_layers() -> None:
    maps = rlawrap.backbone(rlawrap.models.rla_cifar_resnet20())
    seen: list[str] = []
    for path in ("layer2", "layer2.0.shortcut"):
        maps.get_submodule(path).register_forward_hook(lambda *a, p=path: seen.append(p))
    assert maps.feature_info.reduction() == [1, 2, 4]
    maps(torch.randn(2, 3, 32, 32))
    assert seen == ["layer2.0.shortcut", "layer2"]
