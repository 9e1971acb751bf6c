"""`python -m rlawrap.train`: one of the processes that torchrun starts, and how it ends.

It takes the options of `rlawrap train`.
"""

from __future__ import annotations

import os
import sys

from rlawrap import _torch
from rlawrap.errors import RLAError
from rlawrap.streams import complain, steady
from rlawrap.train.commands.launch import has_failed, note_failure
from rlawrap.train.commands.train_command import train_app


def main(arguments: list[str] | None = None) -> None:
    """`python -m rlawrap.train`: the options of `rlawrap train`, in each process of torchrun."""
    rank = os.environ.get("RANK", "0")
    if has_failed():
        _leave(2)
    try:
        train_app(args=arguments, prog_name="python -m rlawrap.train")
    except RLAError as error:
        if not error.restart_may_help:
            note_failure(str(error))
        if not error.told_by_first:
            _say(error, rank)
        _leave(2)
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not _torch.is_lost_peer(error):
            raise
        _say(f"process {rank} lost another: {_torch.without_source_line(error)}", rank)
        _leave(1)
    except SystemExit as leaving:
        # Of click, for a second Ctrl-C, say: the others may hang, and are not waited for.
        _leave(leaving.code if isinstance(leaving.code, int) else 0 if not leaving.code else 1)


def _say(error: object, rank: str) -> None:
    prefix = "rlawrap train" if rank == "0" else f"rlawrap train (process {rank})"
    complain(f"{prefix}: {error}")


def _leave(code: int) -> None:
    """End this process without waiting for others that may be gone."""
    steady(sys.stdout).flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)
    sys.exit(code)
