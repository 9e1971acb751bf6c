"""A network whose input cannot be guessed is told of a call that works; here it is made."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.cost import cost
from rlawrap.errors import PlanError


class Signal(nn.Module):
    """A waveform without an axis of channels, long enough for its window."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.view(1, x.size(-1)).unfold(1, 400, 160)
        return self.conv(frames[:, None]).mean((2, 3))


class FixedSignal(nn.Module):
    """A linear layer for signals of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 4, 9, stride=4), nn.Linear(4 * 1999, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1))


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4 * 16 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool3d(self.conv(x), (None, 2, 2)).flatten(1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.conv(a) - self.conv(b)


class Timed(nn.Module):
    """An image and the number of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.steps = nn.Conv2d(3, 4, 3), nn.Embedding(10, 4)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return self.conv(x) + self.steps(step)[:, :, None, None]


class Odd(nn.Module):
    """A position for every pixel of images of 55x55."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.places = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(1, 4, 53, 53))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.places


CALLS: list[tuple[nn.Module, str, tuple[int, ...]]] = [
    (Signal(), "model, example_input=torch.randn(1, 16000)", (1, 16000)),
    (FixedSignal(), "model, size=8004", (1, 2, 8004)),
    (Clip(), "model, size=(16, 112, 112)", (1, 3, 16, 112, 112)),
    (
        Pair(),
        "model, example_input=(torch.randn(1, 3, 224, 224), torch.randn(1, 3, 224, 224))",
        (1, 3, 224, 224),
    ),
    (
        Timed(),
        "model, example_input=(torch.randn(1, 3, 224, 224), torch.zeros(1).long())",
        (1, 3, 224, 224),
    ),
    (Odd(), "model, size=55", (1, 3, 55, 55)),
    (nn.Linear(5, 3), "model, example_input=torch.randn(1, 5)", (1, 5)),
]


@pytest.mark.parametrize(("model", "call", "shape"), CALLS, ids=lambda c: type(c).__name__)
def test_the_call_that_an_error_names_works(
    model: nn.Module, call: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(PlanError, match="this call works: ") as caught:
        cost(model)
    written = str(caught.value).partition("this call works: ")[2]
    assert written == f"rlawrap.cost({call})"
    assert eval(written, {"rlawrap": rlawrap, "torch": torch, "model": model}).input_shape == shape


def test_a_network_that_takes_nothing_of_ours_is_told_what_to_pass() -> None:
    class Picky(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("a colour image of 7x9, please")

    with pytest.raises(PlanError, match=r"7x9, please\. Pass example_input= with a tensor"):
        cost(Picky(3, 4, 3))


def test_an_example_is_counted_as_it_is() -> None:
    a, b = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    expected = 2 * 2 * 4 * 27 * 36  # two calls, two images, four channels of 6x6
    for example in ((a, b), {"b": b, "a": a}):
        result = cost(Pair(), example_input=example)
        assert (result.input_shape, result.total.macs) == ((2, 3, 8, 8), expected)


def test_a_rewritten_network_remembers_its_example() -> None:
    """Of it one image is counted, at another size if one is asked for."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(3))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            x = a + b
            for conv in self.convs:
                x = x + torch.relu(conv(x))
            return x

    pair = (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    model = rlawrap.apply(Body(), k=2, example_input=pair)
    parts = {part.name: part.base.macs for part in cost(model).parts}
    assert parts == {"stage 0": 3 * 81 * 64}
    assert cost(model, size=16).base.macs == 3 * 81 * 256
