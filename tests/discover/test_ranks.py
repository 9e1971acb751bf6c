"""Bodies of another rank or batch than the input; what a refusal says of the parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual

BODY = ["body.0", "body.1", "body.2"]


class Volume(nn.Module):
    """Two images become a volume of features at three disparities."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, 2, 1)
        self.body = nn.Sequential(*(Residual3d() for _ in range(3)))
        self.fc = nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.features(left), self.features(right)
        shifted = [torch.cat([a, torch.roll(b, i, -1)], 1) for i in range(3)]
        return self.fc(self.body(torch.stack(shifted, 2)).mean((2, 3, 4)))


class Residual3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(8, 8, 3, 1, 1), nn.Conv3d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Eeg(nn.Module):
    """Signals of electrodes become an image of one channel, then lose their electrodes' axis."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.space = nn.Conv2d(1, 8, (1, 9), padding=(0, 4)), nn.Conv2d(8, 8, (6, 1))
        self.body, self.fc = nn.Sequential(*(Residual(8, 8) for _ in range(3))), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.space(self.time(x.unsqueeze(1))))
        return self.fc(self.body(F.avg_pool2d(x, (1, 4))).mean((2, 3)))


class Clip(nn.Module):
    """The frames of a clip lie among its channels, and then in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, 1, 1), nn.Linear(8, 4)
        self.body = nn.Sequential(*(Residual(8, 8) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.view(-1, 3, *x.size()[-2:])
        return self.fc(self.body(self.stem(frames)).mean((2, 3))).view(-1, 4, 4).mean(1)


IMAGES = torch.randn(2, 3, 16, 24)
CASES = [
    (Volume, (IMAGES, IMAGES + 1), (3, 8, 12)),
    (Eeg, torch.randn(2, 6, 64), (1, 16)),
    (Clip, torch.randn(2, 12, 16, 24), (16, 24)),
]


@pytest.mark.parametrize(("make", "example", "size"), CASES)
def test_blocks_of_a_body_of_another_rank_or_batch(
    make: type[nn.Module], example: torch.Tensor | tuple[Tensor, Tensor], size: tuple[int, ...]
) -> None:
    net = make().eval()
    plan = rlawrap.inspect(net, example_input=example)
    assert [b.path for b in plan.blocks] == BODY
    assert [b.entries for b in plan.blocks] == [(f"body.{i}.conv1",) for i in range(3)]
    assert {(b.channels, b.size) for b in plan.blocks} == {(8, size)}
    assert plan.head == ("fc",)
    model = rlawrap.apply(net, k=4, example_input=example).eval()
    for batch in (1, 3):
        given = example if isinstance(example, tuple) else (example,)
        x = [torch.cat([t, t.flip(0)])[:batch] for t in given]
        assert torch.allclose(model(*x), net(*x), atol=1e-5)
    assert len(model.rla.inject) == 2
    with torch.no_grad():
        for p in model.rla.parameters():
            p.normal_()
    assert not torch.allclose(model(*x), net(*x), atol=1e-2)  # h is read


def test_features_that_are_convolved_too_are_no_tokens() -> None:
    class Deep(Volume):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Residual(4, 4))

    plan = rlawrap.inspect(Deep(), example_input=(IMAGES, IMAGES))
    assert [b.path for b in plan.blocks] == BODY
    assert plan.left_out == ()


def test_a_message_names_the_part_that_has_blocks_and_the_call_works() -> None:
    class Never(nn.Module):
        """Its body is called for a side output alone."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.ModuleList([nn.Conv2d(3, 8, 3, 1, 1), nn.Sequential()])
            self.net[1] = nn.Sequential(*(Residual(8, 8) for _ in range(2)), nn.Conv2d(8, 2, 1))
            self.fc = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.net[0](x).mean((2, 3), keepdim=True)
            return self.fc(self.net[1](y).mean((2, 3)).repeat(1, 4))

    net = Never()
    with pytest.raises(rlawrap.PlanError) as refusal:
        rlawrap.inspect(net, example_input=IMAGES)
    message = str(refusal.value)
    assert message.endswith("`rlawrap.apply(model, at='net.1')`.")
    assert "Never: what it adds and concatenates are no images of 4 axes and several" in message
    model: Any = rlawrap.apply(net, at="net.1")
    assert [b.path for b in model.net[1].plan.blocks] == ["0", "1"]


def test_a_waveform_is_refused_with_the_path_of_the_body() -> None:
    class LogMel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Parameter(torch.rand(33, 16))
            self.stem = nn.Conv2d(1, 8, 3, 1, 1)
            self.body = nn.Sequential(*(Residual(8, 8) for _ in range(3)))

        def forward(self, x: Tensor) -> Tensor:
            window = torch.ones(64)
            power = torch.stft(x, 64, 32, window=window, return_complex=True).abs()
            image = torch.einsum("nft,fm->nmt", power, self.filters).log().unsqueeze(1)
            return self.body(self.stem(image)).mean((2, 3))

    net = LogMel()
    with pytest.raises(rlawrap.PlanError, match=r"`rlawrap\.apply\(model, at='body'\)`\."):
        rlawrap.inspect(net, example_input=torch.randn(2, 1024))
    model: Any = rlawrap.apply(net, at="body")
    assert [b.path for b in model.body.plan.blocks] == ["0", "1", "2"]
