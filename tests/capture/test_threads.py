"""Several threads: each captures on its own, and what others run is what it always was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import rlawrap
from tests.capture.checking import Net
from tests.nets import BlockNet


def test_threads_that_apply_at_once() -> None:
    bases = [BlockNet() if i % 2 else Net() for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda base: rlawrap.apply(base, k=4), bases))
    x = torch.randn(2, 3, 16, 16)
    for base, model in zip(bases, models, strict=True):
        assert torch.equal(base.eval()(x), model.eval()(x))


def test_a_network_that_runs_while_another_is_captured() -> None:
    net, x = Net().eval(), torch.randn(2, 3, 16, 16)
    expected = net(x)
    results: list[torch.Tensor] = []
    errors: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            while not done.is_set():
                results.append(net(x))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(3):
            rlawrap.inspect(Net())
    finally:
        done.set()
        thread.join()
    assert not errors
    assert results
    assert all(torch.equal(result, expected) for result in results)


def test_everything_is_put_back() -> None:
    before = nn.Module.__call__, torch.autograd.Function.apply, torch.autocast.__enter__
    space = dict(vars(__import__("sys").modules[Net.__module__]))
    rlawrap.inspect(Net())
    after = nn.Module.__call__, torch.autograd.Function.apply, torch.autocast.__enter__
    assert before[0] is after[0]
    assert before[1] == after[1]
    assert before[2] is after[2]
    assert vars(__import__("sys").modules[Net.__module__]) == space
    assert "training" not in vars(nn.Module)
