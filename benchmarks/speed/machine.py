"""The machine in words, and how a process is told its threads and its heap."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

#: glibc's settings by the name of the regime. "kept": freed memory stays with the process.
#: "mapped": every tensor is mapped by itself and given back when it dies, so that memory is what
#: lives.
HEAPS = {
    "kept": "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.top_pad=268435456",
    "usual": "",
    "mapped": "glibc.malloc.mmap_threshold=65536",
}


def environment(heap: str, threads: int) -> dict[str, str]:
    """The environment of a measuring process."""
    return {
        **os.environ,
        "GLIBC_TUNABLES": HEAPS[heap],
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }


def describe(device: str) -> dict[str, str]:
    """What a reader needs to judge the figures."""
    import onnxruntime
    import torchvision

    words = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    if device == "cuda":
        words["gpu"] = torch.cuda.get_device_name()
    return words


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in known.items()}
    return (
        f"{fields.get('model name', platform.processor())} "
        f"(family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
    )
