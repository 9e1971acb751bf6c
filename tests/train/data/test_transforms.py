from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.data.transforms import Fit, eval_transform, mix_batch, train_transform

HALF = {"mean": (0.5,), "std": (0.5,)}


def picture(height: int, width: int, channels: int = 1) -> torch.Tensor:
    count = channels * height * width
    return (torch.arange(count) % 255 + 1).to(torch.uint8).view(channels, height, width)


def test_fit_pads_a_slightly_smaller_image_and_keeps_every_pixel() -> None:
    image = picture(28, 28)
    fitted = Fit(32)(image)
    assert torch.equal(fitted[:, 2:30, 2:30], image)
    assert int(fitted.sum()) == int(image.sum())


@pytest.mark.parametrize("size", [(32, 32), (10, 20), (64, 40), (200, 300), (28, 40)])
def test_fit_always_gives_the_size(size: tuple[int, int]) -> None:
    assert Fit(32)(picture(*size)).shape == (1, 32, 32)


def test_fit_of_a_larger_image_fills_the_square() -> None:
    assert bool((Fit(32)(picture(40, 60)) > 0).all())


def test_padded_crop_shifts_the_picture_and_flips_it() -> None:
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    image[0, 16, 10] = 255
    transform = train_transform(AugmentConfig(crop="padded"), 32, mean=(0.0,), std=(1.0,))
    places = {tuple(transform(image).nonzero()[0].tolist()) for _ in range(400)}
    rows = {row for _, row, _ in places}
    columns = {column for _, _, column in places}
    assert rows == set(range(12, 21))
    assert columns == set(range(6, 15)) | set(range(17, 26))


def test_evaluation_at_224_is_resize_256_and_centre_crop() -> None:
    image = torch.zeros(3, 256, 300, dtype=torch.uint8)
    image[:, 16 : 16 + 224, 38 : 38 + 224] = 255
    transform = eval_transform(AugmentConfig(), 224, mean=(0.5,) * 3, std=(0.5,) * 3)
    out = transform(image)
    assert out.shape == (3, 224, 224)
    assert torch.equal(out, torch.ones(3, 224, 224))


@pytest.mark.parametrize("size", [(4, 401), (400, 4), (3, 48), (64, 90)])
def test_a_very_long_image_is_cut_to_its_middle_before_it_is_resized(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(*size)
    resized: list[int] = []
    resize = v2.Resize.transform

    def counted(self: v2.Resize, inpt: torch.Tensor, params: dict[str, Any]) -> Any:
        resized.append(inpt.numel())
        return resize(self, inpt, params)

    monkeypatch.setattr(v2.Resize, "transform", counted)
    for config, side in ((AugmentConfig(), 96), (AugmentConfig(), 32)):
        shorter = 32 if side == 32 else round(96 * 256 / 224)
        whole = v2.Compose([v2.Resize(shorter, antialias=True), v2.CenterCrop(side)])(image)
        resized.clear()
        out = eval_transform(config, side, mean=(0.0,), std=(1.0,))(image)
        assert max(resized) <= 16 * min(size) ** 2 + min(size)
        assert torch.allclose(out * 255, whole.float(), atol=1.01)


def test_normalisation_is_by_mean_and_std_of_pixels_in_0_to_1() -> None:
    image = torch.full((1, 32, 32), 255, dtype=torch.uint8)
    out = eval_transform(AugmentConfig(crop="padded"), 32, mean=(0.25,), std=(0.5,))(image)
    assert torch.allclose(out, torch.tensor(1.5))


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_and_erasing_change_the_image(channels: int) -> None:
    image = picture(32, 32, channels)
    plain = AugmentConfig(crop="none", flip=0.0)
    base = train_transform(plain, 32, mean=(0.5,), std=(0.5,))(image)
    for change in ({"randaugment": 2, "magnitude": 15}, {"erase": 1.0}, {"trivialaugment": True}):
        config = plain.replace(**change)
        transform = train_transform(config, 32, mean=(0.5,), std=(0.5,))
        outs = [transform(image) for _ in range(8)]
        assert all(out.shape == base.shape for out in outs)
        assert any(not torch.equal(out, base) for out in outs)


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(size, 1, 16, 16), torch.arange(size) % 4


def mix(images: torch.Tensor, labels: torch.Tensor, **changes: float) -> tuple[torch.Tensor, ...]:
    place = {"seed": 1, "epoch": 2, "step": 3, **changes}
    return mix_batch(images, labels, num_classes=4, **place)  # type: ignore[arg-type]


def test_mixup_is_the_same_convex_sum_of_images_and_labels() -> None:
    images, labels = batch()
    mixed, soft = mix(images, labels, mixup=0.8)
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    weight = float(soft[0, 0])
    assert 0 < weight < 1
    assert torch.allclose(mixed, weight * images + (1 - weight) * images.roll(1, 0))
    assert torch.allclose(soft, weight * one_hot + (1 - weight) * one_hot.roll(1, 0))


def test_cutmix_labels_say_the_share_of_pixels_kept() -> None:
    images, labels = batch()
    mixed, soft = mix(images, labels, cutmix=1.0)
    kept = float((mixed == images).float().mean())
    assert 0 < kept < 1
    assert float(soft[1, 1]) == pytest.approx(kept)


def test_mixing_depends_on_its_place_alone() -> None:
    images, labels = batch()
    before = torch.get_rng_state()
    first = mix(images, labels, mixup=0.2, cutmix=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again = mix(images, labels, mixup=0.2, cutmix=1.0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    others = [
        mix(images, labels, mixup=0.2, cutmix=1.0, **{name: 9})[1]
        for name in ("seed", "epoch", "step", "rank")
    ]
    assert all(not torch.equal(first[1], other) for other in others)


def test_both_mixers_take_turns() -> None:
    images, labels = batch()
    kinds = set()
    for step in range(20):
        mixed, _ = mix(images, labels, mixup=1.0, cutmix=1.0, step=step)
        kinds.add(bool((mixed == images).any()))
    assert kinds == {True, False}


def test_without_mixing_nothing_is_touched_and_an_empty_batch_is_fine() -> None:
    images, labels = batch()
    out = mix(images, labels)
    assert out[0] is images and out[1] is labels
    empty = mix(images[:0], labels[:0], mixup=0.2)
    assert empty[0].shape == (0, 1, 16, 16) and empty[1].shape == (0, 4)
