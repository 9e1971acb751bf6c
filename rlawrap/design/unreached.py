"""What of a found plan h cannot reach, in words: `inspect` tells it before `apply` warns of it."""

from __future__ import annotations

from rlawrap.config import RLAConfig
from rlawrap.design.entries import Network, entry_paths
from rlawrap.design.heads import head_entries
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan


def unreached(traced: Traced, plan: Plan) -> list[str]:
    """A note on each entry of a found plan that h cannot reach with the default configuration."""
    config = RLAConfig()
    network = Network.of(traced, config)
    notes: list[str] = []
    for block in plan.blocks:
        if block.after is None or block.input is None:
            continue
        entries = [network.refs.node(entry) for entry in block.entries]
        start = network.refs.node(block.input)
        notes += entry_paths(network, block, entries, start, config.inject)[1]
    return notes + head_entries(network, plan)[1]
