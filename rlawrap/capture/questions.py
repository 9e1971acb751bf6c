"""What a forward may ask of a tensor, and what has no answer that lasts."""

from __future__ import annotations

from types import FrameType

UNKNOWN = "asks for a tensor's value: control flow on a value that tracing cannot know"

#: Functions that need the values of a tensor. What follows from sizes alone has them.
VALUES = frozenset(
    "item tolist __bool__ __int__ __float__ __index__ __complex__ numpy __array__ __contains__ "
    "equal allclose is_nonzero".split()
)

#: Functions that act on what comes after forward.
EFFECTS = frozenset("register_hook retain_grad backward register_post_accumulate_grad_hook".split())

#: Attributes that another call, or a training step, may find changed.
_MAY_CHANGE = frozenset("requires_grad grad_fn is_leaf grad".split())


def refused_attribute(name: str, asking: FrameType | None) -> bool:
    """Whether an attribute has no answer that lasts; torch's own code may ask for it."""
    module = "" if asking is None else asking.f_globals.get("__name__", "")
    return name in _MAY_CHANGE and not module.startswith("torch.")
