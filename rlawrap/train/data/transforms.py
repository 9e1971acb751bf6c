"""What happens to an image between the file and the network.

torchvision is imported where transforms are made: it takes a second, which commands that open no
images need not wait.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlawrap.train.config.augment import THUMBNAIL, AugmentConfig
from rlawrap.train.data.seeding import local_randomness

Transform = Callable[[Tensor], Tensor]


#: Times the shorter side: what is farther from the middle of the longer one is never seen.
LONGEST = 16


class Middle(nn.Module):
    """Cut a very long image [C, H, W] to its middle, before a resize that the centre crop follows.

    A line of 4000x1 pixels would fill gigabytes with its shorter side resized to 256.
    """

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        most = LONGEST * min(height, width)
        if max(height, width) <= most:
            return image
        # As many off either end, or the middle would move by half a pixel.
        rows, columns = (max(0, (side - most) // 2) for side in (height, width))
        return image[..., rows : height - rows, columns : width - columns]


class Fit(nn.Module):
    """Bring an image [C, H, W] to a square of `size` without augmentation, for thumbnails.

    A little smaller (Fashion-MNIST's 28 in 32): centred on black, every pixel kept. Otherwise the
    shorter side is resized to `size` and the middle is cut out.
    """

    def __init__(self, size: int) -> None:
        from torchvision.transforms import v2

        super().__init__()
        self.size = size
        self.resize = nn.Sequential(Middle(), v2.Resize(size, antialias=True))
        self.crop = v2.CenterCrop(size)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height == width == self.size:
            return image
        if not 3 * self.size / 4 <= min(height, width) <= max(height, width) <= self.size:
            image = self.resize(image)
        cropped: Tensor = self.crop(image)  # pads with zeros what is smaller
        return cropped


def _finish(mean: tuple[float, ...], std: tuple[float, ...]) -> list[nn.Module]:
    from torchvision.transforms import v2

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


def train_transform(
    config: AugmentConfig, image_size: int, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Transform:
    """The training transform: uint8 [C, H, W] of any size to float32 [C, size, size].

    It draws from torch's global generator; call it inside `local_randomness`.
    """
    from torchvision.transforms import v2

    steps: list[nn.Module] = []
    if config.crop == "resized":
        steps.append(
            v2.RandomResizedCrop(image_size, scale=config.scale, ratio=config.ratio, antialias=True)
        )
    elif config.crop == "padded":
        steps += [Fit(image_size), v2.RandomCrop(image_size, padding=config.padding)]
    else:
        steps += _evaluation_geometry(config, image_size)
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.trivialaugment:
        steps.append(v2.TrivialAugmentWide())
    if config.randaugment:
        steps.append(v2.RandAugment(config.randaugment, config.magnitude))
    steps += _finish(mean, std)
    if config.erase:
        steps.append(v2.RandomErasing(config.erase))
    return v2.Compose(steps)


def eval_transform(
    config: AugmentConfig, image_size: int, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Transform:
    """The evaluation transform: resize the shorter side, cut out the middle, normalise."""
    from torchvision.transforms import v2

    return v2.Compose([*_evaluation_geometry(config, image_size), *_finish(mean, std)])


def _evaluation_geometry(config: AugmentConfig, image_size: int) -> list[nn.Module]:
    if image_size <= THUMBNAIL and config.resize is None:
        return [Fit(image_size)]
    from torchvision.transforms import v2

    shorter = config.resize or round(image_size * 256 / 224)
    return [Middle(), v2.Resize(shorter, antialias=True), v2.CenterCrop(image_size)]


def mix_batch(
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    epoch: int,
    step: int,
    rank: int = 0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mix each image with its neighbour in the batch by mixup or CutMix.

    images: float [N, C, H, W]; labels: int64 [N]. Returns mixed images and soft labels [N,
    classes], on the same device; with both alphas 0 the arguments come back as they are. With both
    set, one is chosen per batch. The draw depends on (seed, epoch, step, rank) alone, and the
    global random state is left alone.

    >>> images, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])
    >>> _, soft = mix_batch(images, labels, num_classes=3, seed=0, epoch=0, step=0, mixup=0.2)
    >>> soft.shape, [round(float(x), 3) for x in soft.sum(1)]
    (torch.Size([4, 3]), [1.0, 1.0, 1.0, 1.0])
    """
    if not (mixup > 0 or cutmix > 0):
        return images, labels
    if not len(images):
        return images, images.new_zeros(0, num_classes)
    from torchvision.transforms import v2

    mixers: list[nn.Module] = []
    if mixup > 0:
        mixers.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix > 0:
        mixers.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    with local_randomness("mix", seed, epoch, step, rank):
        chosen = mixers[int(torch.randint(len(mixers), ()))]
        mixed, soft = chosen(images, labels)
    return mixed, soft
