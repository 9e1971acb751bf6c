from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from rlawrap.errors import DataError
from rlawrap.train.data.decode import _eight_bits, decode


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


GREY = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60) * 27  # 0 to 64,773
EIGHT = ((GREY * 255 + 32767) // 65535).astype(np.uint8)


def tiff(pixels: np.ndarray, order: str, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, in the byte order asked for."""
    end = {"<": b"II", ">": b"MM"}[order]
    data = pixels.tobytes()
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries = [(256, pixels.shape[1]), (257, pixels.shape[0]), (258, 8 * pixels.itemsize),
               (259, 1), (262, photometric), (273, 8), (277, 1), (278, pixels.shape[0]),
               (279, len(data)), (339, form)]  # fmt: skip
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack(f"{order}2sHI", end, 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(entries)) + fields + bytes(4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "tiff <", "tiff >", "ppm", "j2k"])
def test_sixteen_bits_are_scaled_to_eight(kind: str, channels: int) -> None:
    image = Image.fromarray(GREY.astype("<u2"))
    assert image.mode == "I;16"
    content = {
        "png": lambda: encoded(image, "PNG"),
        "tiff <": lambda: tiff(GREY.astype("<u2"), "<"),
        "tiff >": lambda: tiff(GREY.astype(">u2"), ">"),
        "ppm": lambda: b"P5 60 40 65535\n" + GREY.astype(">u2").tobytes(),
        "j2k": lambda: encoded(image, "JPEG2000", irreversible=False),
    }[kind]()
    tensor = decode(content, channels, "x")
    assert tensor.shape == (channels, 40, 60)
    assert all(np.array_equal(channel, EIGHT) for channel in tensor.numpy())


def test_white_is_what_the_file_says() -> None:
    twelve = b"P5 60 40 4095\n" + (GREY // 16).astype(">u2").tobytes()
    assert np.abs(decode(twelve, 1, "x")[0].numpy().astype(int) - EIGHT).max() <= 1
    inverted = tiff(GREY.astype("<u2"), "<", photometric=0)
    assert np.array_equal(decode(inverted, 1, "x")[0], 255 - EIGHT)


def test_sixteen_bits_as_older_pillows_open_them() -> None:
    image = Image.fromarray(GREY.astype(np.int32))
    image.format = "PNG"
    assert image.mode == "I" and np.array_equal(np.asarray(_eight_bits(image)), EIGHT)


def test_sixteen_bits_of_colour() -> None:
    content = b"P6 60 40 65535\n" + np.stack([GREY] * 3, 2).astype(">u2").tobytes()
    assert np.abs(decode(content, 3, "x")[1].numpy().astype(int) - EIGHT).max() <= 1


@pytest.mark.parametrize("dtype", ["<i4", "<f4", ">i4", ">f4", "<i2", ">i2"])
def test_pixels_without_a_range_are_refused_by_name(dtype: str) -> None:
    content = tiff(GREY.astype(dtype), dtype[0])
    with pytest.raises(DataError, match=r"x\.tif: its pixels are .*mode [IF] of Pillow, TIFF"):
        decode(content, 3, "x.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_brought_upright(kind: str, orientation: int) -> None:
    stored = Image.fromarray(NOISE).resize((16, 8)).resize((64, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, kind, exif=exif, quality=95)
    with Image.open(io.BytesIO(content)) as file:
        upright = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        as_stored = np.asarray(file.convert("RGB"))
    assert upright.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    assert orientation == 1 or not np.array_equal(upright, as_stored)
    assert np.array_equal(decode(content, 3, "x").permute(1, 2, 0), upright)
    plain = decode(content, 3, "x", exif_orientation=False)
    assert np.array_equal(plain.permute(1, 2, 0), as_stored)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_there_is_not(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(NOISE), "PNG", exif=exif)
    assert np.array_equal(decode(content, 3, "x").permute(1, 2, 0), NOISE)


def test_damaged_exif_data_beside_a_sound_image() -> None:
    content = encoded(Image.fromarray(NOISE), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode(content, 3, "x").permute(1, 2, 0), NOISE)


def test_tiff_is_turned_once() -> None:
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[0x0112] = 6
    content = encoded(Image.fromarray(NOISE), "TIFF", tiffinfo=ifd)
    upright = np.asarray(Image.fromarray(NOISE).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(decode(content, 3, "x").permute(1, 2, 0), upright)
