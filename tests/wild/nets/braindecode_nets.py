"""braindecode: EEG, channels by time."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Wild, image, made, net


def _net(name: str, *blocks: str, chans: int = 8, times: int = 1000, **options: Any) -> Wild:
    sizes = {"n_chans": chans, "n_outputs": 3, "n_times": times, "sfreq": 250, **options}
    maker = made(f"braindecode.models.{name}", **sizes)
    return net(f"braindecode/{name}", maker, image(2, chans, times), *blocks)


NETS = (
    _net("ATCNet"),
    _net("BDTCN", "_TemporalBlock"),
    _net("Deep4Net"),
    _net("EEGInceptionERP"),
    _net("EEGInceptionMI", "_InceptionModuleMI"),
    _net("EEGITNet"),
    _net("EEGNet"),
    _net("EEGNeX"),
    _net("EEGSimpleConv"),
    _net("EEGTCNet"),
    _net("ShallowFBCSPNet"),
    _net("SleepStagerChambon2018"),
    _net("SPARCNet", "_DenseLayer"),
    _net("TIDNet"),
    _net("TSception"),
    _net("USleep", chans=2, times=3840, sfreq=128),
    _net("BrainModule"),
    _net("ContraWR", "_ResBlock"),
)
