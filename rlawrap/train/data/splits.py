"""Which folders (or tar files) are the training split, which the test split, by their names.

Taking a split for a class trains on the test images in silence, so what looks like splits and is
not understood is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlawrap.errors import DataError, few, printable
from rlawrap.train.data.dataset import Split

#: Names of the splits, without case. Where there are folders of several groups (val/ and test/),
#: the first group is the split.
SPLIT_NAMES: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (("train", "training"),),
    "test": (("val", "valid", "validation", "dev"), ("test", "testing", "eval", "evaluation")),
}

# Words that tell nothing beside the name of a split: train_images, TestSet.
_FILLER = re.compile(
    r"sets?|data|datasets?|images?|imgs?|pics?|pictures?|photos?|splits?|folders?|parts?|files?|"
    r"samples?|examples?|new|final|full|all|small|resized|cropped|clean|aug|augmented|orig|"
    r"original"
)
# Words that say which split a folder is, with a filler written together with it or without.
_WORDS: dict[Split, re.Pattern[str]] = {
    "train": re.compile(rf"(train(ing|val)?|trn)({_FILLER.pattern})?"),
    "test": re.compile(
        rf"(test(ing)?|tst|val(id(ation)?)?|dev|eval(uation)?|holdout)({_FILLER.pattern})?"
    ),
}
_FOLDS = re.compile(r"(cv|fold|split|subset|partition)")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders of the splits, None for one that is not there; unused: what lies beside them."""

    train: Path | None = None
    test: Path | None = None
    unused: tuple[str, ...] = ()

    def folder(self, split: Split) -> Path | None:
        return self.train if split == "train" else self.test

    @property
    def folders(self) -> list[Path]:
        """The folders that are there."""
        return [folder for folder in (self.train, self.test) if folder is not None]


def words_of(name: str) -> list[str]:
    """The words of a name in small letters; digits only part them.

    >>> words_of("ImagesTrain_2017")
    ['images', 'train']
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.split(r"[\W\d_]+", parted) if word]


def exact_split(name: str) -> tuple[Split, int] | None:
    """The split that a name is known for, and its group in `SPLIT_NAMES`.

    >>> exact_split("Validation"), exact_split("val2017")
    (('test', 0), None)
    """
    for split, groups in SPLIT_NAMES.items():
        for number, names in enumerate(groups):
            if name.casefold() in names:
                return split, number
    return None


def likely_split(name: str) -> tuple[Split, tuple[str, ...]] | None:
    """The split that a name speaks of, and its other words with * for that of the split.

    Two names with the same other words, one for each split, belong together.

    >>> likely_split("seg_train"), likely_split("TestImages")
    (('train', ('seg', '*')), ('test', ('*',)))
    >>> likely_split("bullet_train"), likely_split("trainers")
    (('train', ('bullet', '*')), None)
    """
    found: Split | None = None
    others: list[str] = []
    for word in words_of(name):
        kinds: list[Split] = [s for s, pattern in _WORDS.items() if pattern.fullmatch(word)]
        if kinds:
            found = found or kinds[0]
            word = "*"
        elif _FILLER.fullmatch(word):
            continue
        if others[-1:] != [word]:
            others.append(word)
    return None if found is None else (found, tuple(others))


def speak_of_splits(names: Iterable[str]) -> list[str]:
    """The names that look like the splits of one data set; empty when there are no two such.

    >>> speak_of_splits(["bullet_train", "test_tube", "seg_train", "seg_test"])
    ['seg_train', 'seg_test']
    """
    likely = [(name, spoken) for name in names if (spoken := likely_split(name)) is not None]
    by_words: dict[tuple[str, ...], set[Split]] = {}
    for _, (split, words) in likely:
        by_words.setdefault(words, set()).add(split)
    return [name for name, (_, words) in likely if len(by_words[words]) == 2]


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, in order, hidden ones left out. Raises `DataError`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}).") from error


def read_layout(root: Path) -> Layout:
    """The splits below `root`; empty when its folders are classes.

    A lone train/ or val/ that holds no folders, beside folders of other names, is a class. Raises
    `DataError` for several folders of one split, and for folders that look like splits but have
    none of the names of `SPLIT_NAMES`.
    """
    names = folders_in(root)
    known = {name: split for name in names if (split := exact_split(name)) is not None}
    chosen = {split: _choose(root, split, known) for split in SPLIT_NAMES}
    there = [name for name in chosen.values() if name is not None]
    if len(there) == 1 and len(known) < len(names) and _is_class(root / there[0]):
        there = []
    if len(there) < 2:
        _refuse_likely(root, names)
    if not there:
        return Layout()
    train, test = chosen["train"], chosen["test"]
    return Layout(
        train=None if train is None else root / train,
        test=None if test is None else root / test,
        unused=tuple(name for name in names if name not in there),
    )


def slashed(names: Sequence[str], most: int = 8) -> str:
    """Names of folders for a message.

    >>> slashed(["train", "val"])
    'train/, val/'
    """
    return few([f"{printable(name)}/" for name in names], most)


def _choose(root: Path, split: Split, known: dict[str, tuple[Split, int]]) -> str | None:
    """The folder of a split, by the first group of its names that there is one of."""
    for group in range(len(SPLIT_NAMES[split])):
        found = [name for name, place in known.items() if place == (split, group)]
        if len(found) > 1:
            raise DataError(
                f"{root}: {slashed(found)} are all names of the {split} split. Keep one of them."
            )
        if found:
            return found[0]
    return None


def _is_class(folder: Path) -> bool:
    """Whether a folder with the name of a split is none: no folders are in it, nor tar files."""
    return not folders_in(folder) and not any(folder.glob("*.tar"))


def _refuse_likely(root: Path, names: Sequence[str]) -> None:
    """Raise `DataError` when folders look like splits, which `read_layout` has not understood."""
    alike = speak_of_splits(names)
    if not alike:
        alike = [
            name
            for name in names
            if exact_split(name) is None
            and (spoken := likely_split(name)) is not None
            and spoken[1] == ("*",)
            and not _is_class(root / name)
        ]
    if not alike:
        alike = _folds(root, names)
    if alike:
        raise DataError(
            f"{root}: {slashed(alike)} look like splits of the data, not like classes. Call the "
            f"folder to train on {'/ or '.join(SPLIT_NAMES['train'][0])}/, and the one to test on "
            f"{'/, '.join(name for names in SPLIT_NAMES['test'] for name in names)}/; or give the "
            "folder that holds the class folders."
        )


def _folds(root: Path, names: Sequence[str]) -> list[str]:
    """All folders, when they are called fold1, fold2, ... and hold folders of the same names."""
    if len(names) < 2 or not all(
        (words := words_of(name)) and _FOLDS.fullmatch(words[0]) for name in names
    ):
        return []
    inside = [set(folders_in(root / name)) for name in names]
    return list(names) if set.intersection(*inside) else []
