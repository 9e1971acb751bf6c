"""RLAConfig: every choice of the recurrence, as frozen data with a JSON round trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlawrap.errors import ConfigError, did_you_mean

CONFIG_VERSION = 1

#: Values of `head` that are no paths.
HEAD_WORDS = ("concat", "none")


@dataclass(frozen=True, kw_only=True)
class RLAConfig:
    """How the hidden state is updated, shared, read and started.

    With g1 = Conv1x1 and g2(.) = Conv3x3(tanh(norm(.))), the convolutional cells compute

    - `update="pre"`: h^t = g2(g1(s) + h^{t-1}), the paper's equation;
    - `update="split"`: h^t = g1(s) + g2(h^{t-1});
    - `update="post"`: h^t = tanh(norm(Conv3x3(g1(s) + h^{t-1}))),

    where s is the block's output x^t (`source="output"`, what the released code computes), its
    residual branch y^t (`"branch"`, as the paper draws it) or its shortcut (`"input"`).

    >>> RLAConfig(k=16, update="split").to_dict()["k"]
    16
    >>> RLAConfig(k=0)
    Traceback (most recent call last):
    rlawrap.errors.ConfigError: RLAConfig(k=0): k must be a whole number of at least 1.
    """

    #: Channels of the hidden state.
    k: int = 32
    #: Name of a registered cell: conv, dwconv, convlstm, convgru, or the user's own.
    cell: str = "conv"
    source: Literal["output", "branch", "input"] = "output"
    update: Literal["pre", "split", "post"] = "pre"
    #: What shares the recurrent cell: the blocks of a stage, of the network, or none.
    share: Literal["stage", "network", "none"] = "stage"
    #: Where h enters a block: its first convolutions, its first depthwise one, or nowhere.
    inject: Literal["entry", "depthwise", "none"] = "entry"
    #: Whether h joins the heads: "concat", all of them; "none"; or those at a path or paths.
    head: str | tuple[str, ...] = "concat"
    #: Norm before the classifier; "auto" leaves it out after a cell that ends in an activation.
    head_norm: Literal["auto", "yes", "no"] = "auto"
    head_act: Literal["auto", "relu", "relu6", "tanh", "none"] = "auto"
    #: "none" leaves out what the first block would add for h^0 = 0.
    initial_state: Literal["zeros", "none"] = "none"
    #: "identity": the network computes what it did before; "paper": Kaiming-normal, fan out.
    init: Literal["identity", "paper"] = "identity"
    norm: Literal["batch", "group", "layer", "instance", "none"] = "batch"
    #: Kernel size of the recurrent convolution; odd.
    kernel: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ConfigError(f"RLAConfig(k={self.k!r}): k must be a whole number of at least 1.")
        whole = isinstance(self.kernel, int) and not isinstance(self.kernel, bool)
        if not whole or self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"RLAConfig(kernel={self.kernel!r}): the kernel must be odd, like 3.")
        object.__setattr__(self, "head", _heads(self.head))
        hints = get_type_hints(type(self))
        for field in fields(self):
            hint = hints[field.name]
            allowed = get_args(hint) if get_origin(hint) is Literal else ()
            value = getattr(self, field.name)
            if allowed and value not in allowed:
                hint = did_you_mean(str(value), allowed, f"`{field.name}={{!r}}`".format)
                raise ConfigError(
                    f"RLAConfig({field.name}={value!r}): choose one of {', '.join(allowed)}.{hint}"
                )
        if not isinstance(self.cell, str):
            raise ConfigError(f"RLAConfig(cell={self.cell!r}): give the name of a registered cell.")

    def with_options(self, **options: Any) -> RLAConfig:
        """A copy with some fields changed. Raises `ConfigError` for a field that does not exist."""
        known = [f.name for f in fields(self)]
        for name in options:
            if name not in known:
                hint = did_you_mean(name, known, "{}=".format)
                raise ConfigError(
                    f"{name}={options[name]!r}: no such option.{hint} The options are: "
                    f"{', '.join(known)}."
                )
        return replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with a version."""
        head = self.head if isinstance(self.head, str) else list(self.head)
        return {"version": CONFIG_VERSION, **asdict(self), "head": head}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RLAConfig:
        """The inverse of `to_dict`. Raises `ConfigError` for another version or unknown fields."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"RLAConfig.from_dict: expected a dict, got {type(data).__name__}.")
        values = dict(data)
        version = values.pop("version", None)
        if version != CONFIG_VERSION:
            raise ConfigError(
                f"RLAConfig.from_dict: version {version!r}; this rlawrap reads {CONFIG_VERSION}."
            )
        return cls().with_options(**values)


def _heads(value: Any) -> str | tuple[str, ...]:
    """`head=` as it is kept. Raises `ConfigError` for what is neither a path nor several."""
    if isinstance(value, str) and value:
        return value
    listed = isinstance(value, (tuple, list)) and bool(value)
    if not listed or not all(isinstance(path, str) and path for path in value):
        raise ConfigError(
            f"RLAConfig(head={value!r}): give 'concat' (h joins every head), 'none', the path of a "
            "head such as 'fc', or a tuple of paths."
        )
    return tuple(value)


#: As published: weights from the paper's init, h^0 carried as zeros.
_PAPER = RLAConfig(init="paper", initial_state="zeros")
_MOBILE = _PAPER.with_options(
    source="branch", share="network", inject="depthwise", head_act="relu6"
)

#: Every official variant as a configuration (the names follow the official constructors'), and
#: one of this library's for Xception, of which the paper has results and no code.
VARIANTS: Mapping[str, RLAConfig] = {
    "rla": _PAPER,
    "rlav1": _PAPER.with_options(head_act="tanh"),
    "rlav2": _PAPER.with_options(update="split"),
    "rlav3": _PAPER,
    "rlav4": _PAPER.with_options(update="split"),
    "rlav5": _PAPER.with_options(source="input"),
    "rlav6": _PAPER.with_options(source="input", update="split"),
    "rlav1p": _PAPER.with_options(update="post"),
    "rlaus": _PAPER.with_options(share="none", source="branch"),
    "rlarh": _PAPER.with_options(inject="none"),
    "rlalstm": _PAPER.with_options(cell="convlstm"),
    "rlagru": _PAPER.with_options(cell="convgru"),
    "rla_mobilenetv2": _MOBILE,
    "dsrla_mobilenetv2": _MOBILE.with_options(cell="dwconv"),
    "rla_xception": RLAConfig(init="paper", source="branch"),
}


def variant(name: str, **options: Any) -> RLAConfig:
    """The configuration of an official variant, with some fields changed.

    >>> variant("rlav2", k=12).update
    'split'
    """
    try:
        return VARIANTS[name].with_options(**options)
    except KeyError:
        raise ConfigError(
            f"variant({name!r}): no such variant; there are {', '.join(VARIANTS)}."
        ) from None
