"""One run at a time in a folder: a lock that the kernel drops when the process that has it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlawrap.errors import TrainError
from rlawrap.train.process.processes import Processes
from rlawrap.train.store.run_folder import RunFolder

#: The file in a run folder that the lock is on.
LOCK = ".lock"
#: Seconds that a process which is being killed, by torchrun for instance, has to go.
PATIENCE = 10.0
#: On another machine, which may be gone: file servers keep the locks of such for a minute or so.
PATIENCE_ELSEWHERE = 120.0

_held: set[int] = set()


def _leave_to_parent() -> None:
    """A forked loader process must not keep its parent's lock alive."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def hold_folder(
    folder: RunFolder, processes: Processes, say: Callable[[str], None], timeout: float
) -> Iterator[None]:
    """Make the run folder and be the only run in it; a folder left empty is deleted again.

    All processes enter it together; process 0 has the lock. timeout: of the others' waiting.
    Raises `TrainError` when another run is there, or the folder cannot be written to.
    """
    with ExitStack() as stack:
        processes.first_does(lambda: stack.enter_context(_locked(folder, say, timeout / 2)))
        yield


@contextmanager
def _locked(folder: RunFolder, say: Callable[[str], None], longest: float) -> Iterator[None]:
    if sys.platform == "win32":  # it has no such locks
        yield
        return
    parts = (folder.path, *folder.path.parents)
    missing = [path for path in parts if not path.exists()]
    path = folder.path / LOCK
    handle = _acquire(path, folder, say, longest)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            _held.discard(handle)
            os.close(handle)
        for made in missing:
            with contextlib.suppress(OSError):  # there is a run in it now
                made.rmdir()


def _acquire(
    path: Path, folder: RunFolder, say: Callable[[str], None], longest: float
) -> int | None:
    """The open file that holds the lock; None where the file system has no locks."""
    folder.create()
    end: float | None = None
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder left nothing in the folder, and deleted it
            folder.path.mkdir(parents=True, exist_ok=True)
            continue
        except OSError as error:
            raise TrainError(f"{path}: cannot be written ({error.strerror}).") from error
        try:
            if _lock(handle) and _is_file_of(handle, path):
                _held.add(handle)
                _sign(handle)
                return handle
            host, pid = _holder(handle)
        except OSError as error:
            os.close(handle)
            with contextlib.suppress(OSError):
                path.unlink()
            say(
                f"warning: {folder.path}: this file system has no locks ({error.strerror}), so "
                "see to it that no other run writes to the folder."
            )
            return None
        os.close(handle)
        if end is None and host:
            here = host == socket.gethostname()
            patience = min(PATIENCE if here else PATIENCE_ELSEWHERE, longest)
            end = time.monotonic() + patience
            say(f"{folder.path}: in use by process {pid} on {host}; waiting {patience:.0f} s")
        elif end is None:
            end = time.monotonic() + min(PATIENCE, longest)
        if time.monotonic() > end:
            raise TrainError(
                f"{folder.path}: another run is writing to it, process {pid or '?'} on "
                f"{host or 'an unknown machine'}. Wait for it to end or stop it with "
                f"kill -TERM {pid or 'PID'}, or choose another --output."
            )
        time.sleep(0.1)


def is_running(folder: RunFolder) -> bool | None:
    """Whether a process holds the lock of a run folder; None where that cannot be told.

    It is asked for, shared with others who ask, for a moment: a run that starts just then waits.
    """
    if sys.platform == "win32":
        return None
    path = folder.path / LOCK
    try:
        # Without a lock to ask for, another file tells whether there are locks here at all.
        handle = os.open(path if path.exists() else folder.config_file, os.O_RDONLY)
    except OSError:
        return None
    try:
        return not _lock(handle, shared=True)
    except OSError:
        return None
    finally:
        os.close(handle)


def _lock(handle: int, *, shared: bool = False) -> bool:
    """Take the lock, or return False when somebody has it. Raises `OSError` without locks."""
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_file_of(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name; its last holder has deleted it else."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Write who holds the lock, for the message to others."""
    with contextlib.suppress(OSError):  # a full disk is no reason to stop here
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps([socket.gethostname(), os.getpid()]).encode(), 0)


def _holder(handle: int) -> tuple[str, int]:
    try:
        host, pid = json.loads(os.pread(handle, 1000, 0))
        return str(host), int(pid)
    except (ValueError, TypeError):
        return "", 0
