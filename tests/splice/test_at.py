"""`apply(model, at=...)`: a copy of the whole model in which modules inside are rewritten."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.splice.inside import added_in, rewritten_in
from tests.advice import calls_told
from tests.nets import random_rla
from tests.refused import classifier

X = torch.rand(2, 3, 12, 12)


class Towers(nn.Module):
    """Two towers for images and a table for words; a weight of one tower is the table's too."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({"a": classifier()})
        self.towers["b"] = self.towers["a"] if shared else classifier()
        self.aux = classifier()
        self.words = nn.Linear(4, 2)
        self.words.weight = self.towers["a"][5].weight
        self.kept: Any = [self.towers["a"]]
        self.scale = 2.0

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if x.sum() < 0:  # a value decides
            return {}
        a, b = self.towers["a"](x), self.kept[0](y)
        return {"sum": self.scale * (a + self.towers["b"](y)), "words": self.words(b.new_ones(4))}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self(*batch)["sum"].square().mean()


def same(a: nn.Module, b: nn.Module, mode: bool = False) -> bool:
    outputs = [copy.deepcopy(m).train(mode)(X, X + 0.1) for m in (a, b)]
    return all(torch.equal(outputs[0][k], outputs[1][k]) for k in outputs[0])


def randomised(model: nn.Module) -> Any:
    """h is no longer zero, in any of the rewritten networks."""
    for part in rewritten_in(model).values():
        random_rla(part)
    return model


def test_the_whole_model_is_copied_and_stays_what_it_is() -> None:
    base = Towers()
    calls: list[str] = []
    base.register_forward_hook(lambda *call: calls.append("whole"))
    base.towers["a"].register_forward_hook(lambda *call: calls.append("tower"))
    state, keys = copy.deepcopy(base.state_dict()), list(base.state_dict())
    model: Any = rlawrap.apply(base, k=3, at="towers.a")
    assert type(model) is Towers and model.scale == 2.0
    assert type(model.towers["a"]).__name__ == "RLASequential"
    assert [b.path for b in model.towers["a"].plan.blocks] == ["1", "2"]
    assert not isinstance(model.towers["b"], rlawrap.RLAModel)
    assert same(base, model) and same(base, model, mode=True)
    calls.clear()
    assert model.training_step((X, X)) > 0
    assert calls == ["tower", "tower", "whole"]
    assert [k for k in model.state_dict() if not added_in(model)(k)] == keys
    assert not any(isinstance(m, rlawrap.RLAModel) for m in base.modules())
    assert all(torch.equal(value, state[key]) for key, value in base.state_dict().items())


def test_what_refers_to_a_module_refers_to_the_rewritten_one() -> None:
    model: Any = randomised(rlawrap.apply(Towers(), k=3, at="towers.a"))
    for net in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert net.kept[0] is net.towers["a"]
        assert net.words.weight is net.towers["a"][5].weight
        assert same(net, model)
    shared: Any = rlawrap.apply(Towers(shared=True), k=3, at="towers.*")
    assert shared.towers["a"] is shared.towers["b"]
    assert isinstance(shared.towers["b"], rlawrap.RLAModel)


def test_several_modules_by_list_and_by_glob() -> None:
    base = Towers()
    by_list: Any = rlawrap.apply(base, k=3, at=["towers.b", "aux"], init="paper")
    rewritten = [path for path, m in by_list.named_modules() if isinstance(m, rlawrap.RLAModel)]
    assert rewritten == ["towers.b", "aux"]
    first, second = (m.rla.input["0_4"].weight for m in (by_list.towers["b"], by_list.aux))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    twice = [rlawrap.apply(base, k=3, at="towers.*", init="paper") for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert same(*twice) and not same(twice[0], base)


def test_options_by_path() -> None:
    base = Towers()
    plans = rlawrap.inspect(base, at="towers.*", blocks={"towers.b": ["0", "1", "2"]})
    assert {path: [b.path for b in plan.blocks] for path, plan in plans.items()} == {
        "towers.a": ["1", "2"],
        "towers.b": ["0", "1", "2"],
    }
    assert str(plans).startswith("towers.a: Sequential at 3x") and "\n\ntowers.b: " in str(plans)
    model: Any = rlawrap.apply(base, k=3, at="towers.*", plan=plans)
    assert [len(model.towers[n].plan.blocks) for n in "ab"] == [2, 3]
    example = {"towers.a": X, "towers.b": X[:, :, :9]}
    sizes = rlawrap.inspect(base, at=["towers.a", "towers.b"], example_input=example)
    assert [plan.input_shape[2:] for plan in sizes.values()] == [(12, 12), (9, 12)]
    one = rlawrap.inspect(base, at="aux", example_input={"input": X}, leaf_modules=["1"])
    assert [b.entries for b in one.blocks] == [(), ("2.conv1",)]
    assert one.input_shape == (2, 3, 12, 12)
    given: Any = rlawrap.apply(base, k=3, at="aux", plan=one, leaf_modules=["1"])
    assert given.aux.plan.digest == one.digest


def test_another_part_of_a_model_with_a_rewritten_one() -> None:
    first: Any = randomised(rlawrap.apply(Towers(), k=3, at="towers.a"))
    both: Any = rlawrap.apply(first, k=5, at="towers.b")
    assert [both.towers[n].config.k for n in "ab"] == [3, 5]
    assert same(first, both) and not isinstance(first.towers["b"], rlawrap.RLAModel)
    with pytest.raises(rlawrap.PlanError, match=r"its module 'towers\.a' is a RLAModel"):
        rlawrap.apply(first, at="towers.*")
    with pytest.raises(rlawrap.PlanError, match=r"its module 'towers\.a' is a RLAModel"):
        rlawrap.apply(first)


def test_the_state_lives_on() -> None:
    model = randomised(rlawrap.apply(Towers(), k=3, at=["towers.a", "aux"]))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = rlawrap.apply(Towers(), k=3, at=["towers.a", "aux"])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(other, model)
    other = other.to(memory_format=torch.channels_last).eval()
    for key, value in other(X, X + 0.1).items():
        torch.testing.assert_close(value, model.eval()(X, X + 0.1)[key])


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.fc = classifier(), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(torch.cat([self.encoder(x), self.encoder(y)], 1))


def test_warnings_and_errors_tell_the_path() -> None:
    model = nn.ModuleDict({"net": Siamese()})
    with pytest.warns(rlawrap.RLAWarning, match="^at='net': module 'encoder' runs once") as caught:
        rlawrap.apply(model, at="net", k=2, example_input=(X, X))
    assert [w.filename for w in caught] == [__file__]
    assert calls_told(str(caught[0].message)) == ["rlawrap.apply(model, at='net.encoder')"]
    with pytest.raises(rlawrap.PlanError, match=r"^at='net\.fc': Linear holds no convolution"):
        rlawrap.apply(model, at="net.fc")
    with pytest.raises(rlawrap.PlanError, match=r"^at='net\.encoder\.0': no blocks found"):
        rlawrap.inspect(model, at="net.encoder.0")
    with pytest.raises(rlawrap.ConfigError, match="choose one"):
        rlawrap.apply(model, at="net", source="outpt")
    model["net"].rla = 1
    with pytest.raises(rlawrap.PlanError, match="its module 'net' has an attribute 'rla'"):
        rlawrap.apply(model, at="net")


def test_a_model_that_cannot_be_copied() -> None:
    model = Towers()
    model.kept = (m for m in model.modules())
    with pytest.raises(rlawrap.PlanError, match=r"at='aux'\): the model cannot be copied: TypeErr"):
        rlawrap.apply(model, at="aux")
