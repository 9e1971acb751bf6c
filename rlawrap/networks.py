"""A network by its name: of rlawrap, torchvision or timm, or a function of the user's own.

This is the one place where a name becomes a network, for the commands and for the trainer alike.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from torch import nn

from rlawrap.copying import deep_copy
from rlawrap.errors import CheckpointError, ConfigError, did_you_mean, few
from rlawrap.identity import rebuild
from rlawrap.models import list_models
from rlawrap.models.model_registry import builder
from rlawrap.user_code import UserCode, find_code, importable, is_place

#: What may stand before the colon of a name.
SOURCES = ("rlawrap", "torchvision", "timm")


@dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A name that was found. source: "rlawrap", "torchvision", "timm" or "code".

    name: within the source. builder: what makes the network; code: whose code it is.
    """

    text: str
    source: str
    name: str
    builder: Callable[..., Any]
    code: UserCode | None = None

    def takes(self, option: str) -> bool:
        """Whether the builder has a parameter of that name, or takes any.

        >>> find_network("torchvision:resnet18").takes("num_classes")
        True
        """
        parameters = _parameters(self.builder)
        return parameters is None or option in parameters


def find_network(name: str) -> NamedNetwork:
    """What a name stands for: rlawrap's own first, then torchvision's, then timm's.

    A prefix names the source: "torchvision:resnet50", "timm:resnet50"; a place names a function of
    yours that returns a network: "nets.py:small", "package.module:small".
    Raises `ConfigError` for an unknown name, with the nearest ones.

    >>> find_network("cifar_resnet20").source
    'rlawrap'
    """
    asked, _, rest = name.rpartition(":")
    if asked and asked not in SOURCES and is_place(name):
        return _in_user_code(name)
    # Ours first: torchvision and timm take seconds to import.
    ours = (builder(rest) or _detector_of(rest)) if asked in ("", "rlawrap") else None
    if ours is not None:
        return NamedNetwork(text=name, source="rlawrap", name=rest, builder=ours)
    known = known_names()
    for source, names in known.items():
        if asked in ("", source) and rest in names:
            return NamedNetwork(
                text=name, source=source, name=rest, builder=_builder_of(source, rest)
            )
    if asked == "timm" and "timm" not in known:
        raise ConfigError(f"{name!r}: timm is not installed; pip install 'rlawrap[timm]'.")
    if asked and asked not in known:
        raise ConfigError(
            f"{name!r}: unknown source {asked!r}; write one of {', '.join(known)} before the "
            "colon, or the file or module of your own function, as nets.py:small."
        )
    everything = sorted({n for source in known for n in known[source] if asked in ("", source)})
    near = difflib.get_close_matches(rest, everything, n=3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    own = "" if asked else " A function of your own is named by its file, as nets.py:small."
    raise ConfigError(f"{name!r}: no such network in {asked or ', '.join(known)}.{hint}{own}")


def build_network(
    name: str,
    *,
    pretrained: bool = False,
    rla: Mapping[str, Any] | None = None,
    example_input: Any = None,
    **arguments: Any,
) -> nn.Module:
    """The network of a name, with fresh weights; `arguments` go to its builder.

    pretrained: the weights that torchvision or timm have for it (they may be downloaded); with
    another `num_classes` than theirs the classifier stays fresh.
    rla: options of `rlawrap.apply`, which then gives the network a hidden state; `example_input`
    goes to it as well.
    Raises `ConfigError` for a name, an argument or an option that does not exist, `CheckpointError`
    for weights that cannot be had, and what `apply` raises.

    >>> type(build_network("torchvision:resnet18", rla={"k": 4})).__name__
    'RLAResNet'
    """
    found = find_network(name)
    if pretrained:
        arguments = {**arguments, **_pretrained_arguments(found, arguments)}
    _check_arguments(found, arguments)
    if pretrained and found.source == "torchvision":
        model = _pretrained_torchvision(found, arguments)
    else:
        model = _call(found, arguments)
    if rla is None:
        return model
    from rlawrap.splice import RLAModel, apply

    if isinstance(model, RLAModel):
        raise ConfigError(
            f"{name}: has a hidden state already, so --rla (rla=) has nothing to do. Its k is an "
            "argument of its builder: --model-arg k=16."
        )
    return apply(model, **rla, example_input=example_input)


def known_names() -> dict[str, list[str]]:
    """Names of networks by source; timm's where it is installed."""
    import torchvision

    known = {"rlawrap": list_models(), "torchvision": list(torchvision.models.list_models())}
    if importlib.util.find_spec("timm") is not None:
        import timm

        known["timm"] = timm.list_models()
    return known


def _detector_of(name: str) -> Callable[..., nn.Module] | None:
    """The builder of one of our detectors, which need torchvision's, if the name can be one."""
    if "rla" not in name:
        return None
    from rlawrap.detection.names import builder as detector_builder

    return detector_builder(name)


def _builder_of(source: str, name: str) -> Callable[..., Any]:
    if source == "torchvision":
        import torchvision

        return torchvision.models.get_model_builder(name)
    import timm

    return timm.models.model_entrypoint(name)


def _in_user_code(name: str) -> NamedNetwork:
    code = find_code(name)
    make = code.value
    if not callable(make):
        raise ConfigError(
            f"{name}: is {_what(code.value)}, not a function or class that gives a network."
        )
    if isinstance(make, nn.Module):
        make = functools.partial(deep_copy, code.value)
    return NamedNetwork(
        text=name, source="code", name=name.rpartition(":")[2], builder=make, code=code
    )


def _parameters(builder: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The builder's parameters by name; None when it takes any or does not say."""
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return None
    return dict(parameters)


def _check_arguments(found: NamedNetwork, arguments: Mapping[str, Any]) -> None:
    """Of the user's own functions: an argument that is not there, or one that is missing."""
    parameters = _parameters(found.builder)
    if found.source != "code" or parameters is None:
        return
    for name in arguments:
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            takes = ", ".join(parameters) or "no arguments"
            raise ConfigError(f"{found.text}: takes no argument {name!r}.{hint} It takes {takes}.")
    missing = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and name not in arguments
    ]
    if missing:
        raise ConfigError(
            f"{found.text}: needs {few(missing)}. Give them as --model-arg NAME=VALUE (from "
            "Python: as keyword arguments)."
        )


def _call(found: NamedNetwork, arguments: dict[str, Any]) -> nn.Module:
    """The network as its builder makes it."""
    if found.source in ("torchvision", "timm"):
        kwargs = {"source": found.source, "name": found.name, "kwargs": arguments}
        try:
            return rebuild(kwargs)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"{found.text}: cannot be built from {arguments}: {error}") from error
    if found.code is None:
        return found.builder(**arguments)
    file = found.code.file
    try:
        if file is None:
            model = found.builder(**arguments)
        else:
            with importable(file.parent):
                model = found.builder(**arguments)
    except SystemExit as leaving:  # of argparse, which reads our command line
        raise ConfigError(
            f"{found.text}: ends the program (SystemExit: {leaving.code}) instead of returning a "
            "network. Let it take what it needs as arguments, given by --model-arg, and not read "
            "the command line."
        ) from leaving
    except Exception as error:
        raise ConfigError(
            f"{found.text}: raised {type(error).__name__}: {error} (called with {arguments})."
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{found.text}: returned {_what(model)}, not a torch.nn.Module.")
    return model


def _what(value: Any) -> str:
    return "None" if value is None else f"an object of class {type(value).__name__}"


def _pretrained_arguments(found: NamedNetwork, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the builder must be told so that it comes with weights."""
    if found.source == "torchvision":
        import torchvision

        try:
            weights = torchvision.models.get_model_weights(found.name)
        except ValueError:
            weights = ()  # type: ignore[assignment]
        if not len(weights):
            raise ConfigError(f"{found.text}: torchvision has no weights for it.")
        return {}
    if found.source == "timm":
        import timm

        overlay = arguments.get("pretrained_cfg_overlay") or {}
        if not (overlay or timm.models.is_model_pretrained(found.name)):
            raise ConfigError(f"{found.text}: timm has no weights for it.")
        return {"pretrained": True}
    if found.takes("weights"):
        return {"weights": "DEFAULT"}
    if found.takes("pretrained"):
        return {"pretrained": True}
    raise ConfigError(
        f"{found.text}: --pretrained is for networks whose weights can be fetched: torchvision's, "
        "timm's, and functions with a parameter pretrained or weights. For a file of weights "
        "use --finetune FILE."
    )


def _pretrained_torchvision(found: NamedNetwork, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of torchvision with its weights; a classifier for other classes stays fresh."""
    own = {name: value for name, value in arguments.items() if name != "num_classes"}
    try:
        full: nn.Module = found.builder(weights="DEFAULT", progress=False, **own)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{found.text}: its weights cannot be had: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{found.text}: cannot be built from {own}: {error}") from error
    if "num_classes" not in arguments:
        return full
    # Some weights come with options of their own, such as how the input is scaled.
    options = {o: getattr(full, o) for o in ("transform_input", "aux_logits") if hasattr(full, o)}
    model = _call(found, {**options, **arguments})
    state, ours = full.state_dict(), model.state_dict()
    wrong = [n for n in ours if n not in state or ours[n].shape[1:] != state[n].shape[1:]]
    if wrong:
        raise CheckpointError(
            f"{found.text}: its weights do not fit a network of {dict(arguments)}: {few(wrong)}."
        )
    model.load_state_dict(
        {n: value for n, value in state.items() if n in ours and ours[n].shape == value.shape},
        strict=False,
    )
    return model
