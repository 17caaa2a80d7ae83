"""Pushed shards on a client's disk, named by the SHA-256 of their content."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from filelock import FileLock
from numpy.typing import NDArray

from fedgc.shard_format import check_digest, shard_digest, unpack_shard
from fedgc.validation import check_integer

logger = logging.getLogger("flwr.fedgc")

_SUFFIX = ".safetensors"
_FILE = re.compile(r"([0-9a-f]{64})\.safetensors")
_UNFINISHED = "unfinished-"
#: Neither through a symbolic link, which may lead anywhere, nor waiting for somebody to write into a pipe.
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class ShardStore:
    """Keep shards in a folder, within a budget; the least recently used ones go first.

    Parameters
    ----------
    folder : str or Path
        The folder, made if it does not exist, readable for its owner only. Several processes and several stores may use
        one folder; give each server that must not see another's data a folder of its own.
    max_bytes : int
        Most bytes that all shards together take, headers included.

    Raises
    ------
    ValueError
        If `max_bytes` is not an integer of at least 1.

    Notes
    -----
    A file gets its name only when all of it is on disk, so that a crash leaves no half shards. What is read is hashed
    anew each time: a damaged file is removed and is simply missing from then on, and so is a link or a pipe in its
    place. Names of files are digests and come from nowhere else. Writing and evicting are done under a lock, so that
    the budget holds whatever other processes do; reading needs none.

    Examples
    --------
    >>> import numpy as np
    >>> from fedgc.shard_format import pack_shard, shard_digest
    >>> data = pack_shard({"x": np.arange(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ShardStore(folder, max_bytes=1000)
    ...     kept = store.put(data)
    ...     print(kept, store.load(shard_digest(data))["x"], store.load("0" * 64))
    True [0 1 2] None
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = check_integer("max_bytes", max_bytes, low=1)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        """Return folder and budget."""
        return f"ShardStore({str(self.folder)!r}, max_bytes={self.max_bytes})"

    def __contains__(self, digest: str) -> bool:
        """Return whether there is a file of that digest; whether it is intact only :meth:`load` tells."""
        try:
            return stat.S_ISREG(self._path(digest).lstat().st_mode)
        except FileNotFoundError:
            return False

    @property
    def digests(self) -> list[str]:
        """The digests of the shards that are kept, the least recently used first."""
        return [digest for _, digest, _ in self._files()]

    @property
    def n_bytes(self) -> int:
        """Bytes that the kept shards take."""
        return sum(size for _, _, size in self._files())

    def put(self, data: bytes | bytearray, *, spare: Collection[str] = ()) -> bool:
        """Keep a packed shard, and remove others if there is no room for it.

        Parameters
        ----------
        data : bytes or bytearray
            The packed shard.
        spare : collection of str
            Digests that are not removed for it.

        Returns
        -------
        bool
            Whether it is kept: not if that would take the removal of spared ones, or is beyond the budget altogether.

        Raises
        ------
        OSError
            If the disk does not take it; what was kept before still is, except for what had to make room.
        """
        digest = shard_digest(data)
        with FileLock(self.folder / ".lock"):
            for left in self.folder.glob(f"{_UNFINISHED}*"):  # its writer has died: no other writes while we do
                left.unlink(missing_ok=True)
            if self._read(digest) is not None:
                return True
            files = self._files()
            excess = sum(size for _, _, size in files) + len(data) - self.max_bytes
            remove = []
            for _, other, size in files:
                if excess > 0 and other not in spare:
                    remove.append(other)
                    excess -= size
            if excess > 0:
                return False
            for other in remove:
                self._path(other).unlink(missing_ok=True)
            self._write(self._path(digest), data)
        return True

    def load(self, digest: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a shard, None if it is not kept or has been damaged.

        Raises
        ------
        ValueError
            If `digest` is not 64 hexadecimal digits, or what was put under it is no packed shard.
        """
        data = self._read(digest)
        return None if data is None else unpack_shard(data)

    def remove(self, digest: str) -> None:
        """Remove a shard if it is kept."""
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.folder / (check_digest("digest", digest) + _SUFFIX)

    def _files(self) -> list[tuple[int, str, int]]:
        """Return (time of the last use, digest, bytes) of all shards, the least recently used first."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                match = _FILE.fullmatch(entry.name)
                if match is None:
                    continue
                with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((status.st_mtime_ns, match[1], status.st_size))
        return sorted(found)

    def _read(self, digest: str) -> bytearray | None:
        """Return a file's content if it is what its name says, and note its use."""
        path = self._path(digest)
        try:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                status = os.fstat(file.fileno())
                data = bytearray(status.st_size)
                intact = stat.S_ISREG(status.st_mode) and file.readinto(data) == len(data) and not file.read(1)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            data, intact = bytearray(), False
        if not intact or shard_digest(data) != digest:
            logger.warning("shard %s is damaged on disk: it is removed", digest)
            path.unlink(missing_ok=True)
            return None
        # The time of reading that file systems keep by themselves is often switched off, or a day coarse.
        now = time.time_ns()
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, ns=(now, now))
        return data

    def _write(self, path: Path, data: bytes | bytearray) -> None:
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            now = time.time_ns()
            os.utime(name, ns=(now, now))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if os.name == "posix":  # the new name itself is on disk only after this
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
