"""The call that a network was recorded with, made again on a shadow of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from rlawrap._torch import pytree
from rlawrap.capture.arguments import Arguments, image_of, make_arguments
from rlawrap.capture.shadow import Shadow


def recorded_call(shadow: Shadow, example: Any, shape: tuple[int, ...]) -> Arguments:
    """The arguments for an image of a shape: of `example` where one was given, or the image alone.

    The example's image, and what is of its type, follow the type that the network has now.
    """
    call = make_arguments(shadow, example, shape)
    if example is None or not (image := image_of(example)).is_floating_point():
        return call

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(shadow.dtype) if tensor.dtype == image.dtype else tensor

    args, kwargs = pytree.tree_map_only(Tensor, cast, (call.args, dict(call.kwargs)))
    return replace(call, args=args, kwargs=kwargs)
