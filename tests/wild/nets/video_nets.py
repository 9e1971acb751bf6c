"""pytorchvideo, and lightly's generator of small ResNets."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, image, made, net


def _video(path: str, example: Maker, *blocks: str, **options: Any) -> Wild:
    maker = made(f"pytorchvideo.models.{path}", model_num_class=5, **options)
    return net(f"pytorchvideo/{path.split('_')[-1]}", maker, example, *blocks)


def _light(name: str, *blocks: str) -> Wild:
    maker = made("lightly.models.ResNetGenerator", name, width=0.25)
    return net(f"lightly/{name}", maker, image(2, 3, 32, 32), *blocks)


def _paths() -> list[Any]:
    return [image(1, 3, 4, 64, 64)(), image(1, 3, 16, 64, 64)()]


NETS = (
    _video("resnet.create_resnet", image(1, 3, 4, 64, 64), "ResBlock", stem_dim_out=8,
           head_pool_kernel_size=(4, 2, 2)),
    _video("slowfast.create_slowfast", lambda: (_paths(),), "ResBlock",
           head_pool_kernel_sizes=((4, 2, 2), (16, 2, 2)), stem_dim_outs=(16, 8),
           slowfast_channel_reduction_ratio=(2,)),
    _video("x3d.create_x3d", image(1, 3, 4, 64, 64), "ResBlock", input_clip_length=4,
           input_crop_size=64, width_factor=1.0, depth_factor=1.0),
    _video("csn.create_csn", image(1, 3, 8, 64, 64), "ResBlock", stem_dim_out=8,
           head_pool_kernel_size=(1, 2, 2)),
    _video("r2plus1d.create_r2plus1d", image(1, 3, 8, 64, 64), "ResBlock", stem_dim_out=8,
           head_pool_kernel_size=(1, 2, 2)),
    _light("resnet-9", "BasicBlock"),
    _light("resnet-18", "BasicBlock"),
    _light("resnet-50", "Bottleneck"),
)  # fmt: skip
