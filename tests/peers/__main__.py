"""`python -m tests.peers`: timm's own model tests, on networks that `rlawrap.apply` rewrote.

The tests come from timm's source distribution, of the version that is installed; they are fetched
by pip into `.peers/` and nothing of them is kept in this repository. Those that build a network and
run it forward, backward, through torch.fx and through TorchScript are run; those that ask for
methods which a rewritten network does not have (features, pretrained weights) are not.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(".peers")
TESTS = (
    "test_model_forward",
    "test_model_backward",
    "test_model_forward_fx",
    "test_model_backward_fx",
)


def timm_tests() -> Path:
    """timm's file of model tests, fetched if it is not there yet."""
    name = f"timm-{version('timm')}"
    file = FOLDER / name / "test_models.py"
    if not file.is_file():
        FOLDER.mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        wanted = name.replace("-", "==")
        subprocess.run([*pip, "--no-binary", "timm", "--dest", str(FOLDER), wanted], check=True)
        with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
            # Alone, without the package around it, whose name would be that of our own tests.
            member = archive.getmember(f"{name}/tests/test_models.py")
            member.name = "test_models.py"
            archive.extract(member, file.parent, filter="data")
    return file


def main() -> int:
    file = timm_tests()
    settings = file.parent / "pytest.ini"  # not ours, under which a warning is an error
    settings.write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.peers.wrap_timm"]
    command += ["-W", "ignore", "-c", str(settings), "--rootdir", str(file.parent)]
    command += [*sys.argv[1:], *(f"{file}::{test}" for test in TESTS)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
