from __future__ import annotations

import torch

from rlawrap.train.ablation.variant_costs import measure, time_forward
from rlawrap.train.config.train_config import TrainConfig


def test_cost_of_real_networks() -> None:
    config = TrainConfig(arch="cifar_resnet20", model_kwargs={"in_channels": 1})
    before = torch.get_rng_state()
    plain = measure(config, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert (plain.params, plain.macs) == (269_434, 40_256_128)
    assert plain.latency_ms > 0
    smaller = measure(config.replace(image_size=16), seconds=0.01)
    assert smaller.params == plain.params
    assert smaller.macs == (plain.macs - 640) // 4 + 640  # all but the classifier


def test_timing_puts_the_threads_back() -> None:
    torch.set_num_threads(2)
    try:
        seen = []
        model = torch.nn.Identity()
        model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        assert time_forward(model, torch.zeros(1), seconds=0.0) > 0
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
