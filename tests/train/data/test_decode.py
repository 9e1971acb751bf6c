from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data.decode import decode


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels(kind: str) -> None:
    tensor = decode(encoded(Image.fromarray(NOISE), kind), 3, "x")
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), NOISE)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    tensor = decode(encoded(Image.fromarray(NOISE).convert(mode), kind), 3, "x")
    assert tensor.shape == (3, 40, 60)


def test_a_palette_with_transparency_warns_nobody() -> None:
    image = Image.fromarray(NOISE).convert("P")
    content = encoded(image, "PNG", transparency=bytes(range(256)))
    assert decode(content, 3, "x").shape == (3, 40, 60)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_short_is_an_error_with_its_name(kind: str) -> None:
    content = encoded(Image.fromarray(NOISE), kind)
    with pytest.raises(DataError, match=r"dog/7\.x: a broken image"):
        decode(content[: len(content) // 2], 3, "dog/7.x")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_an_error(content: bytes) -> None:
    with pytest.raises(DataError, match=r"x: a broken image \(UnidentifiedImageError: [^<>]*\)"):
        decode(content, 3, "x")


def test_a_decompression_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="DecompressionBomb"):
        decode(encoded(Image.fromarray(NOISE), "PNG"), 3, "x")
