"""A checkpoint as one file: written whole or not at all, and read only if it is what was written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.checkpoint.tree import Tree, pack_tree, unpack_tree
from fedgc.errors import CheckpointError
from fedgc.shard_format import laid_out, unpack_shard

#: Version of what is in a checkpoint. A file of another version is refused, since a state that is read wrongly trains
#: on without an error.
VERSION = 2
_MAGIC = "fedgc-checkpoint"
#: Largest header in bytes, as the format allows it: a memory has the arrays of a model for each block.
_HEADER_LIMIT = 100_000_000
#: Files that are being written; those of a process that was killed are removed when the next run takes the folder.
UNFINISHED = ".unfinished-"


def write_checkpoint(path: Path, tree: Tree) -> None:
    """Write a tree to a file, so that the file holds all of it, or is not there.

    Parameters
    ----------
    path : Path
        The file; it is replaced if it is there.
    tree : object
        See :func:`fedgc.checkpoint.pack_tree`.

    Raises
    ------
    CheckpointError
        If the file cannot be written; an older file of that name is untouched then.
    TypeError
        If the tree holds anything but plain data and arrays.

    Notes
    -----
    The file is in the safetensors format, as shards are: reading it runs no code. Written are a temporary file in the
    same folder, its content to the disk (fsync), its new name, and the name to the disk (fsync of the folder): after a
    power cut the folder holds either the old file or the new one, and no other.
    """
    packed = pack_tree({"format": _MAGIC, "version": VERSION, "tree": tree})
    packed["sha256"] = np.frombuffer(_digest(packed), dtype=np.uint8)
    head, values = laid_out(packed, header_limit=_HEADER_LIMIT)
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            for value in values:
                file.write(value.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CheckpointError(f"{path}: the checkpoint could not be written: {error.strerror or error}") from error
        raise


def try_to_write(folder: Path) -> None:
    """Raise CheckpointError if no file can be written to a folder; nothing is left there."""
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(b"?")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{folder}: checkpoints cannot be written here: {error.strerror or error}") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Tree:
    """Return the tree that a file holds.

    Raises
    ------
    CheckpointError
        If it cannot be read, is truncated or damaged, or is not a checkpoint of this version.
    """
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint could not be read: {error.strerror or error}") from error
    try:
        packed = unpack_shard(data, header_limit=_HEADER_LIMIT)
        digest = packed.pop("sha256").tobytes()
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint: {error}") from error
    if digest != _digest(packed):
        raise CheckpointError(f"{path}: damaged: its content is not what its SHA-256 says")
    try:
        content = unpack_tree(packed)
        magic, version, tree = content["format"], content["version"], content["tree"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint: {error}") from error
    if magic != _MAGIC or version != VERSION:
        raise CheckpointError(f"{path}: must be {_MAGIC} version {VERSION}; got {magic!r:.40} version {version!r:.40}")
    return tree


def _digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    found = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.reshape(-1).view(np.uint8).data)
    return found.digest()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot, and keep their own order
            os.fsync(handle)
    finally:
        os.close(handle)
