"""torchaudio and speechbrain: waveforms and spectrograms."""

from __future__ import annotations

from typing import Any

import torch

from tests.wild.network import Maker, Wild, image, integers, made, net, several


def _audio(name: str, path: str, example: Maker, *blocks: str, arguments: tuple[Any, ...],
           **options: Any) -> Wild:  # fmt: skip
    maker = made(f"torchaudio.models.{path}", *arguments, **options)
    return net(f"torchaudio/{name}", maker, example, *blocks)


def _speech(path: str, example: Maker, *blocks: str, arguments: tuple[Any, ...] = (),
            **options: Any) -> Wild:  # fmt: skip
    maker = made(f"speechbrain.lobes.models.{path}", *arguments, **options)
    return net(f"speechbrain/{path.split('.')[-1]}", maker, example, *blocks)


_MEL = image(2, 16, 40)

NETS = (
    _audio("ConvTasNet", "ConvTasNet", image(2, 1, 400), "ConvBlock",
           arguments=(2, 16, 16, 3, 8, 16, 3, 2)),
    _audio("Wav2Letter", "Wav2Letter", image(2, 13, 100), arguments=(8, "mfcc", 13)),
    _audio("Wav2Letter-waveform", "Wav2Letter", image(1, 1, 8000), arguments=(8,)),
    _audio("HDemucs", "HDemucs", image(1, 2, 8192), arguments=(["a", "b"],), channels=4,
           nfft=1024, depth=4),
    _audio("MelResNet", "wavernn.MelResNet", _MEL, "ResBlock", arguments=(3, 16, 16, 16, 5)),
    _audio("UpsampleNetwork", "wavernn.UpsampleNetwork", _MEL, "ResBlock",
           arguments=([2, 4], 3, 16, 16, 16, 5)),
    _audio("Tacotron2-postnet", "tacotron2._Postnet", _MEL, arguments=(16, 16, 5, 4)),
    _audio("Conformer", "Conformer", several(image(2, 20, 16), lambda: torch.tensor([20, 18])),
           arguments=(16, 2, 16, 2, 5)),
    _speech("HifiGAN.HifiganGenerator", image(2, 16, 20), "ResBlock1",
            arguments=(16, 1, "1", [[1, 3, 5]] * 2, [3, 7], [8, 4], 16, [4, 2])),
    _speech("HifiGAN.MultiScaleDiscriminator", image(1, 1, 4000)),
    _speech("HifiGAN.MultiPeriodDiscriminator", image(1, 1, 4000)),
    _speech("ContextNet.ContextNet", image(2, 40, 80), "ContextNetBlock",
            arguments=((2, 40, 80), 16, [16] * 7, 3, [1, 1, 2, 1, 1, 1, 2], 7, 2, 4)),
    _speech("ECAPA_TDNN.ECAPA_TDNN", image(2, 50, 20), "SERes2NetBlock", arguments=(20,),
            lin_neurons=8, channels=[16] * 4 + [48], attention_channels=8, res2net_scale=4,
            se_channels=8),
    _speech("Xvector.Xvector", image(2, 50, 20), in_channels=20, tdnn_channels=[16] * 4 + [32],
            lin_neurons=8),
    _speech("ResNet.ResNet", image(2, 50, 40), "BasicBlock", "SEBasicBlock", arguments=(40,),
            channels=[8, 8, 16, 16], block_sizes=[2, 2, 2, 2], lin_neurons=8),
    _speech("EnhanceResnet.EnhanceResnet", image(1, 8000), "ConvBlock",
            channel_counts=[8, 8, 16, 16], dense_nodes=16),
    _speech("Cnn14.Cnn14", image(2, 64, 64), "ConvBlock", arguments=(64, 64)),
    _speech("conv_tasnet.MaskNet", image(2, 16, 50), "TemporalBlock",
            arguments=(16, 8, 16, 3, 2, 2, 2)),
    _speech("DiffWave.DiffWave", several(image(1, 1, 2560), integers(9, 1), image(1, 80, 10)),
            "ResidualBlock", arguments=(80, 6, 16, 3, 50)),
    _speech("convolution.ConvolutionFrontEnd", image(2, 50, 40), "ConvBlock",
            arguments=((8, 10, 40),), out_channels=[8, 8, 8], residuals=[True] * 3),
    _speech("discrete.dac.DAC", image(1, 1, 1024), "ResidualUnit",
            arguments=(8, [2, 4]), decoder_dim=32, decoder_rates=[4, 2], n_codebooks=2,
            codebook_size=16, load_pretrained=False),
    _speech("MetricGAN.MetricDiscriminator", image(1, 2, 257, 50)),
)  # fmt: skip
