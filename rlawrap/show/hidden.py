"""What h holds after each block, for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from rlawrap.errors import PlanError
from rlawrap.show.drawing import Pixels
from rlawrap.show.recording import parts_of, run_watched, shown_name
from rlawrap.splice import RLAModel
from rlawrap.tables import text_table

Values: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class State:
    """h after one block: `values` [k, height, width], float32."""

    part: str
    stage: int
    block: str
    values: Values

    @property
    def norm(self) -> float:
        """L2 norm of all values."""
        return float(np.linalg.norm(self.values))

    @property
    def rms(self) -> float:
        """Root mean square of the values, which sizes do not change."""
        return float(np.sqrt(np.mean(np.square(self.values, dtype=np.float64))))


@dataclass(frozen=True, kw_only=True)
class HiddenStates:
    """h along the depth of a network, block by block; `print(states)` shows sizes and norms.

    `photo` is what the network saw, uint8 [height, width, 3].
    """

    model: str
    source: str
    photo: Pixels
    states: tuple[State, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: sizes and norms, no maps."""
        rows = [
            {
                "part": s.part, "stage": s.stage, "block": s.block, "size": list(s.values.shape),
                "norm": s.norm, "rms": s.rms,
            }
            for s in self.states
        ]  # fmt: skip
        return {"model": self.model, "source": self.source, "states": rows}

    def __str__(self) -> str:
        rows = [("stage", "block", "size of h", "norm", "rms")]
        for s in self.states:
            path = f"{s.part}.{s.block}" if s.part else s.block or "(network)"
            size = "x".join(map(str, s.values.shape))
            rows.append((str(s.stage), path, size, f"{s.norm:.4g}", f"{s.rms:.4g}"))
        heading = f"{self.model}: h on {self.source}"
        return "\n".join([heading, *text_table(rows, right=(3, 4))])


def record_hidden(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], source: str, photo: Pixels
) -> HiddenStates:
    """Run a copy of the model on one image and keep h after each block whose h is read.

    Raises `PlanError` for a model without hidden state, and for one whose h is no image.
    """
    parts = parts_of(model, 'show(model, image, what="hidden")')
    seen: dict[tuple[str, int], Values] = {}

    def see(path: str, key: Any, value: Tensor) -> None:
        seen[path, key] = value[0].detach().float().cpu().numpy()

    run_watched(model, args, kwargs, _states, see)
    states = [
        State(part=path, stage=stage.index, block=block.path, values=seen[path, index])
        for path, part in parts.items()
        for index, (stage, block) in enumerate(
            (stage, block) for stage in part.rla.plan.stages for block in stage.blocks
        )
        if (path, index) in seen
    ]
    if not states or any(state.values.ndim != 3 for state in states):
        found = f"h of {states[0].values.ndim - 1} axes" if states else "no update of h that ran"
        raise PlanError(
            f'show(model, image, what="hidden"): draws h of images; the network has {found}. '
            '`rlawrap.show(model, what="gates")` measures any.'
        )
    return HiddenStates(model=shown_name(model), source=source, photo=photo, states=tuple(states))


def _states(part: RLAModel) -> dict[fx.Node, int]:
    return {node: index for index, node in part.rla.splice.programs[False].states.items()}


def component_colours(states: Sequence[State]) -> list[Pixels]:
    """h of blocks that share a cell as colours: its three principal components as red, green, blue.

    The components are those of all the blocks together, so that a colour means a like thing in
    each; every block's values are brought to the whole range of brightness. uint8 [height, width,
    3] for each block. A channel that is the same everywhere shows as grey.
    """
    flat = [_standard(state.values.reshape(len(state.values), -1)) for state in states]
    together = np.concatenate(flat, axis=1)
    _, vectors = np.linalg.eigh(together @ together.T / together.shape[1])
    basis = vectors[:, ::-1][:, :3]
    # Which way a component points is by chance: its strongest channel counts as positive.
    strongest = np.abs(basis).argmax(axis=0)
    basis = basis * np.where(basis[strongest, range(basis.shape[1])] < 0, -1.0, 1.0)
    made = []
    for state, values in zip(states, flat, strict=True):
        parts = [stretched(part.reshape(state.values.shape[1:])) for part in basis.T @ values]
        parts += [parts[-1]] * (3 - len(parts))
        made.append(np.rint(np.stack(parts, axis=-1) * 255).astype(np.uint8))
    return made


def _standard(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Less each channel's mean, over the deviation of all."""
    centred = values.astype(np.float64) - values.mean(axis=1, keepdims=True, dtype=np.float64)
    deviation = float(centred.std())
    return centred / deviation if deviation > 0 else centred


def stretched(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values between their 1st and 99th percentile as 0 to 1; a half where all are the same.

    >>> stretched(np.array([[0.0, 5.0, 10.0]])).round(2).tolist()
    [[0.0, 0.5, 1.0]]
    """
    low, high = np.percentile(values, (1, 99))
    if not high > low:
        return np.full(values.shape, 0.5)
    scaled: NDArray[np.float64] = np.clip((values - low) / (high - low), 0, 1)
    return scaled


def liveliest(state: State, count: int) -> list[int]:
    """The channels of h that vary most over the image, in order of their numbers."""
    spread = state.values.reshape(len(state.values), -1).std(axis=1)
    order = np.argsort(-spread, kind="stable")[:count]
    return sorted(int(channel) for channel in order)
