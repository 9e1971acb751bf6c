"""MMDetection's tests: run by `make test-mmdet`, in an environment of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import rlawrap
from tests.integrations.mmdet import mmcv_ops

if importlib.util.find_spec("mmcv._ext") is None:
    mmcv_ops.install()

#: What mmengine, mmcv and mmdet themselves use that is deprecated.
OTHERS = (
    "pkg_resources is deprecated",
    "Deprecated call to `pkg_resources",
    "``MultiScaleDeformableAttention`` has been moved",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of ours are errors here as well."""
    for item in items:
        for text in OTHERS:
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{text}"))


@pytest.fixture(scope="session", autouse=True)
def registered() -> None:
    """Everything that MMDetection and the integration register."""
    from mmdet.utils import register_all_modules

    import rlawrap.integrations.mmdet  # noqa: F401

    register_all_modules()


@pytest.fixture(scope="session")
def classifier() -> rlawrap.RLAModel:
    """RLA-ResNet-50 with random norms, statistics and injections; not to be changed."""
    model = rlawrap.models.rla_resnet50().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.0, generator=generator)
            elif tensor.dim() == 1:
                tensor.normal_(0, 0.1, generator=generator)
    return model


@pytest.fixture(scope="session")
def official_file(classifier: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint of the official classification code, with `classifier`'s weights."""
    path = tmp_path_factory.mktemp("official") / "model_best.pth"
    state = rlawrap.official_state_dict(classifier)
    torch.save(
        {"epoch": 120, "state_dict": {f"module.{name}": v for name, v in state.items()}}, path
    )
    return path
