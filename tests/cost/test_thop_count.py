from __future__ import annotations

import pytest
import torchvision

import rlawrap
from rlawrap.cost import cost, thop_count

pytest.importorskip("thop", reason="needs the cost extra")


def test_thop_counts_more_for_batch_norm() -> None:
    """thop: MACs, four per batch-norm element, and the pooling: one per input and per output."""
    model = torchvision.models.resnet50()
    result = cost(model, size=224)
    pooled = 2048 * 49 + 2048
    assert result.thop == result.total.macs + 4 * result.total.norm_elements + pooled
    assert not [key for key in model.state_dict() if "total" in key]


def test_thop_on_a_network_with_hidden_state() -> None:
    """Its extra over the paper's count is batch norm and pooling, to the last operation."""
    result = cost(rlawrap.apply(torchvision.models.resnet50(), config=rlawrap.variant("rla")))
    pooled = (2048 + 32) * 49 + (2048 + 32)  # x and h before the classifier
    pooled += 32 * (56**2 + 28**2 + 14**2) + 32 * (28**2 + 14**2 + 7**2)  # h between stages
    assert result.thop == result.total.macs + 4 * result.total.norm_elements + pooled
    assert result.thop == 4_501_153_888


def test_absent_thop_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thop_count.importlib.util, "find_spec", lambda name: None)
    result = cost(torchvision.models.resnet18(), size=64)
    assert result.thop is None
    assert "pip install 'rlawrap[cost]'" in str(result)
