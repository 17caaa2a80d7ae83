"""While apps run in one process, Flower's own arrays and records do the same in less time.

Apps call Flower's methods, not ours: ``ArrayRecord.to_torch_state_dict`` on a client, ``RecordDict.metric_records`` in
an aggregation. In a runtime without processes and sockets these are most of what a message costs: numpy parses the
header of a ``.npy`` file with Python's own parser, some 35 us for arrays that are all alike, and a view of a RecordDict
writes every record back into the RecordDict that it is a view of. So they are replaced for as long as a run lasts, as
the clock is (:meth:`fedgc.simulation.VirtualClock.installed`): by methods that return the same, to the last byte, and
leave all that is out of the ordinary, and every error, to those that they replace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message.recorddict import _SyncedDict
from flwr.common.constant import SType
from numpy.typing import NDArray

from fedgc.records.array_bytes import record_array, view

_numpy = Array.numpy
_from_numpy_ndarray = Array.from_numpy_ndarray

_lock = threading.Lock()
_replaced: list[tuple[type, str, Any]] = []
_running = 0


@contextmanager
def quick_records() -> Iterator[None]:
    """Replace Flower's methods until the last of the runs that are going on has ended.

    Examples
    --------
    >>> array = Array(np.eye(2))
    >>> with quick_records():
    ...     array.numpy().tolist(), Array(np.eye(2)) == array
    ([[1.0, 0.0], [0.0, 1.0]], True)
    """
    global _running  # noqa: PLW0603  (runs may go on in several threads, and end in any order)
    with _lock:
        _running += 1
        if _running == 1:
            for owner, name, quick in _QUICK:
                _replaced.append((owner, name, owner.__dict__[name]))
                setattr(owner, name, quick)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                while _replaced:
                    setattr(*_replaced.pop())


def _read(self: Array) -> NDArray[Any]:
    """Return the array as a NumPy array, its own and writable."""
    if self.stype != SType.NUMPY:
        return _numpy(self)
    try:
        read = view(self)
    except ValueError:
        return _numpy(self)  # which says what is wrong, or reads what is merely unusual
    return read.copy(order="K")


def _write(cls: type[Array], ndarray: NDArray[Any]) -> Array:
    """Create an array from a NumPy array."""
    # Numpy writes arrays in Fortran's order as they are, and structured and object types in ways of their own.
    plain = type(ndarray) is np.ndarray and ndarray.flags.c_contiguous and ndarray.dtype.kind in "biufc"
    return record_array(ndarray) if plain else _from_numpy_ndarray(ndarray)


def _records_of(kind: type[Any]) -> Callable[[RecordDict], Any]:
    def records(self: RecordDict) -> Any:  # noqa: ANN401
        """Return the records of one kind, as a dictionary that writes into this one."""
        synced = _SyncedDict[Any](self, kind)
        own: dict[str, Any] = synced.__dict__["_data"]
        own.update((key, record) for key, record in self.items() if isinstance(record, kind))
        return synced

    return records


_QUICK: tuple[tuple[type, str, Any], ...] = (
    (Array, "numpy", _read),
    (Array, "from_numpy_ndarray", classmethod(_write)),
    (RecordDict, "array_records", property(_records_of(ArrayRecord))),
    (RecordDict, "metric_records", property(_records_of(MetricRecord))),
    (RecordDict, "config_records", property(_records_of(ConfigRecord))),
)
