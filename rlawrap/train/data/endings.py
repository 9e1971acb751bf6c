"""Which files are images: by their endings, as far as Pillow reads them here."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from PIL import Image

from rlawrap.errors import few

#: What Pillow has an ending for and opens only to name it, needs another program for (EPS), or what
#: is a film, a document or a table of numbers rather than an image.
NO_IMAGES = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"})

#: Other names of JPEG files; Pillow goes by what is in a file.
MORE_JPEG = frozenset({".jif", ".jfi", ".pjpeg", ".pjp"})

#: Images that Pillow may lack a decoder for; a message tells them from files that are none.
OTHER_IMAGES = frozenset(
    {
        ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".svg", ".eps", ".exr",
        ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".dcm", ".nii",
        ".webp", ".jp2", ".npy", ".npz", ".mat",
    }
)  # fmt: skip


@functools.cache
def _registered() -> frozenset[str]:
    Image.init()
    return frozenset(
        ending.lower()
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NO_IMAGES
    )


def readable_endings() -> frozenset[str]:
    """The endings of image files that Pillow reads here, in small letters, with their dot.

    They differ between machines where Pillow was built without a decoder (AVIF, WebP), and with
    plug-ins that were registered before the first call.

    >>> {".jpg", ".jfif", ".png"} <= readable_endings(), ".pdf" in readable_endings()
    (True, False)
    """
    return _registered() | MORE_JPEG | {".mpo"}


def ending_of(name: str) -> str:
    """The ending of a file name in small letters, with its dot; empty when there is none.

    >>> ending_of("a.b.JPG"), ending_of("README"), ending_of(".hidden")
    ('.jpg', '', '')
    """
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def ignored_words(counts: Mapping[str, int]) -> str:
    """What was left out, by ending, in words; empty when nothing was.

    >>> ignored_words({".txt": 2, "": 1})
    '3 files ignored: no image by their ending (.txt 2, none 1)'
    >>> ignored_words({".heic": 4})
    '4 files ignored: Pillow cannot read them here (.heic 4)'
    """
    unread = {e: n for e, n in counts.items() if e in OTHER_IMAGES}
    others = {e: n for e, n in counts.items() if e not in OTHER_IMAGES}
    reasons = [
        f"{reason} ({_listing(some)})"
        for reason, some in (
            ("Pillow cannot read them here", unread),
            ("no image by their ending", others),
        )
        if some
    ]
    return f"{sum(counts.values())} files ignored: {'; '.join(reasons)}" if reasons else ""


def _listing(counts: Mapping[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return few([f"{ending or 'none'} {count}" for ending, count in most_first])
