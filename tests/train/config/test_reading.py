from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError, RLAError
from rlawrap.train import TrainConfig
from rlawrap.train.config.reading import read_config
from rlawrap.train.data import AugmentConfig

WANTED = TrainConfig(
    arch="rla_resnet50",
    model_kwargs={"k": 8},
    lr=3e-4,
    weight_decay=0.5,
    freeze=("stem", "layer1"),
    tf32=False,
    augment=AugmentConfig(mixup=0.2, scale=(0.3, 1.0)),
)
TEXTS = {
    "yaml": """
        arch: rla_resnet50
        model_kwargs: {k: 8}
        lr: 3e-4  # text in YAML 1.1
        weight_decay: 0.5e0
        freeze: [stem, layer1]
        tf32: no
        augment:
          mixup: 0.2
          scale: [0.3, 1]
        """,
    "toml": """
        arch = "rla_resnet50"
        model_kwargs = {k = 8}
        lr = 3e-4
        weight_decay = 0.5
        freeze = ["stem", "layer1"]
        tf32 = false
        [augment]
        mixup = 0.2
        scale = [0.3, 1]
        """,
    "json": WANTED.model_dump_json(),
}


@pytest.mark.parametrize("ending", TEXTS)
def test_a_file_is_read_by_its_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"config.{ending}"
    path.write_text(TEXTS[ending])
    assert read_config(str(path)) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "lr: [1", "not YAML .*line 1"),
        ("a.yml", "- lr", "YAML, but not an object"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "not YAML"),
        ("a.toml", "lr = ", "not TOML"),
        ("a.txt", "lr = 1", "not JSON"),
        ("a.toml", "lr = 'high'", "lr='high': should be a valid number"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_config(str(tmp_path / name))


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").touch()
    with pytest.raises(RLAError, match=r"pip install 'rlawrap\[train\]'"):
        read_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "found"), [("1: 2", "1"), ("on: 2", "True"), ("augment: {off: 2}", "False")]
)
def test_keys_that_are_no_names_are_told(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"--config: {found} is no name of a field"):
        read_config(str(tmp_path / "c.yaml"))
