"""The store of control variates that a user chooses."""

from __future__ import annotations

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.memory.half_precision import rounded
from fedgc.memory.row_files import RowFolder
from fedgc.memory.stored import StoredArray, StoredUpdate
from fedgc.updates import Arrays, sum_dtype
from fedgc.validation import one_of


class MemoryStore:
    """Where the last update of every block or shard is kept, and how.

    Parameters
    ----------
    dtype : str, optional
        "float16" or "float32": the type that updates are rounded to, each array scaled by a power of two such that it
        uses the type's range. By default they are kept in the type in which they are summed.
    folder : str or Path, optional
        A folder, on a disk with room for two or three models per block: updates are kept in files there, of which an
        array is mapped when it is needed. By default they are kept in memory.

    Raises
    ------
    ValueError
        If there is no such type, or the folder cannot be written.

    Notes
    -----
    What is remembered is a control variate: the decoded update ``sum_i w_i s_i + sum_u (1 - v_u) H_u`` is unbiased for
    any H that was known before the round, see :class:`fedgc.memory.UpdateMemory`. All that is ever used of H
    is what the store returns, so that rounding it costs variance and never bias: with half precision 2^-11 of each
    entry, or of the array's largest entry times 2^-39 where that is more, which stays as a noise floor that much below
    the one without a memory.

    The files are of use to this store only, and removed when nothing refers to them any more: those of a process that
    was killed by the next store in the same folder. Several stores may share one.

    Examples
    --------
    >>> store = MemoryStore(dtype="float16")
    >>> kept = store.keep({"w": np.array([1.0, 1e6, 1.0 / 3.0], dtype=np.float32)})
    >>> kept["w"].tolist()
    [1.0, 999936.0, 0.333251953125]
    >>> store
    MemoryStore(dtype='float16')
    """

    def __init__(self, dtype: str | None = None, folder: str | PathLike[str] | None = None) -> None:
        self.dtype = None if dtype is None else np.dtype(one_of("dtype", dtype, ["float16", "float32"]))
        if not isinstance(folder, str | PathLike | None):
            raise ValueError(f"folder must be a path; got {folder!r:.80}")
        self.folder = None if folder is None else Path(folder)
        self._files = None if self.folder is None else RowFolder(self.folder)

    def __repr__(self) -> str:
        """Return the options that are not the default."""
        given = {"dtype": self.dtype and self.dtype.name, "folder": self.folder and str(self.folder)}
        return f"MemoryStore({', '.join(f'{name}={value!r}' for name, value in given.items() if value)})"

    def keep(self, update: Arrays) -> Arrays:
        """Return an update as it is kept, with the values that it has from now on.

        Parameters
        ----------
        update : mapping of str to ndarray
            The update. It is handed over: its arrays must not be changed any more. What a store has kept stays as it
            is; of anything else that is not a dict, arrays are asked for one at a time.

        Raises
        ------
        OSError
            If a file cannot be written, for want of room, say.
        """
        if isinstance(update, StoredUpdate):
            return update
        if self.dtype is None and self._files is None:
            return update if isinstance(update, dict) else dict(update)
        factors: dict[str, tuple[float, np.dtype[Any]]] = {}
        values = {name: self._rounded(name, update, factors) for name in update} if self._files is None else {}
        if self._files is None:
            read = {name: partial(_same, value) for name, value in values.items()}
        else:
            file = self._files.write(self._rounded(name, update, factors) for name in update)
            read = {name: partial(file.array, index) for index, name in enumerate(factors)}
        return StoredUpdate({name: StoredArray(read[name], *factors[name]) for name in factors})

    def _rounded(self, name: str, update: Arrays, factors: dict[str, tuple[float, np.dtype[Any]]]) -> NDArray[Any]:
        """Return an array as it is stored, and note how to restore it."""
        value = np.asarray(update[name])
        value = value.astype(sum_dtype(value.dtype), copy=False)
        stored, factor = value, 1.0
        if self.dtype is not None and self.dtype.itemsize < value.dtype.itemsize:
            stored, factor = rounded(value, self.dtype)
        factors[name] = factor, value.dtype
        return stored


def _same(value: NDArray[Any]) -> NDArray[Any]:
    return value
