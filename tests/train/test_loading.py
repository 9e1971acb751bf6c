from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlawrap.errors import CheckpointError
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


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path), data=(ToyImages(), ToyImages(10)))
        images = ToyImages(10)
        images.classes = (*CLASSES, "e")
        with pytest.raises(CheckpointError, match=r"4 classes.*has 5"):
            evaluate(tmp_path, images=images, workers=0)
    with pytest.raises(CheckpointError, match=r"best\.pt"):
        load_model(tmp_path / "checkpoints")
