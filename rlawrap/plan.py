"""Plan, Stage, Block: what `inspect` found, as plain data that a user can print, edit or write.

A *reference* names one value of the network:

- `"layer1.0.conv1"`: what that module returns; `"layer1.0.relu#1"`: what its second call returns;
- `"layer1.0:add"`: what the first `add` in that module's own forward computes, `"layer1.0:add#1"`
  the second; `":add"` in the network's own forward; `":input"` is the network's first input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

from rlawrap.errors import PlanError
from rlawrap.tables import html_table, text_table

PLAN_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """One step of the recurrence: where the hidden state enters and what it is updated from.

    Only `path`, `entries` and `output` need writing by hand; the rest is found from them.

    >>> Block(path="layer1.0", entries=("layer1.0.conv1",), output="layer1.0").branch is None
    True
    """

    path: str
    entries: tuple[str, ...]
    output: str
    class_name: str = ""
    input: str | None = None
    branch: str | None = None
    shortcut: str | None = None
    #: Index of the block whose hidden state this one reads; None starts from h^0.
    after: int | str | None = "previous"
    in_channels: int | None = None
    channels: int | None = None
    stride: float | None = None
    size: tuple[int, ...] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        """Raises `PlanError` for a field that is no reference, before anything looks it up."""
        for name, what in (("path", "the block's module"), ("output", "what h is updated from")):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise PlanError(
                    f"Block {self.path!r}: {name}={value!r}, expected a reference to {what}, such "
                    "as 'layer1.0'."
                )
        listed = isinstance(self.entries, (tuple, list))
        if not listed or not all(isinstance(entry, str) for entry in self.entries):
            raise PlanError(
                f"Block {self.path!r}: entries={self.entries!r}, expected a tuple of references to "
                "the convolutions that h enters at, such as ('layer1.0.conv1',)."
            )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive blocks of one resolution; they share the recurrent cell."""

    index: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> tuple[int, ...] | None:
        return self.blocks[0].size if self.blocks else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a network, its classifier, and what was left out and why.

    `print(plan)` shows it as a table; `to_dict` and `from_dict` carry it through JSON.
    """

    model: str
    input_shape: tuple[int, ...]
    stages: tuple[Stage, ...]
    #: References of the layers behind the last block where h joins the main path (the classifier).
    head: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in the order they run."""
        return tuple(block for stage in self.stages for block in stage.blocks)

    @property
    def joined(self) -> tuple[str, ...]:
        """What h joins of the head: the layers of which no note says that h does not join them."""
        return tuple(layer for layer in self.head if not self._notes(not_joined(layer)))

    def entered(self, block: Block) -> tuple[str, ...]:
        """What h enters of a block: the entries of which no note says that h does not."""
        return tuple(e for e in block.entries if not self._notes(not_entered(block.path, e)))

    def _notes(self, beginning: str) -> bool:
        return any(note.startswith(beginning) for note in self.notes)

    @classmethod
    def of(
        cls,
        model: str,
        stages: Iterable[Iterable[Block]],
        *,
        input_shape: tuple[int, ...] = (),
        head: Iterable[str] = (),
    ) -> Plan:
        """A plan written by hand: stages of blocks, and where h joins the classifier."""
        built = tuple(Stage(index=i, blocks=tuple(blocks)) for i, blocks in enumerate(stages))
        return cls(model=model, input_shape=input_shape, stages=built, head=tuple(head))

    def without(self, *paths: str) -> Plan:
        """This plan less the blocks of these paths; raises `PlanError` for one it does not have.

        A block that read the hidden state of one that goes reads that which this one read.
        """
        unknown = sorted(set(paths) - {b.path for b in self.blocks})
        if unknown:
            raise PlanError(
                f"Plan.without: no block {unknown}; it has {[b.path for b in self.blocks]}."
            )
        after = iter(_chain_without(self.blocks, paths))
        kept = [
            [replace(b, after=next(after)) for b in s.blocks if b.path not in paths]
            for s in self.stages
        ]
        stages = tuple(
            Stage(index=i, blocks=tuple(blocks))
            for i, blocks in enumerate(blocks for blocks in kept if blocks)
        )
        gone = tuple((path, "removed from the plan by hand") for path in paths)
        return replace(self, stages=stages, left_out=(*self.left_out, *gone))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, with a version."""
        return {"version": PLAN_VERSION, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`. Raises `PlanError` for another version or unknown fields."""
        if not isinstance(data, Mapping):
            raise PlanError(f"Plan.from_dict: expected a dict, got {type(data).__name__}.")
        fields = dict(data)
        version = fields.pop("version", None)
        if version != PLAN_VERSION:
            raise PlanError(
                f"Plan.from_dict: version {version!r}, this rlawrap reads {PLAN_VERSION}."
            )
        try:
            stages = tuple(
                Stage(index=s["index"], blocks=tuple(_block(b) for b in s["blocks"]))
                for s in fields.pop("stages")
            )
            return cls(
                model=fields.pop("model"),
                input_shape=tuple(fields.pop("input_shape")),
                stages=stages,
                head=tuple(fields.pop("head", ())),
                left_out=tuple((p, r) for p, r in fields.pop("left_out", ())),
                notes=tuple(fields.pop("notes", ())),
                **fields,
            )
        except (KeyError, TypeError) as error:
            raise PlanError(f"Plan.from_dict: not a plan: {error}") from error

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change when anything that steers the rewrite does."""
        wiring = [
            [
                (b.path, b.entries, b.input, b.branch, b.shortcut, b.output, b.after)
                for b in s.blocks
            ]
            for s in self.stages
        ]
        text = json.dumps([wiring, self.head])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return "\n".join([_heading(self), *text_table(_rows(self)), *_remarks(self)])

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return html_table(_rows(self), caption=_heading(self), below=_remarks(self))


class Plans(dict[str, Plan]):
    """The plans of several modules of a network, by path; `apply` takes it as `plan=`.

    `print(plans)` shows each as a table.

    >>> print(Plans(a=Plan.of("ResNet", []), b=Plan.of("ResNet", [])))
    a: ResNet at any size: 0 blocks in 0 stages
    ...
    <BLANKLINE>
    b: ResNet at any size: 0 blocks in 0 stages
    ...
    """

    def to_dict(self) -> dict[str, Any]:
        """Each plan as `Plan.to_dict` gives it, by path."""
        return {path: plan.to_dict() for path, plan in self.items()}

    def _repr_html_(self) -> str:
        """Each plan's table, for notebooks."""
        return "\n".join(
            f"<h4>{escape(path)}</h4>\n{plan._repr_html_()}" for path, plan in self.items()
        )

    def __str__(self) -> str:
        return "\n\n".join(f"{path}: {plan}" for path, plan in self.items())


def _chain_without(blocks: tuple[Block, ...], paths: tuple[str, ...]) -> list[int | str | None]:
    """For each block that stays, the one whose hidden state it reads, counted without the others.

    Of one that goes its own `after` is taken, and so on.
    """
    stay = [i for i, block in enumerate(blocks) if block.path not in paths]
    number = {old: new for new, old in enumerate(stay)}

    def before(i: int) -> int | str | None:
        after = blocks[i].after
        if after == "previous":
            after = i - 1 if i else None
        # What names no block before stays as it is: resolving the plan refuses it by name.
        if not isinstance(after, int) or not 0 <= after < i:
            return after
        return number[after] if after in number else before(after)

    return [before(i) for i in stay]


def _block(data: Mapping[str, Any]) -> Block:
    fields = dict(data)
    fields["entries"] = tuple(fields["entries"])
    if fields.get("size") is not None:
        fields["size"] = tuple(fields["size"])
    return Block(**fields)


def not_entered(path: str, entry: str) -> str:
    """How a note begins on an entry of a block that h does not enter."""
    return f"{path}: h does not enter {entry}: "


def not_joined(layer: str) -> str:
    """How a note begins on a layer of the head that h does not join."""
    return f"head: h does not join {layer}: "


def short_reference(reference: str | None, path: str) -> str:
    """A reference as it reads within the module at `path`; "-" for none."""
    if reference is None:
        return "-"
    if reference == path:
        return "(its output)"
    for mark in (".", ":"):
        if path and reference.startswith(path + mark):
            return reference[len(path) + (mark == ".") :]
    return reference


def _rows(plan: Plan) -> list[tuple[str, ...]]:
    """A row for each block, below a header."""
    rows: list[tuple[str, ...]] = [
        (
            "stage",
            "block",
            "class",
            "channels",
            "size",
            "stride",
            "h enters at",
            "branch y",
            "reads",
        )
    ]
    index = 0
    for stage in plan.stages:
        for block in stage.blocks:
            before = "-" if block.in_channels is None else str(block.in_channels)
            reads = "h0" if block.after is None else "previous"
            if isinstance(block.after, int) and block.after != index - 1:
                reads = f"block {block.after}"
            entries = [short_reference(e, block.path) for e in plan.entered(block)]
            rows.append(
                (
                    str(stage.index),
                    block.path or "(network)",
                    block.class_name,
                    f"{before} -> {block.channels}",
                    "x".join(map(str, block.size or ())),
                    "-" if block.stride is None else f"{block.stride:g}",
                    ", ".join(entries) or "nowhere",
                    short_reference(block.branch, block.path),
                    reads,
                )
            )
            index += 1
    return rows


def _heading(plan: Plan) -> str:
    size = "x".join(map(str, plan.input_shape[1:])) or "any size"
    return f"{plan.model} at {size}: {len(plan.blocks)} blocks in {len(plan.stages)} stages"


def _remarks(plan: Plan) -> list[str]:
    """The head, what was left out, and notes, a line each."""
    lines = [f"head: h joins at {', '.join(plan.joined)}" if plan.joined else "head: none"]
    lines += [f"left out: {path}: {reason}" for path, reason in plan.left_out]
    noted = [f"{b.path}: {b.note}" for b in plan.blocks if b.note]
    return lines + [f"note: {text}" for text in (*noted, *plan.notes)]
