"""An order of an epoch in which wide scenes and high ones come in batches of their own.

A batch is filled up to its largest height and width, so a mixed one is mostly filling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlawrap.train.data.seeding import derive_seed


def grouped_order(groups: Sequence[int], *, seed: int, epoch: int, batch_size: int) -> Tensor:
    """The order of an epoch, int64 [n], whose batches are of one group each.

    groups: the group of each scene. A permutation drawn from (seed, epoch), so it is cut and
    resumed as `sampler` does it, by any number of processes. batch_size: of the whole batch. What
    the groups leave over comes last, group by group, so that with g groups at most g batches are
    mixed or short.

    >>> grouped_order([0, 1, 0, 1, 0], seed=0, epoch=0, batch_size=2).tolist()
    [3, 1, 0, 4, 2]
    """
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    order = torch.randperm(len(groups), generator=generator)
    own = torch.tensor(list(groups), dtype=torch.int64)[order]
    whole, rests = [], []
    for group in sorted(set(groups)):
        members = order[own == group]
        full = len(members) // batch_size * batch_size
        whole += list(members[:full].split(batch_size))
        rests.append(members[full:])
    places = torch.randperm(len(whole), generator=generator).tolist()
    batches = [whole[place] for place in places]
    return torch.cat([*batches, *rests]) if len(groups) else order
