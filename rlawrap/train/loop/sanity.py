"""Steps that are finite and absurd all the same: gradients and weights of impossible size."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

#: The largest entry that a gradient may have. Weights are float32, which has seven digits: at this
#: bound the rounding of a single weight of size 1 changes the loss by 1e5, more than any cross
#: entropy that can be learned from, so that such a gradient says nothing of the function it is of.
#: In networks that learn, spikes and networks without norms included, it stays below 1e6.
GRADIENT_LIMIT = 1e12

#: How many times its value before the largest weight may have after a step (1 is added to it, for
#: weights that begin at zero). Training changes it by a small part of itself, and hardly more than
#: doubles it in steps that go wrong and are mended by those that follow.
LEAP_LIMIT = 1e3

#: The largest weight there may be: some layers on, products of such values leave float32. Those of
#: networks that learn are below 1e3.
WEIGHT_LIMIT = 1e10


class Sanity:
    """Looks at the largest entries of gradient and weights at each step; never waits for a device.

    bad_step: the first step that was absurd, or left weights that are not finite; -1: none. Its
    figures are kept for the message.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._figures = torch.zeros(3, device=device)
        self._before: Tensor | None = None

    @torch.no_grad()
    def before(self) -> Tensor:
        """Call it before the weights move, and give its result, of the gradient, to `after`."""
        if self._before is None:
            self._before = self._largest(self.parameters)
        return self._largest(p.grad for p in self.parameters if p.grad is not None)

    @torch.no_grad()
    def after(self, step: int, gradient: Tensor) -> None:
        """Call it when the weights have moved by step number `step`."""
        assert self._before is not None
        before, after = self._before, self._largest(self.parameters)
        # A gradient that is not finite shows in the weights, unless a loss scaler has skipped it.
        absurd = gradient.isfinite() & (gradient > GRADIENT_LIMIT)
        absurd |= ~(after <= LEAP_LIMIT * (1 + before)) | ~(after <= WEIGHT_LIMIT)  # NaN is neither
        first = absurd & (self.bad_step < 0)
        self.bad_step = torch.where(first, step, self.bad_step)
        self._figures = torch.where(first, torch.stack([gradient, before, after]), self._figures)
        self._before = after

    def forget(self) -> None:
        """The weights were replaced, by no step."""
        self._before = None

    def words(self) -> str:
        """What was wrong with the bad step."""
        gradient, before, after = self._figures.tolist()
        if not math.isfinite(after):
            return "weights are not finite (NaN or infinite) after"
        return (
            f"gradient or weights are absurd (largest entry of the gradient {gradient:.2g}, of the "
            f"weights {before:.2g} before and {after:.2g} after) at"
        )

    def _largest(self, tensors: Iterable[Tensor]) -> Tensor:
        # Sums of squares would overflow long before the entries do.
        return get_total_norm(list(tensors), math.inf).float().to(self.bad_step.device)
