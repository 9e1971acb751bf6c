from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from rlawrap.train import evaluate, load_model, train
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.data import open_data
from rlawrap.train.data.dataset import ImageDataset
from rlawrap.train.data.scenes.dataset import Wanted
from rlawrap.train.data.shapes import Shapes
from tests.train.data.trees import write_image
from tests.train.toys import toy_config, toy_models


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RLAWRAP_CACHE", str(tmp_path / "cache"))
    with toy_models():
        yield


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of ten images each, with another grey each, in class folders without splits."""
    for name, start in (("cat", 0), ("dog", 120)):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(10):
            write_image(tmp_path / "tree" / name / f"{number}.png", start + 9 * number)
    return tmp_path / "tree"


def loss_on(run: Path, images: ImageDataset) -> float:
    model = load_model(run)
    pairs = [images.load(n, seed=0, epoch=0) for n in range(len(images))]
    with torch.no_grad():
        logits = model(torch.stack([image for image, _ in pairs]))
    return float(cross_entropy(logits, torch.tensor([label for _, label in pairs])))


def test_other_data_is_made_ready_as_the_run_s_own(tmp_path: Path, tree: Path) -> None:
    augment = AugmentConfig(crop="none", mean=(0.2,), std=(0.5,), resize=12)
    given = {"image_size": 8, "augment": augment}
    own = tuple(open_data(tree, split=split, **given) for split in ("train", "test"))  # type: ignore[arg-type]
    train(toy_config(tmp_path / "run", epochs=1), data=own)
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    write_image(other / "cat" / "new.png", 77)
    judged = evaluate(tmp_path / "run", data=str(other), workers=0, device="cpu")
    alike = open_data(other, split="test", whole=True, **given)  # type: ignore[arg-type]
    assert judged.images == len(alike) == 21
    assert judged.loss == pytest.approx(loss_on(tmp_path / "run", alike), rel=1e-5)
    larger = evaluate(tmp_path / "run", data=str(other), image_size=16, workers=0, device="cpu")
    given = {"image_size": 16, "augment": augment.replace(resize=24)}
    alike = open_data(other, split="test", whole=True, **given)  # type: ignore[arg-type]
    assert larger.loss == pytest.approx(loss_on(tmp_path / "run", alike), rel=1e-5)


def test_training_images_are_judged_without_their_augmentation(tmp_path: Path, tree: Path) -> None:
    given = {"image_size": 8, "augment": AugmentConfig(erase=1.0)}
    config = toy_config(tmp_path / "run", epochs=1, data=str(tree), **given)
    train(config)
    judged = evaluate(tmp_path / "run", split="train", workers=0, device="cpu")
    trained_on = open_data(tree, split="train", **given)  # type: ignore[arg-type]
    plain = open_data(tree, split="test", whole=True, **given)  # type: ignore[arg-type]
    assert trained_on.indices is not None
    plain.indices, plain.labels = trained_on.indices, trained_on.labels
    assert judged.images == 18
    assert judged.loss == pytest.approx(loss_on(tmp_path / "run", plain), rel=1e-5)


@pytest.mark.parametrize("wanted", ["detection", "segmentation"])
def test_training_scenes_are_judged_as_they_are(wanted: Wanted) -> None:
    drawn, judged = Shapes("train", wanted, 32, 8), Shapes("train", wanted, 32, 8).for_judging()
    images = [[each.load(n, seed=0, epoch=0)[0] for n in range(8)] for each in (drawn, judged)]
    again = [judged.load(n, seed=1, epoch=3)[0] for n in range(8)]
    pairs = list(zip(*images, strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a, b) or torch.equal(a.flip(-1), b) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(images[1], again, strict=True))


def test_images_trained_on_are_left_out_wherever_they_are_looked_for(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(toy_config(tmp_path / "run", epochs=1, image_size=8, data="tree"))
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("link").symlink_to(tree)
    shutil.copytree(tree, "tree")  # another folder of the name that the run gave
    write_image(Path("tree/cat/new.png"), 200)
    for data, count in (("../tree", 2), ("~/tree", 2), ("link", 2), ("tree", 21)):
        judged = evaluate(tmp_path / "run", data=data, workers=0, device="cpu")
        assert judged.images == count
    write_image(tree / "cat" / "new.png", 200)  # the same place, although its images are others
    assert evaluate(tmp_path / "run", data="../tree", workers=0, device="cpu").images == 2
    (tmp_path / "tree").rename(tmp_path / "moved")
    assert evaluate(tmp_path / "run", workers=0, device="cpu").images == 2  # ./tree is its own now
    assert evaluate(tmp_path / "run", data="tree", workers=0, device="cpu").images == 2
    assert evaluate(tmp_path / "run", data="../moved", workers=0, device="cpu").images == 21
