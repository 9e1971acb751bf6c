"""The rewritten network is the user's network: its class, attributes, methods and copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import rlawrap
from tests.nets import BlockNet, Residual, family, random_rla, relative, uneven

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def rewritten(base: nn.Module, **options: Any) -> rlawrap.RLAModel:
    return random_rla(rlawrap.apply(base, k=4, **options))  # type: ignore[return-value]


class Registered(BlockNet):
    """A base that keeps a registry of its subclasses and asks them for an argument."""

    known: list[str] = []  # noqa: RUF012

    def __init_subclass__(cls, *, label: str, **settings: Any) -> None:
        cls.known.append(label)


class LightningLike(BlockNet):
    """A module with hyper-parameters, steps and an optimiser of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hparams = {"lr": 0.1}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"])


class WithState(BlockNet):
    """A base that says itself what is copied and pickled of it."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = {"big": 1}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cache": {}}


def test_it_is_an_instance_of_its_base_and_prints_as_a_module_tree() -> None:
    base = BlockNet().eval()
    model = rewritten(base)
    assert isinstance(model, BlockNet) and isinstance(model, rlawrap.RLAModel)
    assert type(model).__name__ == "RLABlockNet"
    lines = repr(model).splitlines()
    assert lines[:2] == [
        "RLABlockNet(",
        "  h: k=4, cell=conv, blocks=3, trainable 11,433 of 11,433",
    ]
    children = [line for line in lines if line.startswith("  (")]
    assert [line[3:].split(")")[0] for line in children] == [*dict(base.named_children()), "rla"]
    with pytest.raises(AttributeError, match="'RLABlockNet' object has no attribute 'nothing'"):
        model.nothing  # noqa: B018


def test_copies_share_the_class_and_models_do_not() -> None:
    model = rewritten(BlockNet())
    assert type(copy.deepcopy(model)) is type(copy.copy(model)) is type(model)
    assert type(rewritten(BlockNet())) is not type(model)
    assert type(rlawrap.unwrap(model)) is BlockNet


def test_a_registry_of_subclasses_is_not_asked() -> None:
    Registered.known.clear()
    model = rewritten(Registered())
    assert isinstance(model, Registered) and Registered.known == []


def test_attributes_and_methods_of_the_base_live() -> None:
    base = LightningLike()
    model = rewritten(base)
    assert model.hparams == {"lr": 0.1} and model.hparams is not base.hparams
    optimiser = model.configure_optimizers()
    before = model.rla.cell["0"]["conv"].weight.clone()
    model.training_step((X, torch.tensor([0, 1]))).backward()
    optimiser.step()
    assert not torch.equal(before, model.rla.cell["0"]["conv"].weight)
    model.note = "kept"
    assert copy.deepcopy(model).note == "kept" and pickle.loads(pickle.dumps(model)).note == "kept"
    assert rlawrap.unwrap(model).note == "kept"


def test_a_detector_takes_it_as_its_backbone() -> None:
    base = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    model = rewritten(base)
    assert model.out_channels == 256
    anchors = AnchorGenerator(((32,),) * 5, ((1.0,),) * 5)
    sizes = {"rpn_anchor_generator": anchors, "min_size": 64, "max_size": 64}
    for part in (base, model):
        torch.manual_seed(0)
        detector = FasterRCNN(part, 3, **sizes)
        target = [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}]
        losses = detector.train()([torch.rand(3, 64, 64)], target)
        sum(losses.values()).backward()
        assert set(detector.eval()([torch.rand(3, 64, 64)])[0]) == {"boxes", "labels", "scores"}
    assert all(p.grad is not None for p in model.rla.parameters())


def test_a_graph_module_is_a_base() -> None:
    base = fx.symbolic_trace(uneven(BlockNet()).eval())
    if Version(torch.__version__) < Version("2.14"):  # which pickles no annotation that is text
        for node in base.graph.nodes:
            node.type = None
    model = rewritten(base)
    y = model(X)
    assert isinstance(model, fx.GraphModule) and relative(base(X), y) > 1e-4
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert torch.equal(twin(X), y)
    bare = rlawrap.unwrap(model)
    assert torch.equal(bare(X), base(X)) and len(bare.graph.nodes) == len(base.graph.nodes)
    assert len(model.graph.nodes) > len(base.graph.nodes)
    with pytest.raises(rlawrap.PlanError, match="not edited by hand"):
        model.recompile()
    with rlawrap.disabled(model):
        assert torch.equal(model(X), base(X))


def test_parametrized_layers_and_roots() -> None:
    base = uneven(BlockNet()).eval()
    parametrizations.weight_norm(base.stem)
    parametrizations.spectral_norm(base.fc)
    model = rewritten(base)
    assert relative(base(X), rlawrap.apply(base, k=4)(X)) < 1e-6
    y = model(X)
    assert torch.equal(copy.deepcopy(model)(X), y)
    bare = rlawrap.unwrap(model)
    assert torch.equal(bare(X), base(X)) and list(bare.state_dict()) == list(base.state_dict())
    model.train()(X).sum().backward()
    assert model.stem.parametrizations.weight.original1.grad is not None


def test_a_base_that_copies_itself_is_asked_to() -> None:
    base = WithState()
    model = rewritten(base)
    model.cache["big"] = 2
    twin = copy.deepcopy(model)
    assert isinstance(twin, WithState) and twin.cache == {} and model.cache == {"big": 2}
    assert torch.equal(twin.eval()(X), model.eval()(X))
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))
    assert rlawrap.unwrap(twin).cache == {}


def test_compiled_in_place_and_copied() -> None:
    model = rewritten(uneven(BlockNet()).eval())
    y = model(X)
    torch._dynamo.reset()
    model.compile(backend="aot_eager", fullgraph=True)
    assert relative(y, model(X)) < 1e-6
    for twin in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert twin._compiled_call_impl is None and torch.equal(twin(X), y)


def test_a_shallow_copy_is_disabled_alone() -> None:
    base = uneven(BlockNet()).eval()
    model = rewritten(base)
    twin = copy.copy(model)
    with rlawrap.disabled(twin):
        assert torch.equal(twin(X), base(X))
        assert relative(base(X), model(X)) > 1e-4
    assert torch.equal(twin(X), model(X))


def test_lines_of_the_generated_code_stand_in_tracebacks() -> None:
    model = rewritten(BlockNet())
    with pytest.raises(RuntimeError) as raised:
        model(torch.randn(1, 4, 16, 16))
    lines = [str(entry.statement).strip() for entry in raised.traceback]
    assert any("self.stem(x)" in line for line in lines)


class TestContainersAsRoots:
    def base(self) -> nn.Sequential:
        layers = [nn.Conv2d(3, 8, 3, padding=1), Residual(8, 8), Residual(8, 8)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def test_reading_sees_the_children_of_the_base(self) -> None:
        base = self.base().eval()
        model = rewritten(base)
        assert isinstance(model, nn.Sequential) and len(model) == 6
        assert [type(m) for m in model] == [type(m) for m in base]
        assert model[-1].out_features == 5 and len(model[1:3]) == 2
        assert [n for n, _ in model.named_children()][-1] == "rla"
        with rlawrap.disabled(model):
            assert torch.equal(model(X), base(X))
        for twin in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
            assert len(twin) == 6 and torch.equal(twin(X), model(X))

    def test_a_layer_can_be_put_in_place_of_another(self) -> None:
        model = rewritten(self.base())
        model[-1] = nn.Linear(8, 5)
        assert model._modules["5"] is model[-1] and "rla" in model._modules

    @pytest.mark.parametrize("change", ["append", "extend", "insert", "pop", "del"])
    def test_its_length_is_fixed(self, change: str) -> None:
        model = rewritten(self.base())
        arguments = {"append": (nn.ReLU(),), "extend": ([nn.ReLU()],), "insert": (0, nn.ReLU())}
        with pytest.raises(rlawrap.PlanError, match="layers of a rewritten network are fixed"):
            if change == "del":
                del model[0]
            else:
                getattr(model, change)(*arguments.get(change, (0,)))
        assert len(model) == 6


def test_reset_classifier_of_timm_takes_zero_and_a_pool() -> None:
    timm = pytest.importorskip("timm")
    base = timm.create_model("test_resnet").eval()
    model = rewritten(base)
    cell = model.rla.cell["0"]["conv"]
    kept = [n for n, _ in model.named_parameters() if n.startswith(("layer", "rla.inject"))]
    parameters = {n: p for n, p in model.named_parameters() if n in kept}
    model.reset_classifier(0)
    assert model(X).shape == (2, base.num_features) and "head" not in model.rla._modules
    model.reset_classifier(7, "max")
    assert model(X).shape == (2, 7) and model.num_classes == 7
    expected = base.forward_features(X).amax((2, 3))
    with rlawrap.disabled(model):
        assert torch.equal(model(X), model.fc(expected))
        assert torch.equal(copy.deepcopy(model)(X), model(X))
    now = dict(model.named_parameters())
    assert model.rla.cell["0"]["conv"] is cell
    assert all(now[name] is p for name, p in parameters.items())
    assert model.rla.head.join["0"].linear.weight.shape[0] == 7


def test_features_of_a_torchvision_network() -> None:
    base, x = family("resnet18")
    model = rewritten(base.eval())
    model.reset_classifier(0)
    assert model(x).shape == (2, 512)
    with rlawrap.disabled(model):
        assert torch.equal(model(x), nn.Sequential(*list(base.children())[:-1])(x).flatten(1))


def test_a_failed_reset_changes_nothing() -> None:
    timm = pytest.importorskip("timm")
    model = rewritten(timm.create_model("test_resnet").eval())
    before = model(X)
    with pytest.raises((AssertionError, ValueError)):
        model.reset_classifier(3, "no such pool")
    assert torch.equal(model(X), before) and model.num_classes == 1000
