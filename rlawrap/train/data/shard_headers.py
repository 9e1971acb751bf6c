"""What a tar shard holds, read from the headers of its members."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rlawrap.errors import DataError, few, printable
from rlawrap.train.data.endings import ignored_words, readable_endings

SHARD_CLASS = re.compile(rb"\s*\d+\s*")
#: Members that belong to a sample and hold no image.
SIDE_FILES = frozenset({"cls", "json", "txt"})


@dataclass(kw_only=True)
class LeftOut:
    """Members that are no samples: others by ending; links; images that share a sample."""

    ignored: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What was left out, in words.

        >>> LeftOut(links=["d/1.png"]).sentences()
        ['1 links ignored: members that point at an image rather than hold one (d/1.png)']
        """
        words = [ignored_words(self.ignored)]
        for names, why in (
            (self.links, "links ignored: members that point at an image rather than hold one"),
            (self.twice, "images ignored: a later one has the same name up to the first dot"),
        ):
            if names:
                words.append(f"{len(names)} {why} ({few([printable(n) for n in names], 3)})")
        return [each for each in words if each]


def read_headers(
    shard: Path, left_out: LeftOut
) -> tuple[dict[str, tuple[str, int, int]], dict[str, int]]:
    """Images (name, offset, size) and class numbers of one shard, by key; adds to `left_out`.

    Raises `DataError` for a file that is no uncompressed tar, and a class that is no number.
    """
    endings = readable_endings()
    images: dict[str, tuple[str, int, int]] = {}
    numbers: dict[str, int] = {}
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key, is_image = f"{folder}/{stem}", f".{ending.lower()}" in endings
                if is_image and (member.islnk() or member.issym()):
                    left_out.links.append(member.name)
                elif not member.isfile():
                    pass
                elif is_image:
                    if key in images:
                        left_out.twice.append(images[key][0])
                    images[key] = (member.name, member.offset_data, member.size)
                elif ending == "cls":
                    numbers[key] = _class_number(shard, tar, member)
                elif ending.lower() not in SIDE_FILES:
                    left_out.ignored[f".{ending.lower()}"] += 1
                tar.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
        with shard.open("rb") as file:  # tarfile takes a file cut short for a whole one
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end-of-archive block")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a whole, uncompressed tar file ({error}).") from error
    return images, numbers


def _class_number(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if not SHARD_CLASS.fullmatch(content):
        raise DataError(f"{shard}:{member.name}: {content[:20]!r} is not a class number.")
    return int(content)
