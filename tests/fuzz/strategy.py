"""Hypothesis strategies: random networks and random configurations."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.fuzz.decoders import ENLARGING, SKIPS
from tests.fuzz.paddings import PADDINGS
from tests.fuzz.refused import REFUSED
from tests.fuzz.spec import Case, LayerSpec, NetSpec, StageSpec

CONDITIONED = ("film", "spade", "conditional_norm", "gated")
JOINING_KINDS = (
    "basic", "bottleneck", "inverted", "preact", "convnext", "inception", "shuffle", "dense",
    "rep", "mixer", "highway", "asymmetric", "cropped", "split", "partial", "asking",
    *CONDITIONED,
)  # fmt: skip
KINDS = (*JOINING_KINDS, "plain", "separable")
STYLES = (
    "sequential", "loop", "module", "joining", "inline", "gathering", "shared", "halved", "steps",
    "units", "layers",
)  # fmt: skip
HEADS = (
    "pool", "mean", "flatten", "view", "convolutional", "features", "normed", "mobile", "mlp",
    "maximum", "none", "dropout",
)  # fmt: skip
DROPS = ("none", "dropout", "functional", "path", "noise", "stochastic_depth")
OUTPUTS = ("tensor", "tuple", "dict", "list", "named", "auxiliary", "stages", "class")
ARGUMENTS = (
    "image", "optional", "flag", "mask", "keyword", "extra", "condition", "asking", "domain",
    "listed", "decorated", "guide",
)  # fmt: skip


def first_often(values: tuple[str, ...]) -> st.SearchStrategy[str]:
    """The first value half of the time: rare properties must not all meet in one network."""
    return st.one_of(st.just(values[0]), st.sampled_from(values))


def rarely() -> st.SearchStrategy[bool]:
    return st.sampled_from((False, False, False, True))


JOINS = (
    "plus", "iadd", "torch_add", "add_", "stacked", "lerp", "addcmul", "dropped", "assigned",
)  # fmt: skip


@st.composite
def layer_specs(draw: st.DrawFn) -> LayerSpec:
    return LayerSpec(
        dims=draw(st.sampled_from((2, 2, 2, 1, 3))),
        norm=draw(first_often(("batch", "group", "instance", "none"))),
        act=draw(first_often(("relu", "silu", "gelu", "leaky_relu", "hardswish", "prelu", "elu"))),
        inplace=draw(st.booleans()),
        functional_act=draw(st.booleans()),
        join=draw(st.sampled_from(JOINS)),
        bias=draw(st.booleans()),
        weight_norm=draw(first_often(("none", "none", "none", "parametrized", "hook", "spectral"))),
        padding_mode=draw(
            st.sampled_from(("zeros", "zeros", "zeros", "circular", "replicate", "reflect"))
        ),
        padding=draw(st.sampled_from(("own",) * 7 + PADDINGS)),
    )


@st.composite
def stage_specs(draw: st.DrawFn, first_kind: str | None = None) -> StageSpec:
    return StageSpec(
        kind=first_kind or draw(st.sampled_from(KINDS)),
        style=draw(first_often(STYLES)),
        depth=draw(st.integers(1, 3)),
        channels=draw(st.sampled_from((4, 8, 12, 16))),
        stride=draw(st.sampled_from((1, 2, 2, 3))),
        kernel=draw(st.sampled_from((3, 3, 5, 1, 7))),
        dilation=draw(st.sampled_from((1, 1, 1, 2))),
        groups=draw(st.sampled_from((1, 1, 2, 4))),
        gate=draw(first_often(("none", "se", "spatial"))),
        drop=draw(first_often(DROPS)),
        act_after=draw(st.booleans()),
        scaled=draw(rarely()),
    )


@st.composite
def sizes(draw: st.DrawFn, dims: int) -> tuple[int, ...]:
    low, high = {1: (32, 80), 2: (16, 34), 3: (8, 14)}[dims]
    usual = {1: 64, 2: 32, 3: 16}[dims]
    if draw(st.booleans()):
        return (usual,) * dims if dims < 3 else (16, 16, 16)
    return tuple(draw(st.integers(low, high)) for _ in range(dims))


@st.composite
def net_specs(draw: st.DrawFn) -> NetSpec:
    layers = draw(layer_specs())
    same = draw(st.booleans())  # most networks repeat one kind of block
    kind = draw(st.sampled_from(KINDS)) if same else None
    stages = draw(st.lists(stage_specs(kind), min_size=1, max_size=3))
    if len(stages) == 1 and draw(st.sampled_from((True, True, True, False))):
        stages = [replace(stages[0], depth=3)]  # one block alone has nothing to hand h on to
    return NetSpec(
        layers=layers,
        stages=tuple(stages),
        functional=draw(rarely()),
        size=draw(sizes(layers.dims)),
        stem=draw(st.sampled_from(("conv", "stride", "pool", "ceil", "patch", "valid"))),
        decoder=draw(st.sampled_from(("none",) * 12 + ENLARGING)),
        skips=draw(st.sampled_from(SKIPS)),
        head=draw(first_often(HEADS)),
        output=draw(first_often(OUTPUTS)),
        arguments=draw(first_often(ARGUMENTS)),
        dtype=draw(st.sampled_from(("float32", "float32", "float32", "float64"))),
        training=draw(st.booleans()),
        frozen=draw(rarely()),
        hooked=draw(rarely()),
        alias=draw(rarely()),
        give_example=draw(rarely()),
        refused=draw(st.sampled_from(("none",) * 45 + REFUSED)),
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def options(draw: st.DrawFn) -> dict[str, object]:
    chosen: dict[str, object] = {"k": draw(st.sampled_from((4, 8, 1, 3, 6)))}
    rest = {
        "cell": ("conv", "dwconv", "convlstm", "convgru"),
        "source": ("output", "branch", "input"),
        "update": ("pre", "split", "post"),
        "share": ("stage", "network", "none"),
        "inject": ("entry", "depthwise", "none"),
        "head": ("concat", "none"),
        "head_norm": ("auto", "yes", "no"),
        "head_act": ("auto", "relu", "relu6", "tanh", "none"),
        "initial_state": ("none", "zeros"),
        "norm": ("batch", "group", "layer", "instance", "none"),
        "kernel": (3, 1, 5),
    }
    for name, values in rest.items():
        value = draw(first_often(values))  # type: ignore[arg-type]
        if value != values[0]:
            chosen[name] = value
    if chosen.get("inject") == "none":
        chosen.pop("head", None)  # nothing would read h
    return chosen


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(net=draw(net_specs()), options=draw(options()))
