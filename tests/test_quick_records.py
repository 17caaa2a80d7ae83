"""What replaces Flower's arrays and records during a run does the same, to the last byte."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedgc.simulation.quick_records import quick_records

VALUES = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0)[::2],
    "number": np.array(3.5),
    "empty": np.zeros((0, 4), dtype=np.int8),
    "swapped": np.arange(4, dtype=">f4"),
    "bool": np.array([True, False]),
    "half": np.arange(3, dtype=np.float16),
    "complex": np.array([1 + 2j]),
    "text": np.array(["ab", "c"]),
    "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "fields": np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
}


@pytest.mark.parametrize("name", VALUES)
def test_arrays_are_written_and_read_as_flower_does(name: str) -> None:
    value = VALUES[name]
    written = Array(value)
    read = written.numpy()
    with quick_records():
        quick = Array(value)
        again = written.numpy()
    assert quick == written
    assert (again.dtype, again.shape, again.flags.f_contiguous) == (read.dtype, read.shape, read.flags.f_contiguous)
    np.testing.assert_array_equal(again, read)
    assert again.flags.writeable
    assert again.base is None or again.base.flags.owndata
    again[...] = again.reshape(-1)[:1].repeat(again.size).reshape(again.shape)  # does not reach the record
    np.testing.assert_array_equal(written.numpy(), read)


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (2,), "numpy.ndarray", b"nothing"),
        Array("float32", (2,), "torch", Array(np.ones(2)).data),
        Array("float64", (2,), "numpy.ndarray", Array(np.ones(2)).data[:-1]),
    ],
)
def test_errors_are_flowers(array: Array) -> None:
    with pytest.raises(Exception) as caught:
        array.numpy()
    with quick_records(), pytest.raises(caught.type) as quick:
        array.numpy()
    assert str(quick.value) == str(caught.value)
    with quick_records(), pytest.raises(ValueError, match="allow_pickle"):
        Array(np.array([object()]))


def test_views_write_through() -> None:
    with quick_records():
        records = RecordDict({"a": ArrayRecord({}), "m": MetricRecord({"n": 1}), "c": ConfigRecord({"lr": 0.1})})
        for view, name in ((records.array_records, "a"), (records.metric_records, "m"), (records.config_records, "c")):
            assert list(view) == [name]
            assert view[name] is records[name]
        view = records.metric_records
        view["new"] = MetricRecord({"n": 2})
        del view["m"]
        assert list(records) == ["a", "c", "new"]
        with pytest.raises(TypeError, match="Expected `MetricRecord`"):
            view["wrong"] = ConfigRecord()


def test_flowers_own_come_back_after_the_last_run() -> None:
    own = dict(vars(Array)), dict(vars(RecordDict))
    inside, leave = threading.Event(), threading.Event()

    def run() -> None:
        with quick_records():
            inside.set()
            leave.wait()

    other = threading.Thread(target=run)
    with quick_records():
        other.start()
        inside.wait()
    assert Array.numpy is not own[0]["numpy"], "another run goes on"
    leave.set()
    other.join()
    for owner, before in zip((Array, RecordDict), own, strict=True):
        for name in ("numpy", "from_numpy_ndarray", "array_records", "metric_records", "config_records"):
            assert vars(owner).get(name) is before.get(name)
