"""Train a segmenter with a hidden state on drawn shapes: some minutes on two cores.

    python examples/train_segmentation.py runs/shapes

The scenes are drawn from their numbers (`rlawrap.train.data.shapes`), so that nothing has to be
downloaded and every run sees the same ones. The folder that is written is one of any run:
`rlawrap runs`, `rlawrap plot` and `rlawrap evaluate` read it.
"""

from __future__ import annotations

import sys

from rlawrap.train import TrainConfig, TrainResult, evaluate, train


def main(output: str, **changes: object) -> TrainResult:
    """Train on 200 scenes of 64 x 64 pixels, and print what the best network is right about."""
    config = TrainConfig(
        task="segmentation",
        data="shapes",
        image_size=64,
        arch="rla_cifar_resnet20",
        head="fcn",
        epochs=12,
        batch_size=8,
        lr=0.1,
        output=output,
    )
    result = train(config.replace(**changes))
    judged = evaluate(output, device="cpu", workers=0)
    for name, value in judged.to_dict().items():
        print(f"{name:15} {value:.3f}")
    for each in judged.details["classes"]:
        print(f"{each['name']:15} IoU {each['iou'] or 0:.1f}%")
    return result


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/shapes")
