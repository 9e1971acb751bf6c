from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset

from rlawrap.errors import DataError
from rlawrap.train.data.given import GivenImages, class_names


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        return item() if callable(item) else item


GOOD = (torch.zeros(1, 4, 4), 1)


def drawn() -> Any:
    noise = torch.rand(1, 2, 2) + random.random() + float(np.random.rand())  # noqa: NPY002
    return noise, 0


def test_all_that_an_item_draws_follows_seed_epoch_and_index() -> None:
    images = GivenImages(Listed([drawn, drawn]), ["a"], "training")
    states = torch.get_rng_state(), random.getstate()
    first = images.load(0, seed=1, epoch=2)[0]
    assert torch.equal(images.load(0, seed=1, epoch=2)[0], first)
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        index, seed, epoch = other
        assert not torch.equal(images.load(index, seed=seed, epoch=epoch)[0], first)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the training set is empty"),
        ([{"image": 1}], "item 0 of the training set is a dict, not a pair"),
        ([("picture", 1)], "its image is a str, not a tensor.*ToTensor"),
        ([(torch.zeros(1, 4, 4, dtype=torch.uint8), 1)], "torch.uint8 of shape"),
        ([(torch.zeros(4), 1)], r"of shape \(4,\); expected"),
        ([(torch.zeros(1, 4, 4), "cat")], "its label is 'cat'; expected the number"),
        ([(torch.zeros(1, 4, 4), 1.7)], "its label is 1.7; expected the number"),
        ([(torch.zeros(1, 4, 4), torch.tensor(0.5))], r"its label is tensor\(0.5000\)"),
        ([(torch.zeros(1, 4, 4), float("inf"))], "its label is inf"),
        ([(torch.zeros(1, 4, 4), float("nan"))], "its label is nan"),
        ([(torch.zeros(1, 4, 4), torch.eye(2)[0])], r"its label is tensor\(\[1"),
        ([(torch.zeros(1, 4, 4), 2)], "has class 2, but there are 2 classes"),
        ([(torch.zeros(1, 4, 4), -1)], "has class -1"),
    ],
)
def test_items_that_are_no_pairs_are_named(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GivenImages(Listed(items), ["a", "b"], "training")


def test_a_stream_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([GOOD])

    class Counted(Stream):
        def __len__(self) -> int:
            return 1

    for stream in (Stream(), Counted()):
        with pytest.raises(DataError, match="without a length"):
            GivenImages(stream, ["a", "b"], "test")


@pytest.mark.parametrize("label", [1, 1.0, "1", True, np.float32(1), torch.tensor([1])])
def test_a_label_may_be_any_whole_number(label: Any) -> None:
    images = GivenImages(Listed([(GOOD[0], label)]), ("0", "1"), "test")
    image, number = images.load(0, seed=0, epoch=0)
    assert number == 1 and type(number) is int and torch.equal(image, GOOD[0])


def test_images_of_several_sizes_are_named() -> None:
    images = GivenImages(Listed([GOOD, (torch.zeros(1, 4, 5), 0)]), range(2), "training")
    assert images.classes == ("0", "1")
    message = r"item 1 of the training set .* shape \(1, 4, 5\), but item 0 has one of \(1, 4, 4\)"
    with pytest.raises(DataError, match=message):
        images.load(1, seed=0, epoch=0)


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    """Strings of pandas are objects, whose bytes in an array are addresses."""

    def of(targets: Any, image: torch.Tensor = GOOD[0]) -> str:
        data = Listed([(image, 1)])
        data.targets = targets  # type: ignore[attr-defined]
        return GivenImages(data, ("0", "1"), "training").fingerprint()

    def words(*values: str) -> Any:
        return np.array(["".join(list(value)) for value in values], dtype=object)

    assert of(words("cat", "dog")) == of(words("cat", "dog")) != of(words("cat", "cow"))
    assert of([object()]) == of([object()])
    assert of([[1], [1, 2]]) == of([[1], [1, 2]]) != of([[1], [1, 3]])
    assert of([1, 2]) == of(torch.tensor([1, 2]))
    assert of(None, GOOD[0].bfloat16()) != of(None) == of(None, GOOD[0].clone().requires_grad_())


def test_the_fingerprint_tells_data_apart() -> None:
    def of(items: list[Any], classes: tuple[str, ...] = ("a", "b")) -> str:
        return GivenImages(Listed(items), classes, "training").fingerprint()

    assert of([GOOD, GOOD]) == of([GOOD, GOOD])
    others = [
        of([GOOD]), of([GOOD, GOOD], ("a", "c")), of([GOOD, (torch.zeros(1, 4, 4), 0)]),
        of([(torch.ones(1, 4, 4), 1), GOOD]),
    ]  # fmt: skip
    assert len({of([GOOD, GOOD]), *others}) == 5


def test_class_names_are_the_data_sets_own_when_they_fit() -> None:
    data = Listed([GOOD])
    data.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    assert class_names(Subset(data, [0]), 2) == ("cat", "dog")
    assert class_names(data, 3) == ("0", "1", "2")
    for other in (3, "abc"):
        data.classes = other  # type: ignore[attr-defined]
        assert class_names(data, 3) == ("0", "1", "2")
