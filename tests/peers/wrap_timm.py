"""A pytest plugin under which timm's own model tests meet networks with a hidden state.

`timm.create_model` is replaced before the test file imports it; what it builds is passed through
`rlawrap.apply`. `timm.list_models` is cut down to small networks, some of every family.
"""

from __future__ import annotations

import fnmatch
from typing import Any

import timm
from torch import nn

import rlawrap

NETWORKS = (
    "resnet18", "resnet26d", "seresnet50", "resnetv2_50", "res2net50_26w_4s", "resnest14d",
    "skresnet18", "regnetx_002", "regnety_002", "efficientnet_b0", "tf_efficientnet_b0",
    "mobilenetv2_050", "mobilenetv3_small_050", "mnasnet_small", "ghostnet_050", "densenet121",
    "dla34", "dpn48b", "vgg11_bn", "ese_vovnet19b_dw", "selecsls42", "hardcorenas_a", "rexnet_100",
    "cspresnet50", "cs3darknet_s", "nf_resnet26", "repvgg_a0", "mobileone_s0", "convnext_atto",
    "tresnet_m", "fasternet_t0", "inception_next_atto", "hgnetv2_b0", "starnet_s1", "repvit_m0_9",
    "xception41", "poolformer_s12", "mambaout_femto", "convmixer_768_32", "inception_v3",
)  # fmt: skip

_create, _list = timm.create_model, timm.list_models


def create_model(name: str, *args: Any, **kwargs: Any) -> nn.Module:
    """timm's network with a hidden state; injections drawn as published, so that h counts."""
    model: nn.Module = _create(name, *args, **kwargs)
    return rlawrap.apply(model, k=8, init="paper")


def list_models(*args: Any, **kwargs: Any) -> list[str]:
    """The names of `NETWORKS` among those that timm would list."""
    return [n for n in _list(*args, **kwargs) if any(fnmatch.fnmatch(n, p) for p in NETWORKS)]


def pytest_configure() -> None:
    """Only where pytest is told to use this file as a plugin, not where it merely looks at it."""
    timm.create_model, timm.list_models = create_model, list_models
