"""Randomness that is a function of its place alone: (seed, epoch, index), never of history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(purpose: str, *parts: int) -> int:
    """A 63-bit seed from a purpose and integers.

    Hashing, unlike `seed + epoch`, keeps (seed 0, epoch 1) apart from (seed 1, epoch 0).

    >>> derive_seed("augment", 0, 1, 5) == derive_seed("augment", 0, 1, 5)
    True
    >>> derive_seed("augment", 0, 1, 5) == derive_seed("augment", 1, 0, 5)
    False
    """
    text = ":".join([purpose, *map(str, parts)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def local_randomness(purpose: str, *parts: int) -> Iterator[None]:
    """Seed torch's CPU generator for one block of code, then put its state back.

    torchvision's transforms draw from that generator. `torch.manual_seed` would reseed the
    accelerators as well, which a data loader in the training process must not do.

    >>> with local_randomness("doc", 1):
    ...     a = torch.rand(1)
    >>> with local_randomness("doc", 1):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(derive_seed(purpose, *parts))
    try:
        yield
    finally:
        generator.set_state(state)
