from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig, train
from rlawrap.train.data import AugmentConfig
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.data.loader import Batch, PartDataset
from rlawrap.train.data.sampler import epoch_order, step_parts
from rlawrap.train.loop.step import Stepper
from rlawrap.train.network.optim import make_optimizer
from rlawrap.train.tasks.classification import Classification
from tests.train.toys import (
    CLASSES,
    ToyImages,
    final_state,
    run_group,
    toy_config,
    toy_models,
    toy_net,
)

CPU = torch.device("cpu")


def make_stepper(model: nn.Module, **changes: Any) -> Stepper:
    config = TrainConfig(**{"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, **changes})
    task = Classification(config)
    task.classes = CLASSES
    optimizer = make_optimizer(model, config)
    return Stepper(model, model, optimizer, config, task, device=CPU, world=1)


def as_batch(images: Tensor, targets: Tensor) -> Batch:
    rows = len(images)
    return Batch(images, targets, torch.ones(rows), rows, rows, True, [])


def group_norm_net() -> nn.Module:
    torch.manual_seed(1)
    return toy_net(norm="group", dropout=0.0)


def batches(count: int, *, size: int = 7, **options: Any) -> list[Batch]:
    dataset = PartDataset(ToyImages(20), num_classes=4, **options)
    order = epoch_order(20, 0, 0)
    parts = step_parts(order, epoch=0, step=0, batch_size=size, accumulate=count)
    return [dataset[part] for part in parts]


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_accumulation_equals_the_large_batch(count: int, mixup: float) -> None:
    models = [group_norm_net(), group_norm_net()]
    for model, parts in zip(models, (1, count), strict=True):
        stepper = make_stepper(model)
        for batch in batches(parts, mixup=mixup):
            stepper.part(batch, step=0, lr=0.1)
        assert stepper.count == 7
    for one, many in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(many, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_processes_equal_the_large_batch(tmp_path: Path, mixup: float) -> None:
    changes: dict[str, Any] = {
        "model_kwargs": {"norm": "group", "dropout": 0.0},
        "augment": AugmentConfig(mixup=mixup),
        "epochs": 1,
        "batch_size": 7,  # 20 images: batches of 7, 7 and 6, which 4 processes cannot cut evenly
    }
    states = []
    for world, accumulate in ((1, 1), (4, 2)):
        output = tmp_path / str(world)
        config = toy_config(output, accumulate=accumulate, **changes)
        run_group(world, config, images={"length": 20})
        states.append(final_state(output))
    assert states[0]["standing"]["last"]["train_loss"] == pytest.approx(
        states[1]["standing"]["last"]["train_loss"], rel=1e-4
    )
    for name, value in states[0]["model"].items():
        torch.testing.assert_close(states[1]["model"][name], value, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_over_what_counts() -> None:
    model = group_norm_net()
    stepper = make_stepper(model, label_smoothing=0.1)
    dataset = PartDataset(ToyImages(20, bad={3: SKIPPED}), num_classes=4)
    part = step_parts(torch.arange(20), epoch=0, step=0, batch_size=6)[0]
    batch = dataset[part]
    assert (batch.counted, batch.skipped) == (5, [3])
    keep = [0, 1, 2, 4, 5]
    with torch.no_grad():
        logits = model(batch.images[keep])
    expected = F.cross_entropy(logits, torch.tensor(keep) % 4, reduction="sum", label_smoothing=0.1)
    stepper.part(batch, step=0, lr=0.1)
    loss, correct, images = stepper.take_sums()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert correct == float((logits.argmax(1) == torch.tensor(keep) % 4).sum())
    assert images == 5
    assert stepper.take_sums() == [0, 0, 0]


def test_clipping_bounds_the_step() -> None:
    model = group_norm_net()
    before = [p.detach().clone() for p in model.parameters()]
    stepper = make_stepper(model, clip=0.01)
    stepper.part(batches(1)[0], step=0, lr=0.1)
    moves = [(p - q).norm() for p, q in zip(model.parameters(), before, strict=True)]
    assert torch.stack(moves).norm().item() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_moves_as_full_precision(amp: str) -> None:
    models = [group_norm_net(), group_norm_net()]
    start = [p.detach().clone() for p in models[0].parameters()]
    for model, kind in zip(models, ("none", amp), strict=True):
        stepper = make_stepper(model, amp=kind)
        stepper.part(batches(1)[0], step=0, lr=0.1)
        assert stepper.scaler.is_enabled() == (kind == "fp16")
    moves = [
        torch.cat([(p - q).flatten() for p, q in zip(m.parameters(), start, strict=True)])
        for m in models
    ]
    assert F.cosine_similarity(*moves, dim=0) > 0.99


def test_auxiliary_heads_add_to_the_loss() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = group_norm_net()

        def forward(self, x: Tensor) -> Any:
            logits = self.net(x)
            return (logits, 2 * logits) if self.training else logits

    model = TwoHeads()
    stepper = make_stepper(model)
    images, targets = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    losses = stepper.losses(as_batch(images, targets))
    logits, _ = stepper.forward(images)
    expected = F.cross_entropy(logits, targets) + 0.3 * F.cross_entropy(2 * logits, targets)
    torch.testing.assert_close(losses.total / 3, expected)


def test_outputs_that_do_not_fit_the_classes_are_named() -> None:
    stepper = make_stepper(toy_net(num_classes=5))
    with pytest.raises(ConfigError, match=r"\(2, 5\).*4 classes"):
        stepper.losses(as_batch(torch.randn(2, 3, 8, 8), torch.tensor([0, 1])))


# torch.compile asks any tensor for its gradient, and in 2.9 an error filter sees the warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("changes", [{"channels_last": True}, {"compile": True}])
def test_channels_last_and_compiled_runs_end_near_the_plain_one(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    compile_module = nn.Module.compile

    def compile_quickly(module: nn.Module, *, mode: str) -> None:
        assert mode == "default"
        compiled.append(module)
        compile_module(module, backend="eager")  # the default one calls a C++ compiler

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    data = (ToyImages(20), ToyImages(10))
    with toy_models():
        plain = train(toy_config(tmp_path / "plain", epochs=1), data=data)
        assert not compiled
        other = train(toy_config(tmp_path / "other", epochs=1, **changes), data=data)
        assert len(compiled) == changes.get("compile", 0)
    assert plain.last is not None and other.last is not None
    assert other.last["train_loss"] == pytest.approx(plain.last["train_loss"], rel=0.05)
    names = list(final_state(tmp_path / "other")["model"])
    assert names == list(final_state(tmp_path / "plain")["model"])
