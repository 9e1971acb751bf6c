"""Where every tensor of the official code lives in ours, worked out from a model's structure.

The official code widens a layer to Concat[x, h]; here x's weight and h's are separate layers. So
an official tensor is one tensor of ours, or two of ours joined: along the input channels (a
convolution or a classifier that reads Concat[x, h]), or along the channels themselves (the
depthwise convolution over Concat[x, h] in MobileNetV2, and the norm behind it).

A backbone has less than the official one for detection, which computes the last update of h in
vain: those tensors are listed with their shapes and without a part of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rlawrap.cells import CellSpec
from rlawrap.cells.cell_registry import get_cell
from rlawrap.design import names
from rlawrap.errors import CheckpointError
from rlawrap.official.entries import Entry, Layout
from rlawrap.plan import Block
from rlawrap.splice import RLAModel

#: Layers of our recurrent cells and their official names; the rest are called the same.
_CELL_NAMES = {
    "conv": {"conv.": ""},
    "dwconv": {"conv.": ""},
    "convlstm": {"conv.": "conv."},
    "convgru": {
        "gates.": "gate_conv.",
        "reset_norm.": "reset_gate_norm.",
        "update_norm.": "update_gate_norm.",
        "out.": "output_conv.",
        "out_norm.": "output_norm.",
    },
}


def official_layout(model: nn.Module) -> list[Entry]:
    """The official tensors of a model in the official order. Raises as `layout_of` does."""
    return layout_of(model).entries


def layout_of(model: nn.Module) -> Layout:
    """The official tensors of a model in the official order, and what a backbone was cut of.

    A network without hidden state has the same keys there and here. Raises `CheckpointError` for a
    model that the official code could not build, with the tensors it has no place for.
    """
    if not isinstance(model, RLAModel):
        return Layout([Entry(key, (key,)) for key in model.state_dict()])
    writer = _Writer(model)
    if model.rla.plan.model == "ResNet":
        writer.resnet()
    elif model.rla.plan.model == "MobileNetV2":
        writer.mobilenet()
    else:
        raise CheckpointError(
            f"the official code has ResNets and MobileNetV2, no {model.rla.plan.model}; "
            "rlawrap.save and rlawrap.load keep any model."
        )
    return writer.finish()


def official_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The official names of each tensor of ours: one, or all under which the official code has it.

    Raises `CheckpointError` for a model that the official code could not build.

    >>> import rlawrap
    >>> official_names(rlawrap.models.rla_mobilenetv2_k6())["rla.inject.0.conv.weight"]
    ('stages.0.0.conv.1.weight',)
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in official_layout(model):
        for part in entry.parts:
            found[part] = (*found.get(part, ()), entry.key)
    return found


class _Writer:
    """Collects the entries of one model; every key of ours must be taken by one."""

    def __init__(self, model: RLAModel) -> None:
        self.model, self.config, self.plan = model, model.rla.config, model.rla.plan
        self.own = list(model.state_dict())
        self.is_backbone = model.rla.splice.maps is not None
        self.entries: list[Entry] = []
        self.left_out: list[str] = []
        #: Why the official code could not build this model.
        self.problems: list[str] = []

    def finish(self) -> Layout:
        taken = {part for entry in self.entries for part in entry.parts}
        absent = [key for key in taken if key not in set(self.own)]
        unplaced = [key for key in self.own if key not in taken]
        self.problems += [f"it needs {key}, which this model lacks" for key in absent]
        self.problems += [f"it has no place for {key}" for key in unplaced]
        if self.problems:
            listed = "\n  ".join(self.problems)
            raise CheckpointError(
                f"the official code cannot build {self.plan.model} with {self.config}:\n  {listed}"
            )
        return Layout(self.entries, tuple(self.left_out), self.is_backbone)

    def put(self, key: str, *parts: str, axis: int | None = None) -> None:
        self.entries.append(Entry(key, parts, axis))

    def under(self, prefix: str) -> list[str]:
        """What follows `prefix.` in our keys, in their order."""
        return [key[len(prefix) + 1 :] for key in self.own if key.startswith(prefix + ".")]

    def copy(self, official: str, prefix: str) -> None:
        """All our tensors below `prefix`, under the same names below `official`."""
        for rest in self.under(prefix):
            self.put(f"{official}.{rest}", f"{prefix}.{rest}")

    def copy_or_cut(self, official: str, prefix: str, shapes: dict[str, tuple[int, ...]]) -> None:
        """As `copy`; where a backbone was cut of all that, the official tensors by their shapes."""
        if self.is_backbone and not self.under(prefix):
            for rest, shape in shapes.items():
                self.entries.append(Entry(f"{official}.{rest}", (), shape=shape))
        else:
            self.copy(official, prefix)

    def kept(self, groups: Sequence[Sequence[Block]]) -> list[Sequence[Block]]:
        """The blocks that a backbone still has, as far as its last map; the rest is left out."""
        kept: list[Sequence[Block]] = []
        for n, blocks in enumerate(groups):
            left = [block for block in blocks if self.under(block.path)]
            gone = [f"{n}.{m}." for m in range(len(left), len(blocks))]
            if left:
                kept.append(left)
            else:
                gone = [f"{n}."]
                self.left_out += [f"conv_outs.{n}.", f"recurrent_convs.{n}."]
            self.left_out += [f"{name}.{end}" for name in ("stages", "stage_bns") for end in gone]
        return kept

    # ResNet and ResNeXt: conv1, bn1, the shared layers, stages.N.M, stage_bns.N.M, bn2, fc.

    def resnet(self) -> None:
        shared = self.config.share == "stage"
        if self.config.share == "network":
            self.problems.append("share='network': its ResNets share a cell within a stage")
        if self.config.cell == "dwconv":
            self.problems.append("cell='dwconv': it has no depthwise cell for a ResNet")
        for name in ("conv1", "bn1"):
            self.copy(name, name)
        stages = self.kept([stage.blocks for stage in self.plan.stages])
        if shared:
            self.shared_inputs(stages)
            for n in range(len(stages)):
                self.cell(f"recurrent_convs.{n}.", str(n))
        index = 0
        for n, blocks in enumerate(stages):
            for m, block in enumerate(blocks):
                place = f"stages.{n}.{m}"
                self.resnet_block(place, block, index)
                if not shared:
                    self.input(f"{place}.conv_out", str(index), block)
                    self.cell(f"{place}.recurrent_conv.", str(index))
                    self.norm(f"{place}.bn_rla", index)
                index += 1
        if shared:
            self.stage_norms(stages)
        if self.is_backbone:
            self.left_out += ["bn2.", "fc."]
            return
        self.copy("bn2", names.HEAD_NORM)
        self.put("fc.weight", "fc.weight", f"{names.join('0')}.linear.weight", axis=1)
        self.put("fc.bias", "fc.bias")

    def resnet_block(self, place: str, block: Block, index: int) -> None:
        entry = f"{block.entries[0].removeprefix(block.path + '.')}.weight"
        for rest in self.under(block.path):
            ours = f"{block.path}.{rest}"
            if rest == entry and self.config.inject != "none":
                self.put(f"{place}.{rest}", ours, f"{names.inject(str(index))}.conv.weight", axis=1)
            else:
                self.put(f"{place}.{rest}", ours)

    # MobileNetV2: conv1, stages.N.M (N counts the rows), the shared layers, conv2, bn2, classifier.

    def mobilenet(self) -> None:
        if self.config.share != "network":
            self.problems.append("its MobileNetV2 has one recurrent convolution: share='network'")
        rows = self.kept(self.rows())
        first, last = self.outside_blocks()
        self.copy("conv1", first)
        index = 0
        for n, row in enumerate(rows):
            for m, block in enumerate(row):
                self.mobilenet_block(f"stages.{n}.{m}", block, index)
                index += 1
        self.shared_inputs(rows)
        listed = "recurrent_dsconvs" if self.config.cell == "dwconv" else "recurrent_convs"
        for n in range(len(self.plan.stages)):
            # One module listed once for every resolution.
            self.cell(f"{listed}.{n}.", "0")
        self.stage_norms(rows)
        if self.is_backbone:
            self.left_out += ["conv2.", "bn2.", "classifier."]
            return
        self.put("conv2.0.weight", f"{last}.0.weight", f"{names.join('0')}.conv.weight", axis=1)
        self.copy("conv2.1", f"{last}.1")
        self.copy("bn2", names.HEAD_NORM)
        self.copy("classifier", "classifier")

    def rows(self) -> list[list[Block]]:
        """Runs of blocks of one width, within a resolution: they share a Conv1x1."""
        rows: list[list[Block]] = []
        for stage in self.plan.stages:
            before = None
            for block in stage.blocks:
                if block.channels != before:
                    rows.append([])
                rows[-1].append(block)
                before = block.channels
        return rows

    def outside_blocks(self) -> tuple[str, str]:
        """The paths of the first and of the last layers of `features`."""
        names = [name for name, _ in self.model.get_submodule("features").named_children()]
        return f"features.{names[0]}", f"features.{names[-1]}"

    def mobilenet_block(self, place: str, block: Block, index: int) -> None:
        """[expand], depthwise and project, each behind the other in `conv`; then attention."""
        path, h = f"{block.path}.conv", names.inject(str(index))
        children = [name for name, _ in self.model.get_submodule(path).named_children()]
        expands = isinstance(self.model.get_submodule(f"{path}.1"), nn.Sequential)
        if expands:
            self.copy(f"{place}.conv1x1", f"{path}.{children.pop(0)}")
        depthwise, project, *rest = children
        self.put(
            f"{place}.conv.0.0.weight",
            f"{path}.{depthwise}.0.weight",
            f"{h}.depthwise.weight",
            axis=0,
        )
        for name in self.under(f"{path}.{depthwise}.1"):
            axis = None if name == "num_batches_tracked" else 0
            ours = f"{path}.{depthwise}.1.{name}"
            self.put(f"{place}.conv.0.1.{name}", ours, f"{h}.norm.{name}", axis=axis)
        self.put(f"{place}.conv.1.weight", f"{path}.{project}.weight", f"{h}.conv.weight", axis=1)
        for n, name in enumerate(rest):
            self.copy(f"{place}.conv.{n + 2}", f"{path}.{name}")

    # Both.

    def shared_inputs(self, groups: Sequence[Sequence[Block]]) -> None:
        keys = [key.removesuffix(".weight") for key in self.under(names.part("input"))]
        for n, key in enumerate(keys):
            self.input(f"conv_outs.{n}", key, None)
        for n in range(len(keys), len(groups)):
            # The update in the last stage's only block is the one that a backbone does without.
            self.input(f"conv_outs.{n}", "", groups[n][0])

    def input(self, official: str, key: str, block: Block | None) -> None:
        """Conv1x1 by its key below `rla.input`, or from the channels of the block."""
        shape = (self.config.k, int((block and block.channels) or 0), 1, 1)
        self.copy_or_cut(official, names.source(key), {"weight": shape})

    def cell(self, official: str, key: str) -> None:
        spelled = _CELL_NAMES.get(self.config.cell)
        if spelled is None:
            self.problems.append(f"cell={self.config.cell!r}: it has no such cell")
            return
        ours = self.under(names.cell(key))
        shapes = self.cell_shapes() if self.is_backbone and not ours else dict.fromkeys(ours)
        for rest, shape in shapes.items():
            layer, _, parameter = rest.partition(".")
            theirs = f"{official}{spelled.get(f'{layer}.', f'{layer}.')}{parameter}"
            parts = () if shape else (f"{names.cell(key)}.{rest}",)
            self.entries.append(Entry(theirs, parts, shape=shape))

    def cell_shapes(self) -> dict[str, tuple[int, ...] | None]:
        """What a cell is made of, for one that a backbone was cut of."""
        config = self.config
        spec = CellSpec(k=config.k, kernel=config.kernel, norm=config.norm, update=config.update)
        with torch.device("meta"):
            layers = nn.ModuleDict(get_cell(config.cell)(spec).shared())  # type: ignore[arg-type]
        return {key: tuple(value.shape) for key, value in layers.state_dict().items()}

    def norm(self, official: str, index: int) -> None:
        """BN_t of a block."""
        k = (self.config.k,)
        tensors = ("weight", "bias", "running_mean", "running_var")
        shapes = {**dict.fromkeys(tensors, k), "num_batches_tracked": ()}
        self.copy_or_cut(official, f"{names.block(index)}.norm", shapes)

    def stage_norms(self, groups: Sequence[Sequence[Block]]) -> None:
        index = 0
        for n, blocks in enumerate(groups):
            for m in range(len(blocks)):
                self.norm(f"stage_bns.{n}.{m}", index)
                index += 1
