"""super-image and spandrel: super-resolution, denoising and restoration."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, configured, image, made, net, positive

PIXELS = positive(1, 3, 32, 32)


def _super(name: str, *blocks: str, **options: Any) -> Wild:
    maker = configured(f"super_image.{name}Model", f"super_image.{name}Config", scale=2, **options)
    return net(f"super-image/{name}", maker, PIXELS, *blocks)


def _span(path: str, *blocks: str, example: Maker = PIXELS, **options: Any) -> Wild:
    folder, file, name = path.split(".")
    maker = made(f"spandrel.architectures.{folder}.__arch.{file}.{name}", **options)
    return net(f"spandrel/{name}", maker, example, *blocks)


NETS = (
    _super("Edsr", "ResBlock", n_resblocks=4, n_feats=8),
    _super("Carn"),
    _super("A2n", "A2Block"),
    _super("Pan", "SCPA", bam=True),
    _super("Msrn", "MsrBamBlock", bam=True),
    _super("Awsrn", "AWRU"),
    _super("Mdsr", "ResBlock", n_resblocks=3, n_feats=8),
    _super("Rcan", "RCAB", n_resgroups=2, n_resblocks=2, n_feats=16),
    _super("Drln"),
    _super("Drn", "RCAB"),
    _super("Ddbpn"),
    _span("ESRGAN.RRDB.RRDBNet", "ResidualDenseBlock_5C", in_nc=3, out_nc=3, num_filters=16,
          num_blocks=2),
    _span("Compact.SRVGG.SRVGGNetCompact", num_feat=8, num_conv=6),
    _span("DnCNN.network_dncnn.DnCNN", in_nc=3, out_nc=3, nc=8, nb=7),
    _span("DRUNet.network_unet.DRUNet", "ResBlock", in_nc=3, out_nc=3, nc=[8, 16, 24, 32], nb=2),
    _span("FBCNN.FBCNN.FBCNN", "ResBlock", "QFAttention", nc=[8, 16, 24, 512], nb=2),
    _span("NAFNet.NAFNet_arch.NAFNet", "NAFBlock", width=8, middle_blk_num=1,
          enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    _span("SPAN.span.SPAN", "SPAB", num_in_ch=3, num_out_ch=3, feature_channels=8),
    _span("PLKSR.PLKSR.PLKSR", "PLKBlock", dim=8, n_blocks=4),
    _span("SAFMN.safmn.SAFMN", "AttBlock", dim=8, n_blocks=3),
    _span("MoSR.mosr_arch.MoSR", "GatedCNNBlock", n_block=3, dim=8),
    _span("MixDehazeNet.MixDehazeNet.MixDehazeNet", embed_dims=[8, 16, 24, 16, 8],
          depths=[1, 1, 2, 1, 1], example=image(1, 3, 64, 64)),
    _span("RCAN.rcan_arch.RCAN", "RCAB", n_resgroups=2, n_resblocks=2, n_feats=16),
    _span("MoESR.MoESR.MoESR", dim=8, n_blocks=2, n_block=2),
)  # fmt: skip
