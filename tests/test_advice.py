"""Every call that a refusal tells to make is made on the network that was refused, and works."""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.advice import calls_told, computes_the_same, ends, quiet, rewritten
from tests.nets import Residual
from tests.refused import (
    IMAGE,
    NO_GRAPH,
    PART,
    Cut,
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
    grouped,
    inside,
    lazy,
    norm_by_hand,
    only_one,
    plain,
    two,
    with_forward,
)

EXAMPLE = ("example_input=x",)
ONE_INPUT = ("example_input=(x,)",)
IMAGES = list(IMAGE.repeat(2, 1, 1, 1)[:3])
TOKENS = torch.zeros(2, 7, dtype=torch.long)
CUT_INPUT = (torch.rand(2, 3, 8, 9), torch.tensor(8))
CUT = {"example_input": CUT_INPUT}
ONE = rlawrap.Block(path="1", entries=("1.conv1",), output="1")
ELSEWHERE = rlawrap.Plan.of("X", [[rlawrap.Block(path="9", entries=("9.c",), output="9")]])
ONE_PLAN = rlawrap.Plan.of("X", [[ONE]], head=("5",))
VERSIONED = rlawrap.RLAConfig(k=3).to_dict()
AT_BOTH = "rlawrap.apply(model, at='both', example_input=y)"


class Record(NamedTuple):
    image: Tensor
    label: Tensor


RECORD = Record(IMAGE, torch.zeros(2))
#: What the input should be, how many channels it has, or what calls read h.
INPUTS = [
    Row("one size", at_a_size, EXAMPLE, "none of the sizes tried", x=IMAGE),
    Row("two inputs", lambda: OfTwo(lambda n, x, y: n.body(x + y)), (*EXAMPLE, PART), "a tuple, "
        "or a dict by name, of x, y.", x=(IMAGE, IMAGE)),
    Row("by name", lambda: OfTwo(lambda n, x, y: n.body(x + y)), (*EXAMPLE, PART),
        x={"x": IMAGE, "y": IMAGE}),
    Row("made kernels", OfKernels, EXAMPLE, "holds no convolution", x=IMAGE,
        last="nothing reads h"),
    Row("no convolution", lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), EXAMPLE, x=IMAGE,
        last="no convolution of images lies"),
    Row("raises", lambda: OfOne(lambda n, x: n.body(x[:, :1]), plain(3, 4)), EXAMPLE,
        "sizes tried", x=IMAGE, last="does not run on example_input=; at input (2, 3, 12, 12)"),
    Row("one of two", lambda: OfTwo(lambda n, x, y: n.body(x + y)), (), "example_input= has no "
        "value for the input 'y'", {"example_input": IMAGE}),
    Row("no input", lambda: OfNone(lambda n: n.body(IMAGE)), (PART,), "takes no input"),
    Row("tokens in", OfTokens, (*EXAMPLE, PART), "module 'table' (Embedding)", x=TOKENS),
    Row("a dict of images", lambda: OfOne(lambda n, x: n.body(x["image"])), (*EXAMPLE, PART),
        "sizes tried", x={"x": {"image": IMAGE}}),
    Row("a list that is one input", lambda: OfOne(lambda n, x: n.body(torch.stack(x))), ONE_INPUT,
        "has 3 values, the network takes ['x']. If 'x' is this list", {"example_input": IMAGES},
        IMAGES, names={"x": IMAGES}),
    Row("a dict that is one input", lambda: OfOne(lambda n, x: n.body(x["image"])), ONE_INPUT,
        "no place for ['image']; the network takes ['x']. If 'x' is this dict",
        {"example_input": {"image": IMAGE}}, {"x": {"image": IMAGE}},
        names={"x": {"image": IMAGE}}),
    Row("a record that is one input", lambda: OfOne(lambda n, x: n.body(x.image)), ONE_INPUT,
        "has 2 values, the network takes ['x']. If 'x' is this Record",
        {"example_input": RECORD}, {"x": RECORD}, names={"x": RECORD}),
    Row("two for one", classifier, ONE_INPUT, "has 2 values", {"example_input": (IMAGE, IMAGE)},
        (IMAGE, IMAGE), last="does not run on example_input="),
    Row("no image", OfTokens, (PART,), "no tensor of (batch", {"example_input": TOKENS}, TOKENS),
    Row("lazy", lazy, ("model(x)",), "is lazy", names={"x": IMAGE}),
]  # fmt: skip
BLOCKS = [
    Row("one layer", lambda: plain(3, 4), (), "no activation follows its convolutions"),
    Row("layers", lambda: plain(3, 4, 4), ("blocks=['0', '1']",), "adds and concatenates nothing"),
    Row("many layers", lambda: nn.Sequential(*plain(3, *[4] * 9), nn.ReLU()),
        ("blocks=lambda path, module: type(module).__name__ == 'Conv2d'",), x=IMAGE),
    Row("generator", lambda: nn.Sequential(*[nn.ConvTranspose2d(3, 3, 2, 2)] * 2), (),
        "transposed ones, and h enters none"),
    Row("tokens", Tokens, (), "work on sequences of tokens, not on images"),
    Row("a part of pixels", lambda: OfOne(only_one), (PART,), "no convolution of images", x=IMAGE),
    Row("returns nothing", lambda: OfOne(lambda n, x: [n.body(x)][1:]), (PART,),
        "returns no tensor", x=IMAGE),
    Row("two views", lambda: OfOne(lambda n, x: [n.body(x)] * 1 + [n.body(x)] * n.training),
        (PART,), "calls body.1 2 times in training mode", x=IMAGE),
    Row("trained without", lambda: OfOne(lambda n, x: x if n.training else n.body(x)), (PART,),
        "blocks in eval mode alone", x=IMAGE),
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


class Proxy:
    """Says that it is the network inside."""

    def __init__(self) -> None:
        self.inside = classifier()

    @property
    def __class__(self) -> Any:
        return type(self.inside)


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
    Row("proxy", Proxy, (), "a Proxy, which stands for a Sequential"),
    Row("backbone", lambda: rlawrap.backbone(rlawrap.apply(classifier(), k=2)), (), "cut from"),
]  # fmt: skip


class Functional(nn.Module):
    """Residual steps of functions in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.one, self.two = (nn.Parameter(torch.randn(4, 4, 3, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + F.conv2d(x, self.one, padding=1).relu()
        return x + F.conv2d(x, self.two, padding=1).relu()


def strides(model: nn.Module, **arguments: Any) -> Any:
    return rlawrap.backbone(model, **arguments).feature_info.reduction()


FIXED = nn.Sequential(nn.Conv2d(3, 4, 1), Residual(4, 4), nn.AdaptiveAvgPool2d(4), Residual(4, 4))
MAPS = [
    Row("frozen behind the maps", lambda: rlawrap.apply(FIXED, k=2), ("frozen_stages=1",),
        "before the end of stage 1", {"out_indices": [0], "frozen_stages": 2},
        call=rlawrap.backbone),
    Row("no end of the stem", lambda: rlawrap.apply(Functional(), k=2), ("frozen_stages=1",),
        "written in the network's own forward", {"frozen_stages": 0}, call=rlawrap.backbone),
    Row("stages that are not there", lambda: rlawrap.apply(FIXED, k=2), ("out_indices=None",),
        "has 2 stages", {"out_indices": [2]}, call=rlawrap.backbone),
    Row("maps of one size", lambda: rlawrap.apply(FIXED, k=2), ("return_layers=['1']",),
        "have no stride", call=strides),
]  # fmt: skip
CLASSES = [
    Row("groups", lambda: rlawrap.apply(grouped(), k=2), ("model.reset_classifier(8)",),
        "'3' has 4 groups", {"num_classes": 7}, call=lambda model, num_classes:
        model.reset_classifier(num_classes)),
]  # fmt: skip
#: Modules inside, named by `at=`.
INSIDE = [
    Row("the whole", classifier, ("at=None",), "is the model itself", {"at": ""}, IMAGE),
    Row("no such path", two, (), "no such module. Paths near it: towers.a, towers",
        {"at": "tower.a"}),
    Row("no path", two, (), "give the path of a module, a list of paths", {"at": []}),
    Row("nested", lambda: inside(net=nn.Sequential(classifier(), nn.ReLU())),
        ("at=['net']", "at=['net.0']"), "'net' and net.0, which lies in it",
        {"at": ["net", "net.0"]}, IMAGE),
    Row("no forward", two, ("at='towers.*'",), "a ModuleDict has no forward", {"at": "towers"},
        IMAGE),
    Row("one plan for two", two, ("plan=rlawrap.inspect(model, at=['towers.a', 'towers.b'])",),
        "is one plan", {"at": "towers.*", "plan": ELSEWHERE}, IMAGE),
    Row("plans as dicts", two,
        ("plan={path: rlawrap.Plan.from_dict(own) for path, own in plan.items()}",), "of dicts",
        {"at": "towers.*", "plan": {"towers.a": ONE_PLAN.to_dict()}}, IMAGE),
    Row("another path", two, (), "Did you mean 'towers.a'?",
        {"at": "towers.*", "blocks": {"tower.a": "1"}}),
    Row("part further in",
        lambda: inside(net=OfOne(lambda n, x: n.body(x * 2 if x.sum() > 0 else x))),
        ("rlawrap.apply(model, at='net.body')",), "at='net': the forward of OfOne",
        {"at": "net"}, IMAGE),
    Row("inputs of two", lambda: inside(a=at_a_size(), b=classifier()),
        ("example_input={'a': x}",), "at='a': Sequential runs at none", {"at": ["a", "b"]}, IMAGE),
    Row("empty plan of two", lambda: inside(a=classifier(), b=classifier()),
        ("rlawrap.inspect(model, at=['a'])",), "at='a': the plan has no blocks",
        {"at": ["a", "b"], "plan": {"a": rlawrap.Plan.of("X", [])}}, IMAGE),
    Row("wrapped inside", lambda: inside(a=nn.DataParallel(classifier())),
        ("model.a = model.a.module",), "'a' is a DataParallel", {"at": "a"}, IMAGE),
    Row("wrapped around", lambda: nn.DataParallel(inside(a=classifier())),
        ("model = model.module",), "the model is a DataParallel", {"at": "a"}, IMAGE),
    Row("rewritten inside", lambda: inside(a=rlawrap.apply(classifier(), k=2)),
        ("model.a = rlawrap.unwrap(model.a)",), "'a' is a RLAModel", {"at": "a"}, IMAGE),
    Row("in a rewritten one", lambda: rlawrap.apply(nn.Sequential(classifier()), k=2),
        ("model = rlawrap.unwrap(model)",), "the model is a RLAModel", {"at": "0"}, IMAGE),
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
        {"plan": ONE_PLAN.to_dict()}, IMAGE),
    Row("plan and blocks", classifier, ("plan=None", "blocks=None, stages=None"), "not both",
        {"plan": ONE_PLAN, "blocks": Residual}, IMAGE),
    Row("unwrap", lambda: nn.DataParallel(rlawrap.apply(classifier(), k=2)),
        ("rlawrap.unwrap(model.module)",), "expected a model made by", call=rlawrap.unwrap),
    Row("unwrap a whole", lambda: nn.DataParallel(inside(a=rlawrap.apply(classifier(), k=2))),
        ("rlawrap.unwrap(model.module)",), "expected a model made by", call=rlawrap.unwrap),
    Row("backbone of a whole", lambda: inside(a=nn.Sequential(rlawrap.apply(classifier(), k=2))),
        ("rlawrap.backbone(model.a[0])",), "expected a model made by", call=rlawrap.backbone),
    Row("unwrap a base", classifier, (), "expected a model made by", call=rlawrap.unwrap),
    Row("no h", classifier, ("model = rlawrap.apply(model)",), "has no hidden state", x=IMAGE,
        call=rlawrap.rla_parameters),
    Row("a norm by hand", norm_by_hand, ("model = rlawrap.apply(rlawrap.unwrap(model), "
        "config=model.rla.config, leaf_modules=[type(model[3])])",), "the norm '3' (NormByHand)",
        x=IMAGE, call=rlawrap.freeze_base),
]  # fmt: skip
#: What only the example of the whole tells that a part takes.
GOT = [
    Row("by place", lambda: Cut(by_name=False), (AT_BOTH,), "a tensor's value", CUT, CUT_INPUT,
        names={"y": (IMAGE[..., :8, :8], torch.tensor(2.0))}),
    Row("by its name", lambda: Cut(by_name=True), (AT_BOTH,), "a tensor's value", CUT, CUT_INPUT,
        names={"y": {"image": IMAGE[..., :8, :8], "scale": torch.tensor(2.0)}}),
]  # fmt: skip
ALL = (GOT, NO_GRAPH, INPUTS, BLOCKS, WRAPPED, MAPS, CLASSES, INSIDE, OPTIONS)
ROWS = {row.name: row for rows in ALL for row in rows}


@functools.cache
def refusal(name: str) -> rlawrap.RLAError:
    row = ROWS[name]
    with pytest.raises(rlawrap.RLAError) as caught, quiet():
        row.call(row.make(), **row.arguments)
    return caught.value


def test_the_rows_have_names_of_their_own() -> None:
    assert len(ROWS) == sum(map(len, ALL))


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
