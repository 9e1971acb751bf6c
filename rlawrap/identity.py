"""Which published network a module is, so that a checkpoint can name it instead of pickling it.

An identity is plain data: `{"source": "torchvision", "name": "resnet50", "kwargs": {...}}`. It is
found by building the candidates without memory and comparing their printed form and their state
dict's keys and shapes with the module's; a network that equals none of them is "custom".
"""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rlawrap._torch import ConvNd
from rlawrap.copying import deep_copy
from rlawrap.errors import CheckpointError, RLAError

CUSTOM: dict[str, Any] = {"source": "custom"}

_ALLOCATING = (torch.empty, torch.zeros, torch.ones)


class _WithoutMemory(TorchFunctionMode):
    """Puts the parameters that a constructor allocates on the meta device.

    Some constructors calculate with small tensors of their own (RegNet's widths), which rules out
    `torch.device("meta")`; layers allocate with these three functions alone.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ALLOCATING:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def identify(model: nn.Module) -> dict[str, Any]:
    """The identity of a network without hidden state.

    >>> from torchvision.models import resnet18
    >>> identify(resnet18(num_classes=7))
    {'source': 'torchvision', 'name': 'resnet18', 'kwargs': {'num_classes': 7}}
    >>> identify(nn.Sequential(nn.Conv2d(3, 8, 3)))
    {'source': 'custom'}
    """
    from rlawrap.attention.gates import ECA, SE

    gates = {cls for module in model.modules() for cls in (ECA, SE) if isinstance(module, cls)}
    candidates = _candidates(model)
    if len(gates) == 1:
        kind = "eca" if gates == {ECA} else "se"
        plain = identify(_without(model, (ECA, SE)))
        candidates = iter([{**plain, "attention": kind}, *_presets(model, "_" + kind)])
    printed, shapes = repr(model), _shapes(model)
    for identity in candidates:
        try:
            with torch.random.fork_rng(devices=[]), _WithoutMemory():
                candidate = rebuild(identity)
        except (RLAError, TypeError, ValueError, RuntimeError):
            continue  # this constructor does not take these arguments
        if repr(candidate) == printed and _shapes(candidate) == shapes:
            return identity
    return dict(CUSTOM)


def _without(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """A copy of a network without memory and without the modules of these classes."""
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
    plain = deep_copy(model, memo)
    for module in plain.modules():
        for name in [n for n, child in module.named_children() if isinstance(child, kinds)]:
            del module._modules[name]
    return plain


def rebuild(identity: Mapping[str, Any]) -> nn.Module:
    """The network of an identity, with fresh weights. Raises `CheckpointError` for "custom"."""
    source, name = identity.get("source"), identity.get("name")
    kwargs = dict(identity.get("kwargs", {}))
    if "attention" in identity:
        from rlawrap.attention import attend

        plain = {key: value for key, value in identity.items() if key != "attention"}
        return attend(rebuild(plain), identity["attention"])
    if source == "rlawrap":
        from rlawrap.models import get_model

        return get_model(str(name), **kwargs)
    if source == "torchvision":
        import torchvision

        builder = torchvision.models.get_model_builder(str(name))
        if "weights_backbone" in inspect.signature(builder).parameters:
            kwargs["weights_backbone"] = None  # its default is a download
        with warnings.catch_warnings():
            # GoogLeNet and Inception announce a change of their initialisation.
            warnings.simplefilter("ignore", FutureWarning)
            return builder(weights=None, **kwargs)
    if source == "timm":
        if importlib.util.find_spec("timm") is None:
            raise CheckpointError(f"{name} is a timm network; pip install 'rlawrap[timm]'.")
        import timm

        return timm.create_model(str(name), **kwargs)
    raise CheckpointError(
        f"a network of source {source!r} cannot be built from its name; pass `base=model`, "
        "the network itself."
    )


def _presets(model: nn.Module, attention: str) -> Iterator[dict[str, Any]]:
    """Official networks without hidden state that are not simply torchvision's."""
    names = {"": ("resnet50_k", "resnext101_32x4d"), "_eca": ("mobilenetv2_eca",)}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for name in names.get(attention, ()):
        kwargs = {"num_classes": linear[-1].out_features} if linear else {}
        yield {"source": "rlawrap", "name": name, "kwargs": kwargs}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _candidates(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Identities that the module may have, from its class and the size of its last layer."""
    package = type(model).__module__
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, ConvNd))]
    if not layers:
        return
    first, last = layers[0], layers[-1]
    classes = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    channels = first.in_channels if isinstance(first, ConvNd) else 3

    if package.startswith("rlawrap.models."):
        from rlawrap.models import list_models

        kwargs = {"num_classes": classes, "in_channels": channels}
        for name in list_models("cifar_*"):
            yield {"source": "rlawrap", "name": name, "kwargs": kwargs}
    elif package.startswith("torchvision.models."):
        import torchvision

        # Options that the module remembers and that no layer shows.
        options: dict[str, Any] = {
            option: getattr(model, option)
            for option in ("aux_logits", "transform_input")
            if hasattr(model, option)
        }
        if options:
            options["init_weights"] = False
        if hasattr(model, "aux_classifier"):
            options["aux_loss"] = model.aux_classifier is not None
        # With auxiliary heads, the last layer of the module tree need not be the classifier.
        counts = {classes, *(m.out_features for m in layers if isinstance(m, nn.Linear))}
        for name in torchvision.models.list_models():
            if torchvision.models.get_model_builder(name).__module__ == package:
                for count in sorted(counts, key=lambda n: n != classes):
                    named = {"num_classes": count, **options}
                    yield {"source": "torchvision", "name": name, "kwargs": named}
        yield from _presets(model, "")
    elif package.startswith("timm."):
        config = getattr(model, "pretrained_cfg", None) or {}
        if architecture := config.get("architecture"):
            count = int(getattr(model, "num_classes", classes))
            kwargs = {"num_classes": count, "in_chans": channels}
            yield {"source": "timm", "name": architecture, "kwargs": kwargs}
