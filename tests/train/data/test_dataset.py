from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.data import SKIPPED, AugmentConfig, ImageDataset, drop_skipped, open_data
from rlawrap.train.data.arrays import ArraySource
from rlawrap.train.data.dataset import choose_subset, to_channels
from rlawrap.train.data.loader import PartDataset, make_loader
from rlawrap.train.data.sampler import EvalSampler
from rlawrap.train.data.workers import worker_init
from tests.train.data.trees import MakeTree

ALL = AugmentConfig(crop="resized", randaugment=2, erase=0.5)


def arrays(count: int = 12, **changes: object) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), dtype=np.uint8)
    options: dict[str, object] = {
        "classes": ("a", "b", "c"),
        "mean": (0.5,),
        "std": (0.5,),
        "description": "arrays",
    }
    return ArraySource(images, np.arange(count) % 3, **{**options, **changes})  # type: ignore[arg-type]


def dataset(**options: object) -> ImageDataset:
    options = {"split": "train", "image_size": 16, "augment": ALL, **options}
    return ImageDataset(arrays(), **options)  # type: ignore[arg-type]


class Epoch(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, data: ImageDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.data.load(index, seed=3, epoch=5)


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    data = dataset()
    first = {i: data.load(i, seed=3, epoch=5)[0] for i in range(len(data))}
    torch.rand(7)
    for index in reversed(range(len(data))):
        assert torch.equal(data.load(index, seed=3, epoch=5)[0], first[index])
    assert not torch.equal(data.load(0, seed=4, epoch=5)[0], first[0])
    assert not torch.equal(data.load(0, seed=3, epoch=6)[0], first[0])
    assert not torch.equal(data.load(0, seed=5, epoch=3)[0], first[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_give_the_same_bits(workers: int) -> None:
    data = dataset()
    loader = DataLoader(Epoch(data), 4, num_workers=workers, worker_init_fn=worker_init)
    for number, (images, labels) in enumerate(loader):
        for place in range(4):
            image, label = data.load(4 * number + place, seed=3, epoch=5)
            assert torch.equal(images[place], image)
            assert int(labels[place]) == label


def test_loading_leaves_the_global_random_state_alone() -> None:
    data = dataset()
    before = torch.get_rng_state()
    data.load(0, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_not_augmented() -> None:
    data = dataset(split="test")
    assert torch.equal(data.load(1, seed=0, epoch=0)[0], data.load(1, seed=8, epoch=9)[0])


def test_items_labels_counts_and_shape() -> None:
    data = dataset(in_channels=1)
    image, label = data[4]
    assert image.shape == (1, 16, 16) and image.dtype == torch.float32
    assert label == 1 and data.labels.tolist() == [0, 1, 2] * 4
    assert data.class_counts() == {"a": 4, "b": 4, "c": 4}
    assert data.name(4) == "arrays, image 4"
    with pytest.raises(IndexError):
        data.load(12, seed=0, epoch=0)
    with pytest.raises(IndexError):
        data.load(-1, seed=0, epoch=0)


def test_a_subset_loads_the_images_it_names() -> None:
    whole = dataset(split="test")
    part = dataset(split="test", indices=np.array([7, 2]))
    assert len(part) == 2 and part.labels.tolist() == [1, 2]
    assert torch.equal(part[0][0], whole[7][0])
    assert part.name(1) == "arrays, image 2"


def test_fingerprint_changes_with_a_pixel_a_label_a_class_and_the_subset() -> None:
    base = dataset().fingerprint()
    assert dataset(split="test", image_size=20, augment=None).fingerprint() == base
    changed = arrays()
    changed.images[3, 0, 0, 0] ^= 1
    relabelled = arrays()
    relabelled.labels[3] = 2
    others = [changed, relabelled, arrays(classes=("a", "b", "d"))]
    prints = {ImageDataset(o, split="train", image_size=16).fingerprint() for o in others}
    prints.add(dataset(indices=np.arange(11)).fingerprint())
    assert len(prints | {base}) == 5


def test_grey_and_colour_are_converted() -> None:
    grey = torch.tensor([[[7, 200]]], dtype=torch.uint8)
    assert to_channels(grey, 3).tolist() == [[[7, 200]]] * 3
    assert to_channels(to_channels(grey, 3), 1).tolist() == grey.tolist()
    red = torch.tensor([[[255]], [[0]], [[0]]], dtype=torch.uint8)
    assert to_channels(red, 1).tolist() == [[[76]]]


def test_own_mean_and_std_are_used() -> None:
    source = ArraySource(
        np.full((1, 16, 16, 3), 255, np.uint8),
        np.zeros(1, np.int64),
        classes=("a",),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        description="white",
    )
    config = AugmentConfig(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.4))
    data = ImageDataset(source, split="test", image_size=16, augment=config)
    assert torch.allclose(data[0][0].mean((1, 2)), torch.tensor([8.0, 3.0, 1.0]))
    with pytest.raises(ConfigError, match="mean"):
        ImageDataset(source, split="test", image_size=16, augment=AugmentConfig(mean=(0.1, 0.2)))


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"split": "val"}, {"on_bad_image": "warn"}, {"in_channels": 2}],
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        dataset(**wrong)


def test_choose_subset_is_even_repeatable_and_ordered() -> None:
    labels = np.array([0] * 50 + [1] * 30 + [2] * 2)
    chosen = choose_subset(labels, 20)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert np.bincount(labels[chosen]).tolist() == [9, 9, 2]
    assert np.array_equal(chosen, choose_subset(labels, 20))
    assert choose_subset(labels, 10**6).tolist() == list(range(82))
    with pytest.raises(ConfigError):
        choose_subset(labels, 0)


def test_a_larger_subset_contains_the_smaller() -> None:
    labels = np.arange(60) % 4
    assert set(choose_subset(labels, 12).tolist()) < set(choose_subset(labels, 20).tolist())


def test_a_broken_image_is_fatal_and_named(broken_tree: Path) -> None:
    data = open_data(broken_tree, image_size=16)
    bad = [i for i in range(len(data)) if data.name(i).endswith("broken.jpg")]
    assert len(bad) == 1
    with pytest.raises(DataError, match=r"broken\.jpg: a broken image"):
        data.load(bad[0], seed=0, epoch=0)


def test_a_broken_image_is_skipped_named_and_counted(
    broken_tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_data(broken_tree, image_size=16, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        samples = [data.load(i, seed=0, epoch=0) for i in range(len(data))]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["skipped"]
    assert "broken.jpg" in caplog.text
    images = torch.stack([image for image, _ in samples])
    labels = torch.tensor([label for _, label in samples])
    assert labels.tolist().count(SKIPPED) == 1
    kept, kept_labels, skipped = drop_skipped(images, labels)
    assert (len(kept), skipped) == (len(data) - 1, 1)
    assert kept_labels.min() >= 0


@pytest.fixture
def broken_tree(make_tree: MakeTree) -> Path:
    root = make_tree("train", cat=2, dog=2)
    (root / "train" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0not a JPEG")
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_the_trainers_loader_raises_the_error_as_it_is(broken_tree: Path, workers: int) -> None:
    loader = make_loader(
        PartDataset(open_data(broken_tree, image_size=16), num_classes=2),
        EvalSampler(5, batch_size=5),
        workers=workers,
        prefetch=1,
        device=torch.device("cpu"),
    )
    with pytest.raises(DataError) as raised:
        next(iter(loader))
    assert "broken.jpg" in str(raised.value) and "Traceback" not in str(raised.value)
    loader.kill_workers()


LOOP = """
import signal, sys, time
# A background job starts with SIGINT ignored; at a terminal it is not.
signal.signal(signal.SIGINT, signal.default_int_handler)
from torch.utils.data import DataLoader
from rlawrap.train.data import ImageDataset, open_data, worker_init

class Slow(ImageDataset):
    def load(self, index, *, seed, epoch):
        time.sleep(0.05)
        return super().load(index, seed=seed, epoch=epoch)

data = open_data("builtin", image_size=32)
data.__class__ = Slow
print("ready", flush=True)
for _ in DataLoader(data, 4, num_workers=2, worker_init_fn=worker_init):
    print("batch", flush=True)
"""


def test_ctrl_c_ends_a_loader_at_once_and_workers_stay_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    with process:
        try:
            assert process.stdout is not None
            # The second batch comes from the second worker, which by then leaves Ctrl-C alone.
            told = [process.stdout.readline() for _ in range(3)]
            assert told == ["ready\n", "batch\n", "batch\n"]
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
            _, errors = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert "worker process" not in errors


@pytest.mark.parametrize(
    ("batch", "said"), [("1", ""), ("threading.Lock()", "cannot pickle")], ids=["gone", "other"]
)
def test_a_worker_is_quiet_of_a_batch_that_nobody_reads(batch: str, said: str) -> None:
    code = (
        "import multiprocessing, threading\n"
        "from rlawrap.train.data import worker_init\n"
        "worker_init(0)\n"
        "queue = multiprocessing.Queue()\n"
        "queue._reader.close()\n"
        f"queue.put({batch})\n"
        "queue.close()\n"
        "queue.join_thread()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0
    assert (said in done.stderr) if said else (done.stderr == "")


def test_a_resize_that_leaves_black_borders_is_refused_in_training() -> None:
    small = AugmentConfig(resize=40)
    with pytest.raises(ConfigError, match=r"resize=40: smaller than image_size=64.* 73, as usual"):
        open_data(image_size=64, augment=small)
    assert open_data(split="test", image_size=64, augment=small)[0][0].shape == (1, 64, 64)
    assert open_data(image_size=40, augment=small)[0][0].shape == (1, 40, 40)
