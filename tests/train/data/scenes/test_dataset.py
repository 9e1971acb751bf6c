from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlawrap.errors import ConfigError, DataError, UnreadableError
from rlawrap.train.data.scenes.augment import SceneAugment
from rlawrap.train.data.scenes.coco import read_coco
from rlawrap.train.data.scenes.dataset import SceneDataset
from rlawrap.train.data.scenes.mask_files import read_masks
from rlawrap.train.data.scenes.records import Rle, SceneIndex
from tests.train.data.scenes.making import coco, write_coco, write_image


@pytest.fixture
def index(tmp_path: Path) -> SceneIndex:
    """a.png with a tree, a car and a crowd; b.png with nothing."""
    return read_coco(tmp_path, write_coco(tmp_path, coco()))


def test_targets_are_as_torchvision_takes_them(index: SceneIndex) -> None:
    data = SceneDataset(index, split="test")
    image, target = data[0]
    assert image.dtype == torch.float32 and torch.equal(image, torch.full((3, 10, 20), 50 / 255))
    expected = {
        "boxes": torch.tensor([[2.0, 2, 6, 6], [10, 1, 15, 9], [0, 0, 20, 10]]),
        "labels": torch.tensor([3, 1, 2]),
        "area": torch.tensor([16.0, 40, 200]),
        "iscrowd": torch.tensor([0, 0, 1]),
        "image_id": torch.tensor(4),
    }
    assert target.keys() == expected.keys()
    for name, value in expected.items():
        assert type(target[name]) is torch.Tensor
        assert target[name].dtype == value.dtype and torch.equal(target[name], value)
    _, empty = data[1]
    assert empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,)
    assert int(empty["image_id"]) == 9


def test_training_leaves_crowds_and_empty_scenes_out(index: SceneIndex) -> None:
    data = SceneDataset(index)
    assert len(data) == 1 and data[0][1]["labels"].tolist() == [3, 1]
    assert data.for_judging()[0][1]["labels"].tolist() == [3, 1, 2]
    assert len(SceneDataset(index, keep_empty=True)) == 2
    crowds = replace(index, things=(index.things[0][2:], ()))
    with pytest.raises(DataError, match=r"no scene has anything to learn .*\(2 scenes; no things"):
        SceneDataset(crowds)


def test_a_load_is_a_function_of_seed_epoch_and_number(index: SceneIndex) -> None:
    augment = SceneAugment(jitter=(0.5, 2.0), crop=(8, 8), photometric=True)
    data = SceneDataset(index, augment=augment, keep_empty=True)
    state = torch.random.get_rng_state()
    images = {e: data.load(0, seed=3, epoch=e)[0] for e in range(6)}
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again, target = data.load(0, seed=3, epoch=2)
    assert torch.equal(again, images[2]) and again.shape == (3, 8, 8)
    assert len(target["boxes"]) == len(target["labels"]) == len(target["area"])
    assert any(not torch.equal(image, images[0]) for image in images.values())


def test_masks_of_instances(index: SceneIndex) -> None:
    with pytest.raises(DataError, match=r"a thing in a.png \(id 4\) has a box but no mask"):
        SceneDataset(index, wanted="instance")
    tree, car, crowd = index.things[0]
    column = Rle(height=10, width=20, counts=(0, 10, 190))
    things = (tree, replace(car, shape=column), replace(crowd, shape=column))
    data = SceneDataset(replace(index, things=(things, ())), wanted="instance", split="test")
    masks = data[0][1]["masks"]
    assert masks.dtype == torch.uint8 and masks.shape == (3, 10, 20)
    assert masks[0].nonzero().aminmax(dim=0).max.tolist() == [5, 5] and masks[0].sum() == 16
    assert masks[1, :, 0].all() and masks[1].sum() == 10
    assert data[1][1]["masks"].shape == (0, 10, 20)


def test_masks_of_another_size(index: SceneIndex, tmp_path: Path) -> None:
    wrong = replace(index.things[0][0], shape=Rle(height=9, width=20, counts=(0, 180)))
    data = SceneDataset(replace(index, things=((wrong,), ())), wanted="instance")
    with pytest.raises(DataError, match=r"a.png \(id 4\): a mask of 20 x 9 pixels in a sc"):
        data[0]
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((5, 20), np.uint8)).save(masks / name)
    pixels = SceneDataset(read_masks_beside(tmp_path, masks), wanted="segmentation")
    with pytest.raises(DataError, match=r"a.png: a mask of 20 x 5 pixels for an image of 20 x 10"):
        pixels[0]


def read_masks_beside(tmp_path: Path, masks: Path) -> SceneIndex:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "images" / name)
    return read_masks(tmp_path / "images", masks)


def test_classes_of_pixels_move_with_the_image(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    numbers = np.tile(np.arange(20, dtype=np.uint8), (10, 1))
    numbers[0] = 255
    for name in ("a.png", "b.png"):
        Image.fromarray(numbers).save(masks / name)
    index = read_masks_beside(tmp_path, masks)
    Image.fromarray(np.repeat(numbers[..., None], 3, 2)).save(index.path(0))
    data = SceneDataset(index, wanted="segmentation", augment=SceneAugment(crop=(30, 6)))
    widths = set()
    for epoch in range(8):
        image, classes = data.load(0, seed=0, epoch=epoch)
        assert classes.dtype == torch.int64 and classes.shape == (30, 6)
        assert (classes[0] == 255).all() and (classes[10:] == 255).all()
        assert torch.equal((image[0, 1:10] * 255).round().long(), classes[1:10])
        widths.add(int(classes[1, 1] - classes[1, 0]))
    assert widths == {1, -1}  # turned and not
    with pytest.raises(DataError, match="has a mask of classes but no boxes"):
        SceneDataset(index)


def test_damaged_images_stop_or_are_skipped(index: SceneIndex) -> None:
    path = index.path(0)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"a.png: a broken image"):
        SceneDataset(index)[0]
    image, target = SceneDataset(index, on_bad_image="skip")[0]
    assert target is None and image.shape == (3, 1, 1)
    path.unlink()
    with pytest.raises(UnreadableError, match=r"a.png: cannot be read"):
        SceneDataset(index, on_bad_image="skip")[0]


def test_an_image_of_another_size_than_its_annotations_say(index: SceneIndex) -> None:
    write_image(index.path(0), size=(20, 12))
    with pytest.raises(DataError, match=r"an image of 20 x 12 pixels whose .* for 20 x 10"):
        SceneDataset(index)[0]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_images_of_every_mode_become_rgb(index: SceneIndex, mode: str) -> None:
    grey = np.full((10, 20), 200, np.uint8)
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(index.path(0))
    else:
        Image.fromarray(grey).convert(mode).save(index.path(0))
    image, _ = SceneDataset(index, augment=SceneAugment(flip=0))[0]
    assert torch.equal(image, torch.full((3, 10, 20), 200 / 255))


def test_photographs_are_as_they_were_annotated(index: SceneIndex) -> None:
    """Upright, unless only the pixels as they are stored have the annotated size."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right brings it upright
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(index.path(0), exif=exif)
    stored, _ = SceneDataset(index, augment=SceneAugment(flip=0))[0]
    assert stored.shape == (3, 10, 20) and stored[:, :, :4].min() == 1
    upright = replace(index.scenes[0], width=10, height=20)
    index = replace(index, scenes=(upright, index.scenes[1]))
    turned, _ = SceneDataset(index, augment=SceneAugment(flip=0))[0]
    assert turned.shape == (3, 20, 10) and turned[:, :4].min() == 1 and turned[:, 4:].max() == 0


def test_options_that_make_no_sense(index: SceneIndex) -> None:
    with pytest.raises(ConfigError, match="wanted='boxes'"):
        SceneDataset(index, wanted="boxes")
    with pytest.raises(ConfigError, match="split='val'"):
        SceneDataset(index, split="val")
    for wrong in ({"crop": (0, 4)}, {"max_size": 9}, {"jitter": (2, 1)}, {"flip": 2}):
        with pytest.raises(ConfigError):
            SceneAugment(**wrong)
    with pytest.raises(IndexError):
        SceneDataset(index).load(5, seed=0, epoch=0)


def test_groups_by_the_shape_of_scenes(index: SceneIndex) -> None:
    high = replace(index.scenes[1], width=5)
    data = SceneDataset(replace(index, scenes=(index.scenes[0], high)), split="test")
    assert data.groups() == [0, 1]
