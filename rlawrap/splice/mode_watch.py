"""A warning where modules that ask for their own mode are not in the one they were traced in.

Where train mode runs another graph than eval mode, the root's mode decides between the two, and in
either a branch on a module's own `training` is frozen: after `model.train(); model.layer1.eval()`
the layers of `layer1` run in eval mode and its branches in train mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import nn

from rlawrap.errors import RLAWarning

#: For each mode of the root: the modules that its graph's trace asked for theirs, and the answers.
Modes = Mapping[bool, Mapping[str, bool]]


class ModeWatch:
    """Compares those modules' modes with the answers; each mixture of modes is warned of once."""

    def __init__(self, modes: Modes) -> None:
        self.modes = modes
        self.watched: dict[bool, list[tuple[str, nn.Module, bool]]] = {}
        self.said: set[tuple[str, ...]] = set()

    def find(self, root: nn.Module) -> None:
        """Look the modules up again, as some may have been replaced."""
        if not self.modes:
            return
        known = dict(root.named_modules(remove_duplicate=False))
        self.watched = {
            mode: [(path, known[path], answer) for path, answer in asked.items() if path in known]
            for mode, asked in self.modes.items()
        }

    def check(self, mode: bool) -> None:
        """Warn if the graph of this mode is not what the modules' own modes ask for."""
        for _, module, answer in self.watched[mode]:
            if module.training is not answer:
                self._warn(mode)
                return

    def _warn(self, mode: bool) -> None:
        mixed = [(p, m, a) for p, m, a in self.watched[mode] if m.training is not a]
        key = (str(mode), *(path for path, _, _ in mixed))
        if key in self.said:
            return
        self.said.add(key)
        path, module, answer = mixed[0]
        name = type(module).__name__
        more = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        whole = ", ".join(dict.fromkeys(type(m).__name__ for _, m, _ in mixed))
        advice = (
            f"Kept whole they follow their own mode: rlawrap.apply(..., leaf_modules=[{whole}])."
        )
        if any(True for _, m, _ in mixed for _ in m.children()):
            advice += (
                " The hidden state cannot enter a whole module; where one has convolutions, move "
                "what depends on the mode into a module of its own first."
            )
        warnings.warn(
            f"the model is in {_mode(mode)} mode and its module {path!r} ({name}){more} in "
            f"{_mode(not answer)} mode, but what its forward does by its mode was traced in "
            f"{_mode(answer)} mode and is run so. {advice}",
            RLAWarning,
            stacklevel=2,
        )


def _mode(training: bool) -> str:
    return "train" if training else "eval"
