"""`freeze_base`: what learns and what stays, through everything that a model goes through."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rlawrap
from tests.nets import BlockNet, Residual, Small, family, random_rla, uneven
from tests.refused import norm_by_hand

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def rewritten(base: nn.Module | None = None, **options: Any) -> rlawrap.RLAModel:
    return random_rla(rlawrap.apply(base or uneven(BlockNet()), k=4, **options))  # type: ignore


def moved(model: nn.Module, x: Tensor = X) -> set[str]:
    """Names in the state dict that two steps of training change."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    model.train()
    for _ in range(2):
        out = model(x)
        values = [v for v in torch.utils._pytree.tree_leaves(out) if isinstance(v, Tensor)]
        sum(v.float().square().mean() for v in values).backward()
        optimizer.step()
    assert all(p.grad is not None for p in rlawrap.rla_parameters(model))
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


def of_h(model: nn.Module) -> set[str]:
    return {name for name in model.state_dict() if name.startswith("rla.")}


@pytest.mark.parametrize("name", ["block_net", "small_googlenet"])
def test_nothing_of_the_base_moves_and_all_of_h_does(name: str) -> None:
    base, x = family(name)
    model = rewritten(base)
    keys = list(model.state_dict())
    assert rlawrap.freeze_base(model) is model
    assert moved(model, x) == of_h(model)
    assert list(model.state_dict()) == keys
    assert moved(rlawrap.unfreeze_base(model), x) >= {n for n, _ in model.named_buffers()}


def test_norms_compute_with_their_running_statistics_and_dropout_drops() -> None:
    model = rlawrap.freeze_base(rewritten())
    with rlawrap.disabled(model):
        assert not torch.equal(model.train()(X), model.eval()(X))
        model.drop.p = 0.0
        assert torch.equal(model.train()(X), model.eval()(X))
    assert not torch.equal(model.train()(X), model.eval()(X))  # the norms of h follow the mode
    assert model.train().drop.training and model.rla.head.norm.training


def checkpointed(model: rlawrap.RLAModel) -> nn.Module:
    model.set_grad_checkpointing()
    return model


def loaded(model: rlawrap.RLAModel) -> nn.Module:
    fresh = rlawrap.freeze_base(rlawrap.apply(BlockNet(), k=4))
    fresh.load_state_dict(model.state_dict())
    return fresh


WAYS: dict[str, Callable[[Any], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "a copy of a copy": lambda model: copy.deepcopy(copy.copy(model)),
    "pickle": lambda model: pickle.loads(pickle.dumps(model.eval())),
    "modes": lambda model: model.eval().train().requires_grad_(),
    "state dict": loaded,
    "backbone": lambda model: copy.deepcopy(rlawrap.backbone(model)),
    "checkpointing": checkpointed,
    "sync": nn.SyncBatchNorm.convert_sync_batchnorm,
}


@pytest.mark.parametrize("way", WAYS)
def test_it_survives(way: str) -> None:
    model = WAYS[way](rlawrap.freeze_base(rewritten()))
    if way == "modes":  # what requires gradients is the user's to say; the norms stay still
        names = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        still = {name for name in names if not model.get_submodule(name).training}
        assert still == {name for name in names if not name.startswith("rla.")}
        return
    if way == "sync":  # which computes on GPUs alone
        norms = [m for m in model.train().body.modules() if isinstance(m, nn.SyncBatchNorm)]
        assert norms and not any(m.training or m.weight.requires_grad for m in norms)
        return
    assert moved(model) == of_h(model)
    assert all(p.requires_grad for p in rlawrap.unfreeze_base(model).parameters())


def test_it_survives_compilation() -> None:
    model = rlawrap.freeze_base(rewritten(Small(Residual(8, 8), Residual(8, 8))))
    y = copy.deepcopy(model).train()(X)
    torch._dynamo.reset()
    compiled = torch.compile(model.train(), fullgraph=True, backend="eager")
    before = {name: value.clone() for name, value in model.named_buffers()}
    torch.testing.assert_close(compiled(X), y)
    after = dict(model.named_buffers())
    assert {n for n in after if not after[n].equal(before[n])} == of_h(model) & after.keys()
    rlawrap.unfreeze_base(compiled)
    assert model.body[0].bn1.training


def test_unwrap_gives_the_base_as_it_was() -> None:
    base = uneven(BlockNet())
    base.stem.requires_grad_(False)
    model = rlawrap.freeze_base(rewritten(base).train())
    bare = rlawrap.unwrap(model)
    assert [p.requires_grad for p in bare.parameters()] == [False] * 2 + [True] * 23
    assert all(m.training for m in bare.modules())
    assert not any(m.training for n, m in model.named_modules() if n.endswith(".bn1"))
    thawed = dict(rlawrap.unfreeze_base(model).named_parameters())
    assert {n for n, p in thawed.items() if not p.requires_grad} == {"stem.weight", "stem.bias"}
    assert all(m.training for m in model.modules())


class NormedHead(BlockNet):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 5))


@pytest.mark.parametrize(
    ("head", "learns"),
    [
        (False, set()),
        (True, {"fc.1.weight", "fc.1.bias"}),
        ("fc", {f"fc.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")}),
        (["stem", "fc.1"], {"stem.weight", "stem.bias", "fc.1.weight", "fc.1.bias"}),
    ],
)
def test_parts_of_the_base_learn_on_when_they_are_named(head: Any, learns: set[str]) -> None:
    model = rewritten(NormedHead())
    rlawrap.freeze_base(model, head="stem")
    rlawrap.freeze_base(model, head=head)  # the last call counts
    names = {n for n, p in model.named_parameters() if p.requires_grad and not n.startswith("rla.")}
    assert names == learns
    assert model.train().fc[0].training is (head == "fc") and not model.body[0].bn1.training


def test_a_classifier_that_is_made_later_learns() -> None:
    model = rlawrap.freeze_base(rewritten())
    model.reset_classifier(3)
    assert {n for n in moved(model) if not n.startswith("rla.")} == {"fc.weight", "fc.bias"}

    class Own(BlockNet):
        def reset_classifier(self, num_classes: int) -> None:
            self.fc = nn.Linear(16, num_classes)

    other = rlawrap.freeze_base(rewritten(Own()))
    other.reset_classifier(3)
    assert {n for n in moved(other) if not n.startswith("rla.")} == {"fc.weight", "fc.bias"}
    rlawrap.freeze_base(other)
    assert moved(other) == of_h(other)


def test_what_cannot_be_left_to_learn_is_told_and_nothing_changes() -> None:
    model = rewritten()
    wrong = {"stm": "Near it: stem", "zzz": "It has stem, body, drop, fc", 3: "paths of modules"}
    for head, told in wrong.items():
        with pytest.raises(rlawrap.ConfigError, match=told):
            rlawrap.freeze_base(model, head=head)  # type: ignore[arg-type]
    with pytest.raises(rlawrap.ConfigError, match="makes an output"):
        rlawrap.freeze_base(rlawrap.backbone(model), head=True)
    for call in (rlawrap.freeze_base, rlawrap.unfreeze_base):
        with pytest.raises(rlawrap.PlanError, match="BlockNet has no hidden state"):
            call(BlockNet())
        with pytest.raises(rlawrap.PlanError, match=r"expected a torch\.nn\.Module, got int"):
            call(3)  # type: ignore[type-var]
    assert all(p.requires_grad for p in model.parameters()) and model.train().body[0].bn1.training


class ByFunction(nn.Module):
    """A norm that no class of torch's is."""

    def __init__(self, name: str = "running_mean") -> None:
        super().__init__()
        self.name = name
        self.register_buffer(name, torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, getattr(self, self.name), self.var, training=self.training)


class Elsewhere(ByFunction):
    """Holds the statistics of a norm that another module computes."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = Elsewhere()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        mean, var = self.norm.running_mean, self.norm.var
        return x + torch.batch_norm(y, None, None, mean, var, self.training, 0.1, 1e-5, False)


def test_norms_by_function_are_kept_still_or_refused() -> None:
    model = rlawrap.freeze_base(rewritten(Small(Residual(8, 8), ByFunction(), Residual(8, 8))))
    assert moved(model) == of_h(model)
    for part, told in ((ByFunction("m"), r"'body\.1'"), (Fused(), r"'body\.1\.norm'")):
        model = rewritten(Small(Residual(8, 8), part, Residual(8, 8)))
        with pytest.raises(rlawrap.PlanError, match=told + " normalises with statistics"):
            rlawrap.freeze_base(model)
        assert all(p.requires_grad for p in model.parameters())
        assert rlawrap.freeze_base(model, head="body.1").rla.splice.frozen is not None


def test_a_norm_that_was_traced_in_train_mode_is_refused_and_kept_whole_frozen() -> None:
    model = norm_by_hand()
    with pytest.raises(rlawrap.PlanError, match=r"its statistics would go on moving"):
        rlawrap.freeze_base(model)
    kind = type(model[3])
    whole = random_rla(rlawrap.apply(rlawrap.unwrap(model), k=2, leaf_modules=[kind]))
    assert moved(rlawrap.freeze_base(whole)) == of_h(whole)


@pytest.mark.parametrize(
    "norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm], ids=["hook", "own"]
)
def test_the_estimates_of_spectral_norms_stay(norm: Callable[[nn.Module], nn.Module]) -> None:
    base = BlockNet()
    for block in base.body:
        norm(block.conv1)
    model = rlawrap.freeze_base(rewritten(uneven(base)))
    assert moved(model) == of_h(model)
    assert moved(rlawrap.unfreeze_base(model)) >= {n for n, _ in model.named_buffers()}


class PartlyFrozen(BlockNet):
    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self.body[0].eval()
        return self


def test_what_the_bases_own_train_keeps_still_stays_so() -> None:
    model = rlawrap.freeze_base(rewritten(PartlyFrozen().train()))
    assert not model.train().body[1].bn1.training and model.body[1].training
    rlawrap.unfreeze_base(model)
    assert model.body[1].bn1.training and not model.body[0].bn1.training
    assert not rlawrap.unwrap(rlawrap.freeze_base(model)).body[0].bn1.training


class Detector(nn.Module):
    """Holds a rewritten network, beside an `rla` that is none of ours."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rla, self.norm = body, nn.Linear(5, 2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.rla(self.backbone(x)))


def test_of_a_model_around_it_only_the_base_is_frozen() -> None:
    detector = Detector(rewritten())
    rlawrap.freeze_base(detector)
    around = {n for n in detector.state_dict() if not n.startswith("backbone.")}
    inside = {f"backbone.{n}" for n in of_h(detector.backbone)}
    assert moved(detector) == around | inside
    twin = copy.deepcopy(detector)
    assert moved(twin) == around | inside
    assert all(p.requires_grad for p in rlawrap.unfreeze_base(detector).parameters())


def test_shared_weights_follow_the_part_that_learns() -> None:
    base = BlockNet()
    base.body[2].conv1.weight = base.body[2].conv2.weight
    model = rlawrap.freeze_base(rewritten(base), head="body.2.conv2")
    assert model.body[2].conv1.weight.requires_grad and not model.body[0].conv1.weight.requires_grad


def test_the_repr_counts_what_learns() -> None:
    model = rlawrap.freeze_base(rewritten())
    learning = sum(value.numel() for value in rlawrap.rla_parameters(model))
    assert f"h: k=4, cell=conv, blocks=3, trainable {learning:,} of 11,433" in repr(model)
    model.fc.requires_grad_(True)
    assert f"trainable {learning + 16 * 5 + 5:,} of 11,433" in repr(model)
