"""One run at a time in a folder: a lock that the system lets go of when the process ends, however it does."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedgc.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("flwr.fedgc")

#: The file that is locked, in the folder. It stays there: what is locked is not that it exists.
LOCK = ".lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Keep a folder for this run as long as the block lasts; the value is whether it could be locked.

    Parameters
    ----------
    folder : Path
        The folder, which must be there.

    Raises
    ------
    CheckpointError
        If another run has it, or no file can be made there.

    Notes
    -----
    The lock is flock's, on an open file: the kernel lets go of it when the process ends, so that one that was killed
    leaves nothing behind that somebody would have to remove. The file says who has it, for the error of the other run.
    Where files cannot be locked (Windows, some network file systems) the log says so, and the run goes on.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CheckpointError(f"{folder}: checkpoints cannot be written here: {error.strerror or error}") from error
    try:
        locked = _lock(handle, folder)
        if locked:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield locked
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> bool:
    if fcntl is None:
        reason = "this system has no flock"
    else:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                who = os.pread(handle, 200, 0).decode(errors="replace")
                raise CheckpointError(
                    f"{folder}: another run ({who}) has its checkpoints here; name a folder of its own for this one"
                ) from None
            reason = error.strerror or str(error)
        else:
            return True
    logger.warning("%s: cannot be locked (%s); take care that no other run writes checkpoints here", folder, reason)
    return False
