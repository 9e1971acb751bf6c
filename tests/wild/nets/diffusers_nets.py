"""diffusers: the denoising networks and autoencoders that convolve."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, image, integers, made, named, net, several


def _net(label: str, kind: str, example: Maker, *blocks: str, **options: Any) -> Wild:
    return net(f"diffusers/{label}", made(f"diffusers.{kind}", **options), example, *blocks)


_TWO = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
_CODER = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
_NOISY = several(image(2, 3, 32, 32), integers(9, 2))
_TEXT = image(2, 5, 8)
_DC = {
    f"{side}_{what}": value
    for side in ("encoder", "decoder")
    for what, value in (
        ("block_types", ("ResBlock", "ResBlock")),
        ("block_out_channels", (8, 16)),
        ("layers_per_block", (1, 1)),
        ("qkv_multiscales", ((), ())),
    )
}

NETS = (
    _net("UNet2DModel", "UNet2DModel", _NOISY, "ResnetBlock2D", sample_size=32, **_TWO,
         down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
         add_attention=False),
    _net("UNet2DModel-attention", "UNet2DModel", _NOISY, "ResnetBlock2D", sample_size=32, **_TWO,
         down_block_types=("DownBlock2D", "AttnDownBlock2D"),
         up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4),
    _net("UNet2DConditionModel", "UNet2DConditionModel",
         named(sample=image(2, 4, 32, 32), timestep=integers(9, 2), encoder_hidden_states=_TEXT),
         "ResnetBlock2D", sample_size=32, **_TWO,
         down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
         up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=8,
         attention_head_dim=4),
    _net("UNet3DConditionModel", "UNet3DConditionModel",
         named(sample=image(1, 4, 3, 16, 16), timestep=integers(9, 1),
               encoder_hidden_states=image(1, 5, 8)),
         sample_size=16, **_TWO, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
         up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=8,
         attention_head_dim=4),
    _net("ControlNetModel", "ControlNetModel",
         named(sample=image(2, 4, 16, 16), timestep=integers(9, 2), encoder_hidden_states=_TEXT,
               controlnet_cond=image(2, 3, 32, 32)),
         "ResnetBlock2D", **_TWO, down_block_types=("DownBlock2D",) * 2, cross_attention_dim=8,
         attention_head_dim=4, conditioning_embedding_out_channels=(4, 8),
         mid_block_type="UNetMidBlock2D"),
    _net("T2IAdapter", "T2IAdapter", image(2, 3, 64, 64), "AdapterResnetBlock",
         channels=[8, 16, 16, 16], num_res_blocks=2, downscale_factor=8),
    _net("AutoencoderKL", "AutoencoderKL", image(2, 3, 32, 32), "ResnetBlock2D", **_CODER),
    _net("AutoencoderTiny", "AutoencoderTiny", image(2, 3, 32, 32), "AutoencoderTinyBlock",
         encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
         num_encoder_blocks=(1, 2, 2, 2), num_decoder_blocks=(2, 2, 2, 1)),
    _net("VQModel", "VQModel", image(2, 3, 32, 32), "ResnetBlock2D", **_CODER,
         num_vq_embeddings=16),
    _net("AsymmetricAutoencoderKL", "AsymmetricAutoencoderKL", image(2, 3, 32, 32),
         "ResnetBlock2D", down_block_out_channels=(8, 16), up_block_out_channels=(8, 16),
         down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
         norm_num_groups=4),
    _net("AutoencoderDC", "AutoencoderDC", image(2, 3, 32, 32), "ResBlock", latent_channels=4,
         decoder_norm_types=("rms_norm",) * 2, decoder_act_fns=("silu",) * 2, **_DC),
    _net("AutoencoderOobleck", "AutoencoderOobleck", image(1, 2, 64), encoder_hidden_size=8,
         downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8,
         decoder_input_channels=4),
    _net("AutoencoderKLWan", "AutoencoderKLWan", image(1, 3, 5, 16, 16), "WanResidualBlock",
         base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True],
         latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
    _net("AutoencoderKLCogVideoX", "AutoencoderKLCogVideoX", image(1, 3, 5, 16, 16),
         "CogVideoXResnetBlock3D", block_out_channels=(8,) * 4, layers_per_block=1,
         norm_num_groups=4, latent_channels=4),
    _net("AutoencoderKLMagvit", "AutoencoderKLMagvit", image(1, 3, 5, 16, 16),
         "EasyAnimateResidualBlock3D", block_out_channels=[8] * 4, norm_num_groups=4,
         layers_per_block=1),
    _net("AutoencoderKLLTXVideo", "AutoencoderKLLTXVideo", image(1, 3, 9, 16, 16),
         "LTXVideoResnetBlock3d", block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
         layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, patch_size=1,
         latent_channels=4),
)  # fmt: skip
