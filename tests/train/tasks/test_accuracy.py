from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rlawrap.train import evaluate_model
from rlawrap.train.data.loader import PartDataset, make_loader
from rlawrap.train.data.sampler import EvalSampler
from tests.train.toys import ToyImages, final_state, run_group, toy_config, toy_net

CPU = torch.device("cpu")


def test_the_figures_are_those_of_a_plain_loop() -> None:
    torch.manual_seed(2)
    model = toy_net(num_classes=9)
    images = ToyImages(26)
    loader = make_loader(
        PartDataset(images, num_classes=9),
        EvalSampler(26, batch_size=4),
        workers=0,
        prefetch=1,
        device=CPU,
    )
    model.train()
    model[1].eval()
    result = evaluate_model(model, loader, num_classes=9)
    assert model.training and not model[1].training and model[4].training

    model.eval()
    samples = [images.load(index, seed=0, epoch=0) for index in range(26)]
    labels = torch.tensor([label for _, label in samples])
    with torch.no_grad():
        logits = model(torch.stack([image for image, _ in samples]))
    assert result.images == 26
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    right = logits.argmax(1) == labels
    assert result.top1 == pytest.approx(100 * float(right.float().mean()), rel=1e-6)
    among = (logits.topk(5).indices == labels[:, None]).any(1)
    assert result.top5 == pytest.approx(100 * float(among.float().mean()), rel=1e-6)
    expected = torch.zeros(9, 9, dtype=torch.int64)
    for label, guess in zip(labels, logits.argmax(1), strict=True):
        expected[label, guess] += 1
    assert torch.equal(result.confusion, expected)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_count_every_image_once(tmp_path: Path, world: int) -> None:
    output = tmp_path / "run"
    run_group(world, toy_config(output, epochs=1, batch_size=6), images={"length": 12})
    rows = (output / "confusion" / "epoch0001.csv").read_text().splitlines()
    assert rows[0] == "true \\ predicted,a,b,c,d"
    counts = [sum(map(int, row.split(",")[1:])) for row in rows[1:]]
    assert counts == [3, 3, 2, 2]  # 10 test images of 4 classes
    last = final_state(output)["standing"]["last"]
    right = sum(int(row.split(",")[1 + n]) for n, row in enumerate(rows[1:]))
    assert last["ema_top1"] == pytest.approx(10.0 * right)
    assert last["top5"] == 100.0  # four classes, as many guesses
