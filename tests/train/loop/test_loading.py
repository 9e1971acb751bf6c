from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from rlawrap import official_state_dict
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model
from rlawrap.train import evaluate, load_model, train
from tests.train.toys import CLASSES, ToyImages, toy_config, toy_models


def test_a_run_gives_its_best_network_back(tmp_path: Path) -> None:
    test_images = ToyImages(10)
    with toy_models():
        result = train(toy_config(tmp_path), data=(ToyImages(), test_images))
        before = torch.get_rng_state()
        model = load_model(tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
        plain = load_model(tmp_path / "best.pt", average=False)
        judged = evaluate(tmp_path, images=test_images, workers=0, device="cpu")
    saved = torch.load(tmp_path / "best.pt", weights_only=True)
    for network, key in ((model, "ema"), (plain, "model")):
        assert not network.training
        weights = network.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in saved[key].items())
    assert result.best is not None
    assert judged.top1 == result.best["ema_top1"]
    assert judged.loss == pytest.approx(result.best["ema_loss"], rel=1e-6)


def test_weights_are_judged_when_their_network_is_named(tmp_path: Path) -> None:
    images = ToyImages(10)
    model = get_model("rla_resnet50", num_classes=4, k=4, init="identity")
    options: dict[str, Any] = {"images": images, "workers": 0, "device": "cpu"}
    named = {"arch": "rla_resnet50", "model_kwargs": {"k": 4}, **options}
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    state = {f"module.{name}": value for name, value in official_state_dict(model).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "theirs.pth.tar")
    ours, theirs = (evaluate(tmp_path / f, **named) for f in ("ours.pt", "theirs.pth.tar"))
    assert ours.images == 10
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    samples = [images.load(index, seed=0, epoch=0) for index in range(10)]
    with torch.no_grad():
        logits = model.eval()(torch.stack([image for image, _ in samples]))
    loss = cross_entropy(logits, torch.tensor([label for _, label in samples]))
    assert ours.loss == pytest.approx(float(loss), rel=1e-4)
    with pytest.raises(CheckpointError, match="--arch NAME"):
        evaluate(tmp_path / "ours.pt", **options)
    del state["module.fc.weight"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        evaluate(tmp_path / "torn.pth", **named)
    base = {k: v for k, v in model.state_dict().items() if not k.startswith("rla.")}
    torch.save(base, tmp_path / "base.pt")
    with pytest.raises(CheckpointError, match="weights less than rla_resnet50"):
        evaluate(tmp_path / "base.pt", **named)
    with pytest.raises(ConfigError, match="name the data"):
        evaluate(tmp_path / "ours.pt", arch="rla_resnet50")


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path), data=(ToyImages(), ToyImages(10)))
        images = ToyImages(10)
        images.classes = (*CLASSES, "e")
        with pytest.raises(CheckpointError, match=r"4 classes.*has 5"):
            evaluate(tmp_path, images=images, workers=0)
    with pytest.raises(CheckpointError, match=r"best\.pt"):
        load_model(tmp_path / "checkpoints")
