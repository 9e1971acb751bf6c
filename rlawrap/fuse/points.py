"""h's 1x1 convolutions, by the library that is faster for them on a CPU."""

from __future__ import annotations

from rlawrap.design.names import is_added
from rlawrap.fuse.layers import PointConv2d, is_plain
from rlawrap.fuse.work import Work
from rlawrap.splice.pointwise import is_point_conv


def hasten_points(work: Work) -> None:
    """Give h's 1x1 convolutions a class that asks oneDNN for large ones."""
    for node in work.graph.nodes:
        layer = work.layer(node)
        if layer is None or not is_added(str(node.target)):
            continue
        if is_point_conv(layer) and is_plain(layer):
            work.replace_layer(node, PointConv2d.of(layer))  # type: ignore[arg-type]
            work.note("1x1 convolution by oneDNN where it is large", node)
