"""What a rewritten forward pays for being able to run hooks, modes and `disabled`.

`python benchmarks/hook_overhead.py`: on tensors without memory, so that nothing but Python and
PyTorch's dispatcher is timed, the worst case. Both sides alternate, one thread, medians: the model
called as ever, and the generated function of its graph called alone.
"""

from __future__ import annotations

import statistics
import time

import torch
import torchvision

import rlawrap

ROUNDS = 60


def seconds(call: object, *args: object) -> float:
    start = time.perf_counter()
    call(*args)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    for name in ("resnet50", "mobilenet_v2", "densenet121"):
        base = torchvision.models.get_model(name, weights=None).eval().to("meta")
        model = rlawrap.apply(base, k=32)
        x = torch.empty(8, 3, 224, 224, device="meta")
        bare = model.rla.splice.programs[False].plain
        whole, alone = [], []
        with torch.no_grad():
            for _ in range(ROUNDS):
                alone.append(seconds(bare, model, x))
                whole.append(seconds(model, x))
        a, b = statistics.median(alone), statistics.median(whole)
        points = len(model.rla.splice.programs[False].points)
        print(f"{name}: {points} hook points, {a * 1e3:.2f} -> {b * 1e3:.2f} ms, {b / a - 1:+.2%}")


if __name__ == "__main__":
    main()
