from __future__ import annotations

import pytest
import torch

from rlawrap.attention import ECA, SE, eca_kernel


def test_eca_is_a_convolution_over_channel_means() -> None:
    eca = ECA(3).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    before, own, behind = eca.conv.weight.detach().flatten()
    means = x.mean((2, 3))
    for n in range(2):
        for c in range(5):
            around = own * means[n, c]
            around = around + (before * means[n, c - 1] if c > 0 else 0)
            around = around + (behind * means[n, c + 1] if c < 4 else 0)
            torch.testing.assert_close(eca(x)[n, c], x[n, c] * torch.sigmoid(around))


def test_se_is_two_linear_layers_on_channel_means() -> None:
    se = SE(32, reduction=8).double()
    x = torch.randn(2, 32, 4, 3, dtype=torch.float64)
    down, up = se.state_dict()["fc.0.weight"], se.state_dict()["fc.2.weight"]
    assert down.shape == (4, 32)
    gate = torch.sigmoid(torch.relu(x.mean((2, 3)) @ down.T) @ up.T)
    torch.testing.assert_close(se(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("gate", [lambda **kw: ECA(3, **kw), lambda **kw: SE(8, **kw)])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_rank_and_layout(gate, dims: int) -> None:  # type: ignore[no-untyped-def]
    first, last = gate(dims=dims), gate(dims=dims, channels_last=True)
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 8, *range(2, 2 + dims))
    order = (0, *range(2, dims + 2), 1)
    torch.testing.assert_close(last(x.permute(order)), first(x).permute(order))


def test_adaptive_kernel_is_odd_and_grows() -> None:
    sizes = [eca_kernel(c) for c in (1, 8, 64, 256, 2048, 8192)]
    assert sizes == [1, 3, 3, 5, 7, 7]
