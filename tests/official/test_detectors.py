"""Whole official detectors in MMDetection 3.x and in torchvision."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

import rlawrap
import rlawrap.detection
from rlawrap.conversion import convert_file, from_detector, from_official
from rlawrap.detection import detector
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.official.detectors import read_detector, to_mmdet3
from rlawrap.official.torchvision_names import detector_call, to_torchvision
from tests.official.mmdet import KINDS, WIDTHS, checkpoint, heads, shapes

CLASSES, WIDTH, HIDDEN = 5, 8, 16


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A small network of the official kind, [256, 512, 1024, 2048] channels wide."""
    base = ResNet(Bottleneck, [1, 2, 1, 1], groups=2, width_per_group=2)
    base = rlawrap.attend(base, "eca", kernel=lambda channels: 7 if channels == 2048 else 5)
    return rlawrap.apply(base, config=rlawrap.variant("rla", k=4))


@pytest.fixture(scope="module")
def body(whole: nn.Module) -> nn.Module:
    return rlawrap.backbone(whole)


@pytest.fixture(scope="module")
def files(body: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("detectors")
    made = {kind: folder / f"{kind}.pth" for kind in KINDS}
    for kind, path in made.items():
        torch.save(checkpoint(body, kind), path)
    return made


def read(path: Path) -> Any:
    return torch.load(path, weights_only=True)


class WithPyramid(nn.Module):
    """What torchvision's detectors take: maps by name, and how many channels each has."""

    out_channels = WIDTH

    def __init__(self, body: nn.Module, retina: bool) -> None:
        super().__init__()
        self.body = copy.deepcopy(body)
        self.first = 1 if retina else 0
        extra = LastLevelP6P7(WIDTHS[-1], WIDTH) if retina else LastLevelMaxPool()
        self.fpn = FeaturePyramidNetwork(list(WIDTHS[self.first :]), WIDTH, extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(images)
        names = list(maps)[self.first :]
        found: dict[str, Tensor] = self.fpn({name: maps[name] for name in names})
        return found


def torchvision_detector(kind: str, body: nn.Module) -> nn.Module:
    """torchvision's own classes, with small heads of the usual names."""
    names = CLASSES + 1
    pyramid = WithPyramid(body, kind == "RetinaNet")
    if kind == "RetinaNet":
        sizes = tuple((s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)) for s in (32, 64, 128, 256, 512))
        anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
        return RetinaNet(
            pyramid,
            names,
            min_size=64,
            anchor_generator=anchors,
            head=RetinaNetHead(WIDTH, 9, names),
        )
    options: dict[str, Any] = {
        "min_size": 64,
        "rpn_head": RPNHead(WIDTH, 3),
        "rpn_anchor_generator": AnchorGenerator(
            ((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5
        ),
        "box_head": TwoMLPHead(WIDTH * 49, HIDDEN),
        "box_predictor": FastRCNNPredictor(HIDDEN, names),
    }
    if kind == "Faster R-CNN":
        return FasterRCNN(pyramid, **options)
    options["mask_head"] = MaskRCNNHeads(WIDTH, (WIDTH,) * 4, 1)
    options["mask_predictor"] = MaskRCNNPredictor(WIDTH, WIDTH, names)
    return MaskRCNN(pyramid, **options)


def test_mmdet3_from_a_file(files: Mapping[str, Path], body: nn.Module, tmp_path: Path) -> None:
    target = tmp_path / "new.pth"
    told = from_detector(files["Mask R-CNN"], target, "mmdet3", num_classes=CLASSES)
    assert len(told) == 1
    assert "backbone.conv_outs.3.weight" in told[0]
    written = read(target)
    assert written["meta"] == {"dataset_meta": {"classes": tuple(f"class {n}" for n in range(5))}}
    state = written["state_dict"]
    expected = {f"backbone.{k}": list(v.shape) for k, v in body.state_dict().items()}
    expected |= shapes("Mask R-CNN", CLASSES)
    assert {key: list(value.shape) for key, value in state.items()} == expected
    same = rlawrap.load_official(copy.deepcopy(body), read(files["Mask R-CNN"]))
    for key, value in same.state_dict().items():
        assert torch.equal(state[f"backbone.{key}"], value), key


@pytest.mark.parametrize("kind", KINDS)
def test_mmdet3_keeps_neck_and_heads(kind: str, body: nn.Module) -> None:
    detector = read_detector(checkpoint(body, kind))
    assert detector.kind == kind
    state = to_mmdet3(detector, {"conv1.weight": torch.ones(1)})["state_dict"]
    assert set(state) == {"backbone.conv1.weight", *shapes(kind, CLASSES)}
    for key, value in heads(kind, CLASSES).items():
        assert torch.equal(state[key], value), key


def test_torchvision_from_a_file(whole: nn.Module, body: nn.Module, tmp_path: Path) -> None:
    """Into the detector that is told, with heads as wide as torchvision's."""
    source, target = tmp_path / "old.pth", tmp_path / "new.pth"
    content = checkpoint(body, "RetinaNet")
    wide = shapes("RetinaNet", CLASSES, width=256)
    content["state_dict"] |= {key: torch.zeros(shape) for key, shape in wide.items()}
    torch.save(content, source)
    told = from_detector(source, target, "torchvision")
    assert "counts 6 classes: class 0 is the background, then come the 5 in" in told[1]
    assert any("ReLU before the convolution that makes P7" in sentence for sentence in told)
    network = (
        "rlawrap.apply(rlawrap.attend(torchvision.models.ResNet(torchvision.models.resnet."
        'Bottleneck, [1, 2, 1, 1], groups=2, width_per_group=2), "eca"), '
        'config=rlawrap.variant("rla", k=4))'
    )
    call = f"rlawrap.detection.detector('retinanet', {network}, num_classes=6)"
    assert told[2] == f"after `import rlawrap.detection`, load_state_dict of `{call}` takes it"
    model: Any = rlawrap.detection.detector("retinanet", whole, num_classes=6)
    model.load_state_dict(read(target), strict=True)
    same = rlawrap.load_official(copy.deepcopy(body), content)
    for key, value in same.state_dict().items():
        assert torch.equal(model.backbone.body.state_dict()[key], value), key


def test_calls_for_detectors() -> None:
    network = "rlawrap.models.rla_resnet50()"
    for kind, options, wanted in (
        ("Faster R-CNN", {"width": 256, "hidden": 1024}, "'fasterrcnn', {}, num_classes=6"),
        ("Mask R-CNN", {"width": 256, "hidden": 1024}, "'maskrcnn', {}, num_classes=6"),
        ("Mask R-CNN", {"width": 256, "hidden": 1024, "stacked": 2}, None),
        ("Faster R-CNN", {"width": 256}, None),
        ("RetinaNet", {}, None),
    ):
        wide = shapes(kind, CLASSES, **options)
        made = {key: torch.empty(shape, device="meta") for key, shape in wide.items()}
        found = read_detector({"backbone.conv1.weight": torch.ones(1), **made})
        call = f"rlawrap.detection.detector({wanted.format(network)})" if wanted else ""
        assert detector_call(found, network) == call


@pytest.mark.parametrize("kind", KINDS)
def test_torchvision_takes_it_strictly_and_finds_no_background(kind: str, body: nn.Module) -> None:
    _, model = converted(kind, body)
    with torch.no_grad():
        found = model([torch.rand(3, 64, 64)])[0]
    assert found["boxes"].shape[1] == 4
    assert not bool((found["labels"] == 0).any())


def converted(kind: str, body: nn.Module) -> tuple[dict[str, Tensor], nn.Module]:
    """MMDetection's tensors, and torchvision's detector with the converted ones."""
    source = checkpoint(body, kind)
    model = torchvision_detector(kind, body)
    made = to_torchvision(read_detector(source), model.backbone.body.state_dict())
    model.load_state_dict(made, strict=True)
    return source["state_dict"], model.eval()


def test_classes_and_boxes_of_two_stages(body: nn.Module) -> None:
    """MMDetection: class n in row n, the background last; offsets times its deviations."""
    state, model = converted("Mask R-CNN", body)
    features = torch.rand(3, HIDDEN)
    with torch.no_grad():
        scores, offsets = model.roi_heads.box_predictor(features)
    name = "roi_head.bbox_head"
    theirs = F.linear(features, state[f"{name}.fc_cls.weight"], state[f"{name}.fc_cls.bias"])
    torch.testing.assert_close(scores[:, 1:], theirs[:, :CLASSES])
    torch.testing.assert_close(scores[:, 0], theirs[:, CLASSES])
    theirs = F.linear(features, state[f"{name}.fc_reg.weight"], state[f"{name}.fc_reg.bias"])
    torch.testing.assert_close(offsets[:, 4:], theirs)
    assert not bool(offsets[:, :4].any())
    # Offsets are of the centre and of the logarithm of the sides, in both.
    region = torch.tensor([[10.0, 20.0, 50.0, 40.0]])
    boxes = model.roi_heads.box_coder.decode(offsets[:1], [region])
    x, y, w, h = (theirs[0, 4:8] * torch.tensor([0.1, 0.1, 0.2, 0.2])).tolist()
    centre, sides = (30 + 40 * x, 30 + 20 * y), (40 * math.exp(w) / 2, 20 * math.exp(h) / 2)
    wanted = [*(c - s for c, s in zip(centre, sides, strict=True)),
              *(c + s for c, s in zip(centre, sides, strict=True))]  # fmt: skip
    torch.testing.assert_close(boxes[0, 2], torch.tensor(wanted))
    maps = torch.rand(2, WIDTH, 4, 4)
    mask = "roi_head.mask_head"
    with torch.no_grad():
        masks = model.roi_heads.mask_predictor.mask_fcn_logits(maps)
    theirs = F.conv2d(maps, state[f"{mask}.conv_logits.weight"], state[f"{mask}.conv_logits.bias"])
    torch.testing.assert_close(masks[:, 1:], theirs)


def test_classes_and_boxes_of_retinanet(body: nn.Module) -> None:
    """Scores and offsets of each anchor, in the order in which MMDetection takes them."""
    state, model = converted("RetinaNet", body)
    maps = torch.rand(2, WIDTH, 3, 4)
    with torch.no_grad():
        found = model.head([maps])

    def through(name: str, last: str, each: int) -> Tensor:
        x = maps
        for n in range(4):
            layer = f"bbox_head.{name}_convs.{n}.conv"
            x = F.relu(F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1))
        layer = f"bbox_head.{last}"
        x = F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1)
        return x.permute(0, 2, 3, 1).reshape(2, -1, each)

    scores = through("cls", "retina_cls", CLASSES)
    torch.testing.assert_close(found["cls_logits"][..., 1:], scores)
    assert found["cls_logits"][..., 0].sigmoid().max() < 1e-40
    torch.testing.assert_close(found["bbox_regression"], through("reg", "retina_reg", 4))


@pytest.mark.parametrize(
    ("kind", "scales"), [("RetinaNet", (1, 2 ** (1 / 3), 2 ** (2 / 3))), ("Faster R-CNN", (1,))]
)
def test_anchors_stand_in_the_same_order(
    kind: str, scales: tuple[float, ...], whole: nn.Module
) -> None:
    """MMDetection: for each ratio of height to width the sizes; torchvision rounds to pixels.

    Its middle sizes of RetinaNet's are cut to whole numbers before.
    """
    model: Any = detector(kind.replace(" ", "").replace("-", "").lower(), whole, num_classes=6)
    generator = model.anchor_generator if kind == "RetinaNet" else model.rpn.anchor_generator
    for level, size in enumerate((32, 64, 128, 256, 512)):
        sides = [
            (size * scale / math.sqrt(ratio), size * scale * math.sqrt(ratio))
            for ratio in (0.5, 1.0, 2.0)
            for scale in scales
        ]
        wanted = torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides])
        got = generator.cell_anchors[level]
        assert (got - wanted).abs().max() <= (0.5 if len(scales) == 1 else 1.1)
        nearest = torch.cdist(wanted, got).argmin(dim=1)
        assert nearest.tolist() == list(range(len(sides)))


def test_by_the_command_line(files: Mapping[str, Path], tmp_path: Path, capsys: Any) -> None:
    from rlawrap.cli import main

    target = tmp_path / "new.pth"
    for options, code, said in (
        (["--to", "torchvision"], 0, "left out, as no output depends on it"),
        (["--to", "detectron"], 2, "choose `--to mmdet3` or `--to torchvision`"),
        (["--to", "mmdet3", "--arch", "rla_resnet50"], 2, "leave --arch and --k out"),
        (["--to", "mmdet3", "--num-classes", "80"], 2, "a detector of 5 classes, not 80"),
        (["--arch", "rla_resnet50"], 2, "--to mmdet3` (or torchvision) converts it whole"),
    ):
        target.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as stop:
            main(["convert", str(files["RetinaNet"]), str(target), *options])
        assert int(stop.value.code or 0) == code
        printed = capsys.readouterr()
        assert said in printed.out + printed.err
        assert target.exists() == (code == 0)


def bad(body: nn.Module, kind: str, **changes: Any) -> dict[str, Any]:
    """A checkpoint with tensors replaced, or removed where None is given."""
    made = checkpoint(body, kind)
    state = {**made["state_dict"], **{key.replace("__", "."): v for key, v in changes.items()}}
    return {**made, "state_dict": {key: v for key, v in state.items() if v is not None}}


def test_what_is_no_such_detector(body: nn.Module) -> None:
    faster, mask = checkpoint(body, "Faster R-CNN"), checkpoint(body, "Mask R-CNN")
    one = torch.ones(1)
    old = {k.replace("roi_head.", ""): v for k, v in mask["state_dict"].items()}
    alone = {k: v for k, v in faster["state_dict"].items() if k.startswith("backbone.")}
    bare = {k.removeprefix("backbone."): v for k, v in alone.items()}
    cases: list[tuple[dict[str, Any], str]] = [
        ({**faster, "meta": {"mmdet_version": "1.2.0"}}, r"MMDetection 1\.x \(version 1\.2\.0\)"),
        ({"state_dict": old}, r"1\.x \((bbox_head\.fc_cls|mask_head)\S+ stands outside roi_head\)"),
        ({"state_dict": alone}, "a backbone alone, without a detector's neck"),
        ({"state_dict": bare}, r"nothing in it is named backbone\.\*; it has conv1\.weight"),
        (
            bad(body, "Faster R-CNN", roi_head__semantic_head__x=one),
            r"another detector than .*: it has roi_head\.semantic_head\.x\. Its backbone",
        ),
        (
            {"state_dict": alone | {"bbox_head.atss_cls.weight": one}},
            r"another detector than .*: it has bbox_head\.atss_cls\.weight",
        ),
        (
            bad(body, "RetinaNet", bbox_head__retina_reg__bias=None),
            r"this RetinaNet lacks 1 tensors:\n  bbox_head\.retina_reg\.bias",
        ),
        (
            bad(body, "Faster R-CNN", roi_head__bbox_head__fc_reg__weight=torch.ones(4, HIDDEN)),
            "has 5 classes and a background, fc_reg 4 rows, not 20",
        ),
        (
            bad(body, "Faster R-CNN", rpn_head__rpn_cls__weight=torch.ones(6, WIDTH, 1, 1)),
            r"rpn_cls has 6 rows and rpn_reg 12, so .* MMDetection 2\.5",
        ),
        (
            bad(body, "Mask R-CNN", **{
                "roi_head.mask_head.conv_logits.weight": torch.ones(80, WIDTH, 1, 1)}),
            "conv_logits has 80 rows, not 5",
        ),
        (
            bad(body, "RetinaNet", bbox_head__retina_cls__weight=torch.ones(44, WIDTH, 3, 3)),
            "retina_cls has 44 rows and retina_reg 36",
        ),
        (
            {**faster, "meta": {"CLASSES": ("cat", "dog")}},
            "its heads have 5 classes, and it names 2: cat, dog",
        ),
    ]  # fmt: skip
    for source, message in cases:
        with pytest.raises(CheckpointError, match=message):
            read_detector(source)
    assert read_detector(faster).kind == "Faster R-CNN"
    assert read_detector({f"module.{k}": v for k, v in mask["state_dict"].items()}).classes == 5


def test_what_torchvision_has_no_place_for(body: nn.Module) -> None:
    three = {
        "roi_head.bbox_head.shared_fcs.2.weight": torch.ones(HIDDEN, HIDDEN),
        "roi_head.bbox_head.shared_fcs.2.bias": torch.ones(HIDDEN),
    }
    more = {
        "neck.fpn_convs.4.conv.weight": torch.ones(WIDTH, WIDTH, 3, 3),
        "neck.fpn_convs.4.conv.bias": torch.ones(WIDTH),
    }
    inside = {"neck.fpn_convs.3.conv.weight": torch.ones(WIDTH, WIDTH, 3, 3)}
    gone = {"neck.fpn_convs.4.conv.weight": None, "neck.fpn_convs.4.conv.bias": None}
    for source, message in (
        (bad(body, "Faster R-CNN", **three), "its box head has 3 layers in front of the last"),
        (bad(body, "Faster R-CNN", **more), "1 levels of its pyramid are made by further"),
        (bad(body, "RetinaNet", **gone), "its pyramid has 1 further levels, not P6 and P7"),
        (bad(body, "RetinaNet", **inside), "P6 reads the pyramid"),
    ):
        with pytest.raises(CheckpointError, match=message):
            to_torchvision(read_detector(source), {})
    told = bad(body, "RetinaNet", **inside)
    told["meta"]["config"] = "neck=dict(type='FPN', add_extra_convs='on_output', num_outs=5)"
    made = to_torchvision(read_detector(told), {})
    assert made["backbone.fpn.extra_blocks.p6.weight"].shape == (WIDTH, WIDTH, 3, 3)


def test_bad_files_write_nothing(
    body: nn.Module, files: Mapping[str, Path], tmp_path: Path
) -> None:
    source, target = tmp_path / "bad.pth", tmp_path / "new.pth"
    plain = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=4).state_dict()
    state = {f"backbone.{key}": value for key, value in plain.items()}
    torch.save({"state_dict": state | heads("RetinaNet", 3)}, source)
    with pytest.raises(CheckpointError, match=r"no RLA-ResNet of the official code: it has conv1"):
        from_detector(source, target, "mmdet3")
    torch.save(bad(body, "RetinaNet", **{"backbone.stages.1.0.conv2.weight": None}), source)
    with pytest.raises(CheckpointError, match=r"missing: stages\.1\.0\.conv2\.weight"):
        from_detector(source, target, "torchvision")
    with pytest.raises(ConfigError, match=r"name the file `new\.pth`"):
        from_detector(files["RetinaNet"], target.with_suffix(".safetensors"), "mmdet3")
    with pytest.raises(ConfigError, match="over itself"):
        convert_file(source, source, to="mmdet3")
    with pytest.raises(CheckpointError, match="the checkpoint of a whole detector, not of"):
        from_official(files["RetinaNet"], target, "rla_resnet50")
    torch.save(rlawrap.official_state_dict(body), source)
    with pytest.raises(CheckpointError, match="a detector's backbone, not of a classifier"):
        from_official(source, target, "rla_resnet50")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]
