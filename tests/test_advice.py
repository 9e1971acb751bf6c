"""Every call that a refusal tells to make is made on the network that was refused, and works."""

from __future__ import annotations

import functools
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import rlawrap
from tests.advice import calls_told, computes_the_same, ends, quiet, rewritten
from tests.nets import Residual
from tests.refused import (
    IMAGE,
    NO_GRAPH,
    PART,
    OfKernels,
    OfNone,
    OfOne,
    OfTokens,
    OfTwo,
    Row,
    Tokens,
    at_a_size,
    classifier,
    compiled,
    features,
    forward,
    inside,
    lazy,
    only_one,
    plain,
    with_forward,
)

EXAMPLE = ("example_input=x",)
TOKENS = torch.zeros(2, 7, dtype=torch.long)
ONE = rlawrap.Block(path="1", entries=("1.conv1",), output="1")
ELSEWHERE = rlawrap.Plan.of("X", [[rlawrap.Block(path="9", entries=("9.c",), output="9")]])
VERSIONED = rlawrap.RLAConfig(k=3).to_dict()

#: What the input should be, how many channels it has, or what calls read h.
INPUTS = [
    Row("one size", at_a_size, EXAMPLE, "none of the sizes tried", x=IMAGE),
    Row("two inputs", lambda: OfTwo(lambda n, x, y: n.body(x + y)), EXAMPLE, "a tuple, or a dict "
        "by name, of x, y.", x=(IMAGE, IMAGE)),
    Row("by name", lambda: OfTwo(lambda n, x, y: n.body(x + y)), EXAMPLE,
        x={"x": IMAGE, "y": IMAGE}),
    Row("made kernels", OfKernels, EXAMPLE, "holds no convolution", x=IMAGE,
        last="nothing reads h"),
    Row("no convolution", lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), EXAMPLE, x=IMAGE,
        last="no convolution of images lies"),
    Row("raises", lambda: OfOne(lambda n, x: n.body(x[:, :1])), EXAMPLE, "sizes tried", x=IMAGE,
        last="does not run on example_input=; at input (2, 3, 12, 12)"),
    Row("one of two", lambda: OfTwo(lambda n, x, y: n.body(x + y)), (), "example_input= has no "
        "value for the input 'y'", {"example_input": IMAGE}),
    Row("no input", lambda: OfNone(lambda n: n.body(IMAGE)), (), "takes no input"),
    Row("tokens in", OfTokens, EXAMPLE, "module 'table' (Embedding)", x=TOKENS),
    Row("no image", OfTokens, (PART,), "no tensor of (batch", {"example_input": TOKENS}, TOKENS),
    Row("lazy", lazy, ("model(x)",), "is lazy", names={"x": IMAGE}),
]  # fmt: skip
BLOCKS = [
    Row("one layer", lambda: plain(3, 4), (), "no activation follows its convolutions"),
    Row("layers", lambda: plain(3, 4, 4), ("blocks=['0', '1']",), "adds and concatenates nothing"),
    Row("many layers", lambda: nn.Sequential(*plain(3, *[4] * 9), nn.ReLU()),
        ("blocks=lambda path, module: type(module).__name__ == 'Conv2d'",), x=IMAGE),
    Row("tokens", Tokens, (), "work on sequences of tokens, not on images"),
    Row("a part of pixels", lambda: OfOne(only_one), (PART,), "no convolution of images", x=IMAGE),
    Row("returns nothing", lambda: OfOne(lambda n, x: [n.body(x)][1:]), (PART,),
        "returns no tensor", x=IMAGE),
    Row("no image chosen", classifier, ("blocks=None",), "none returns an image",
        {"blocks": "5"}, IMAGE),
    Row("last chosen", features, ("blocks=None",), "nothing reads h", {"blocks": "2"}, IMAGE),
    Row("one chosen", lambda: plain(3, 4, 4), ("blocks=['0', '1']",), "nothing reads h",
        {"blocks": "1"}, IMAGE),
    Row("only one", lambda: plain(3, 4), (), "nothing reads h", {"blocks": "0"}),
    Row("reference", classifier, ("print(rlawrap.inspect(model))",), "'9'", {"plan": ELSEWHERE}),
    Row("empty plan", classifier, ("rlawrap.inspect(model)",), "the plan has no blocks",
        {"plan": rlawrap.Plan.of("X", [])}, IMAGE),
]  # fmt: skip
WRAPPED = [
    Row("in parallel", lambda: nn.DataParallel(classifier()), ("model = model.module",),
        x=IMAGE),
    Row("part in parallel", lambda: inside(a=nn.DataParallel(nn.Identity())),
        ("model.a = model.a.module",), x=IMAGE),
    Row("compiled", compiled, ("model = model._orig_mod",)),
    Row("rewritten", lambda: rlawrap.apply(classifier(), k=2), ("model = rlawrap.unwrap(model)",),
        x=IMAGE),
    Row("part rewritten", lambda: nn.Sequential(rlawrap.apply(classifier(), k=2)),
        ("model[0] = rlawrap.unwrap(model[0])",), x=IMAGE),
    Row("part of a name", lambda: inside(a=nn.ModuleDict({"b-1": nn.DataParallel(nn.ReLU())})),
        ("model.a['b-1'] = model.a['b-1'].module",), x=IMAGE),
    Row("forward of its own", with_forward, ("model.forward = types.MethodType(forward, model)",),
        "set on the instance", names={"types": types, "forward": forward}),
    Row("backbone", lambda: rlawrap.backbone(rlawrap.apply(classifier(), k=2)), (), "cut from"),
]  # fmt: skip
NOTHING = {"inject": "none", "head": "none"}
OPTIONS = [
    Row("inject", classifier, ("inject='entry'",), "nothing reads the", NOTHING, IMAGE),
    Row("head", lambda: nn.Sequential(*classifier()[:2], *classifier()[3:]), ("head='concat'",),
        "nothing reads the", {"head": "none", "blocks": "1"}, IMAGE),
    Row("both", lambda: nn.Sequential(*classifier()[:2], *classifier()[3:]), ("head='concat'",),
        "nothing reads the", {**NOTHING, "blocks": "1"}, IMAGE),
    Row("choice", classifier, ("source='output'",), "choose one", {"source": "outpt"}, IMAGE),
    Row("cell", classifier, ("cell='conv'",), "no such cell", {"cell": "conw"}, IMAGE),
    Row("dict", classifier, ("config=rlawrap.RLAConfig(**config)",), "", {"config": {"k": 2}}),
    Row("versioned", classifier, ("config=rlawrap.RLAConfig.from_dict(config)",), "",
        {"config": VERSIONED}),
    Row("variant", classifier, ("config=rlawrap.variant(config)",), "", {"config": "rlav2"}),
    Row("plan", classifier, ("plan=rlawrap.Plan.from_dict(plan)",), "",
        {"plan": rlawrap.Plan.of("X", [[ONE]], head=("5",)).to_dict()}, IMAGE),
    Row("plan and blocks", classifier, ("plan=None", "blocks=None, stages=None"), "not both",
        {"plan": rlawrap.Plan.of("X", [[ONE]], head=("5",)), "blocks": Residual}, IMAGE),
    Row("unwrap", lambda: nn.DataParallel(rlawrap.apply(classifier(), k=2)),
        ("rlawrap.unwrap(model.module)",), "expected a model made by", call=rlawrap.unwrap),
    Row("unwrap a base", classifier, (), "expected a model made by", call=rlawrap.unwrap),
]  # fmt: skip
ROWS = {row.name: row for row in [*NO_GRAPH, *INPUTS, *BLOCKS, *WRAPPED, *OPTIONS]}


@functools.cache
def refusal(name: str) -> rlawrap.RLAError:
    row = ROWS[name]
    with pytest.raises(rlawrap.RLAError) as caught, quiet():
        row.call(row.make(), **row.arguments)
    return caught.value


def test_the_rows_have_names_of_their_own() -> None:
    assert len(ROWS) == sum(map(len, (NO_GRAPH, INPUTS, BLOCKS, WRAPPED, OPTIONS)))


@pytest.mark.parametrize("name", ROWS)
def test_the_advice_works(name: str) -> None:
    row, error = ROWS[name], refusal(name)
    assert calls_told(error) == list(row.told)
    assert row.says in str(error)
    if not row.told:
        return
    base = row.make()
    came_to = ends(base, row.arguments, {"x": row.x, **row.names}, row.call)
    for end in came_to:
        if isinstance(end, rlawrap.RLAError):
            assert row.last and row.last in str(end)
        elif rewritten(end) and row.x is not None:
            assert computes_the_same(base, end, row.x)
        elif row.call is rlawrap.apply:
            assert row.x is None and (rewritten(end) or end in row.told)
    assert came_to and (not row.last or len(came_to) == 1)


def test_a_file_of_a_network_without_a_name(tmp_path: Path) -> None:
    base = classifier()
    path = rlawrap.save(rlawrap.apply(base, k=2), tmp_path / "a.safetensors")
    for name, told in ((path.name, "base=model"), ("b", "safetensors.torch.load_file(path)")):
        path = tmp_path / name
        if name == "b":
            safetensors.torch.save_file({"x": torch.zeros(1)}, path)
        with pytest.raises(rlawrap.CheckpointError) as caught:
            rlawrap.load(path)
        assert calls_told(caught.value) == [told]
        names = {"path": path}
        (end,) = ends(base, {}, names, lambda model, path=path, **a: rlawrap.load(path, **a))
        assert rewritten(end) if name != "b" else list(end) == ["x"]
