"""Files of updates in a folder: written whole or not at all, read by mapping, removed when nothing refers to them."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

#: Names of a store's own folder and of the lock in it, which is held as long as the store is there.
_PREFIX, _LOCK = "fedgc-memory-", "in-use.lock"

#: Arrays begin at multiples of so many bytes, for any number type's sake.
_ALIGNED = 64


class RowFolder:
    """A folder of its own for one store, within the user's folder.

    Parameters
    ----------
    folder : Path
        The user's folder; made if it is not there.

    Notes
    -----
    What stores of processes that have ended abruptly left behind is removed when the next one is opened in the same
    folder: whether one is alive is told by a lock, which the operating system lets go of with the process. Nothing is
    read that another process wrote.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{_PREFIX}folder.lock"):
                for other in folder.glob(f"{_PREFIX}*/"):
                    _remove_unless_in_use(other)
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
                lock = FileLock(self.path / _LOCK, thread_local=False)
                lock.acquire(timeout=0)
        except OSError as error:
            raise ValueError(f"folder must be a folder that can be written; got {str(folder)!r}: {error}") from None
        self._numbers = itertools.count()
        weakref.finalize(self, _close, self.path, lock, os.getpid())

    def write(self, arrays: Iterable[NDArray[Any]]) -> RowFile:
        """Write arrays to a new file, one after the other; only once all is written it has the name that is read.

        Raises
        ------
        OSError
            If there is no room for it, say.
        """
        path = self.path / f"{next(self._numbers):08d}.row"
        part, places, end = path.with_suffix(".part"), [], 0
        try:
            with part.open("wb") as file:
                for array in arrays:
                    start = -(-end // _ALIGNED) * _ALIGNED
                    file.write(bytes(start - end))
                    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                    places.append((start, array.dtype, array.shape))
                    end = start + array.nbytes
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(f"the memory could not be written to {str(path)!r}: {error}") from error
        return RowFile(self, path, places, end)


class RowFile:
    """The arrays of one update in a file, which is removed with the last reference to this.

    Parameters
    ----------
    folder : RowFolder
        Where it is; it stays as long as this.
    path : Path
        The file.
    places : list of (int, dtype, tuple of int)
        First byte, number type and shape of each array.
    size : int
        Bytes of the file.
    """

    def __init__(
        self, folder: RowFolder, path: Path, places: list[tuple[int, np.dtype[Any], tuple[int, ...]]], size: int
    ) -> None:
        self._folder, self._path, self._places, self._size = folder, path, places, size
        weakref.finalize(self, _unlink, path, os.getpid())

    def array(self, index: int) -> NDArray[Any]:
        """Return an array, mapped from the file for as long as the array is referred to.

        Raises
        ------
        OSError
            If the file is not as it was written.
        """
        start, dtype, shape = self._places[index]
        size = self._path.stat().st_size
        if size != self._size:
            raise OSError(f"{str(self._path)!r} must have {self._size} bytes, as written; got {size}")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(self._path, dtype, "r", start, shape))


def _remove_unless_in_use(folder: Path) -> None:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except OSError:  # in use, or someone else's
        return
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def _close(folder: Path, lock: FileLock, pid: int) -> None:
    if os.getpid() == pid:  # not in a child of the process that wrote it
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _unlink(path: Path, pid: int) -> None:
    if os.getpid() == pid:
        path.unlink(missing_ok=True)
