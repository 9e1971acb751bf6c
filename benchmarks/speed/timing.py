"""Interleaved rounds: one run of each variant in turn, so that a slow moment meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
Clock = Callable[[Call], float]
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Quartiles:
    """The median of a sample and what a quarter of it lies below and above."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles with linear interpolation between the ordered values.

    >>> quartiles([4.0, 1.0, 3.0, 2.0, 5.0])
    Quartiles(low=2.0, median=3.0, high=4.0)
    """
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(low, median, high)


def ratios(times: Mapping[str, Sequence[float]], name: str, to: str = "base") -> Quartiles:
    """Of a variant's time to another's, round by round.

    >>> ratios({"base": [1.0, 2.0, 4.0], "ours": [2.0, 2.0, 6.0]}, "ours")
    Quartiles(low=1.25, median=1.5, high=1.75)
    """
    return quartiles([own / other for own, other in zip(times[name], times[to], strict=True)])


def of_k(times: Mapping[str, Sequence[float]], k: int) -> Times:
    """The seconds of the plain network and of the variants of one k, by their names.

    >>> of_k({"base": [0.5], "ours k8": [1.0], "ours k16": [2.0]}, 8)
    {'base': [0.5], 'ours': [1.0]}
    """
    split = [(label.partition(" k"), seconds) for label, seconds in times.items()]
    return {name: list(seconds) for (name, _, of), seconds in split if of in ("", str(k))}


def pooled(runs: Sequence[Mapping[str, Sequence[float]]]) -> Times:
    """The rounds of several processes, of the variants that all of them have.

    >>> pooled([{"base": [1.0], "ours": [2.0]}, {"base": [3.0], "ours": [4.0]}])
    {'base': [1.0, 3.0], 'ours': [2.0, 4.0]}
    """
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: [seconds for run in runs for seconds in run[name]] for name in shared}


def summary(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds and ratios to "base" of each variant: lower quartile, median, upper quartile.

    >>> summary({"base": [0.5, 0.5], "ours": [1.0, 1.0]})["ours"]
    {'ms': [1000.0, 1000.0, 1000.0], 'ratio': [2.0, 2.0, 2.0]}
    """
    found = {}
    for name in times:
        ms, ratio = quartiles(times[name]), ratios(times, name)
        found[name] = {
            "ms": [round(1e3 * v, 3) for v in (ms.low, ms.median, ms.high)],
            "ratio": [round(v, 4) for v in (ratio.low, ratio.median, ratio.high)],
        }
    return found


def cpu_clock(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(call: Call) -> float:
    """Seconds that the device spends on one call, from event to event."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def rounds_within(round_seconds: float, budget: float, least: int, most: int) -> int:
    """How many rounds fit into a budget of seconds.

    >>> [rounds_within(0.5, 10, 3, 15), rounds_within(9, 10, 3, 15), rounds_within(0.1, 10, 3, 15)]
    [15, 3, 15]
    """
    return max(least, min(most, int(budget / max(round_seconds, 1e-9))))


def interleaved(
    calls: Mapping[str, Call], clock: Clock, *, budget: float, least: int, most: int
) -> Times:
    """Seconds of each call, a list with one figure a round; every round starts with another call.

    Each call runs twice before; where that alone takes longer than the budget, once.
    """
    first = {name: clock(call) for name, call in calls.items()}
    if sum(first.values()) < budget:
        first = {name: clock(call) for name, call in calls.items()}
    rounds = rounds_within(sum(first.values()), budget, least, most)
    times: Times = {name: [] for name in calls}
    names = list(calls)
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(clock(calls[name]))
    return times
