from __future__ import annotations

import numpy as np
import pytest
import torch

import rlawrap
from rlawrap.show.drawing import Image, overlapping
from rlawrap.show.hidden import HiddenStates, State, component_colours, liveliest
from tests.nets import BlockNet, WaveNet1d


def state(values: object) -> State:
    return State(part="", stage=0, block="b", values=np.array(values, dtype=np.float32))


def test_states_are_those_that_the_next_block_reads() -> None:
    model = rlawrap.apply(BlockNet().eval(), k=4).eval()
    x = torch.randn(3, 16, 16)
    hidden = rlawrap.show(model, x, "hidden").data
    assert isinstance(hidden, HiddenStates)
    read: dict[str, torch.Tensor] = {}
    for name in ("rla.inject.1", "rla.inject.2", "rla.head.norm"):
        model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: read.setdefault(name, args[0])
        )
    with torch.no_grad():
        model(x[None])
    sizes = [(s.block, s.values.shape) for s in hidden.states]
    assert sizes == [
        ("body.0", (4, 16, 16)),
        ("body.1", (4, 8, 8)),
        ("body.2", (4, 8, 8)),
    ]
    for kept, given in zip(hidden.states, read.values(), strict=True):
        np.testing.assert_allclose(kept.values, given[0].numpy(), rtol=1e-5, atol=1e-6)
    assert hidden.states[0].norm == pytest.approx(read["rla.inject.1"].norm().item(), rel=1e-5)


def test_a_picture_names_every_block_and_its_texts_lie_apart() -> None:
    model = rlawrap.apply(BlockNet().eval(), k=2).eval()
    picture = rlawrap.show(model, torch.randn(3, 16, 16), "hidden")
    assert overlapping(picture.drawing) == []
    texts = [t.text for t in picture.drawing.texts]
    for name in ("body.0", "body.1", "body.2"):
        assert name in texts
    assert "stage 0: h of 2 channels, 16×16" in texts
    images = [p for p in picture.drawing.parts if isinstance(p, Image)]
    assert len(images) == 1 + 3 + 2 * 2
    assert [len(s) for s in (picture.to_dict()["states"],)] == [3]


def test_one_component_of_many_channels_is_grey_and_in_order() -> None:
    ramp = np.linspace(-1, 1, 64).reshape(8, 8)
    (pixels,) = component_colours([state([ramp])])
    assert pixels.shape == (8, 8, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (np.diff(pixels[..., 0].reshape(-1).astype(int)) >= 0).all()
    (flat,) = component_colours([state(np.zeros((4, 3, 3)))])
    assert set(flat.reshape(-1).tolist()) == {128}


def test_like_values_have_like_colours_within_a_stage() -> None:
    values = np.random.default_rng(0).normal(size=(6, 9, 9))
    one, two = component_colours([state(values), state(3 * values)])
    assert np.abs(one.astype(int) - two.astype(int)).max() <= 1
    assert one.std() > 20


def test_the_liveliest_channels() -> None:
    values = np.zeros((3, 4, 4))
    values[2, 0, 0], values[0, 1, 1] = 5, 1
    assert liveliest(state(values), 2) == [0, 2]


def test_h_of_signals_is_no_picture() -> None:
    model = rlawrap.apply(WaveNet1d().eval(), k=2)
    with pytest.raises(rlawrap.ConfigError, match="reads 1d signals"):
        rlawrap.show(model, torch.randn(2, 64), "hidden")
