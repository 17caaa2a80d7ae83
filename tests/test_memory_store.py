"""Stores of control variates: always the same values, always finite, files whole or not there, and none left behind."""

from __future__ import annotations

import gc
import itertools
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.decoders import Decoder, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.memory import MemoryStore, StoredUpdate, UpdateMemory, units_of
from fedgc.memory.half_precision import restored, rounded
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, Planning, RoundState, finish_round, plan_round
from fedgc.updates import sum_dtype
from tests.apps import steady, train
from tests.enumeration import arrival_sets

RNG = np.random.default_rng(7)
SIZES = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
NODES = (11, 5, 7, 2, 9)
SHAPES: dict[str, tuple[int, ...]] = {"a": (3,), "b": (2, 2), "single": (), "empty": (0, 2)}
STORES: dict[str, Callable[[Path], MemoryStore]] = {
    "as they are": lambda folder: MemoryStore(),
    "half": lambda folder: MemoryStore(dtype="float16"),
    "single": lambda folder: MemoryStore(dtype="float32"),
    "files": lambda folder: MemoryStore(folder=folder),
    "half in files": lambda folder: MemoryStore(dtype="float16", folder=str(folder)),
}


@pytest.fixture(params=STORES.values(), ids=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    made: MemoryStore = request.param(tmp_path)
    return made


def random_update(scale: float = 1.0) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(scale * RNG.standard_normal(shape)) for name, shape in SHAPES.items()}


def weighted(coefficients: NDArray[np.float64], updates: list[Any]) -> dict[str, Any]:
    return {name: sum(c * u[name] for c, u in zip(coefficients, updates, strict=True)) for name in SHAPES}


@pytest.mark.parametrize(
    ("decoder", "scale"),
    [(OptimalUnbiasedDecoder(), 1.0), (OptimalUnbiasedDecoder(), 1e200), (FixedDecoder(), 1.0)],
    ids=["optimal", "optimal, huge", "fixed"],
)
def test_whatever_is_stored_the_decoded_update_is_unbiased(store: MemoryStore, scale: float, decoder: Decoder) -> None:
    """By enumeration, to 1e-12 of the largest number that is kept, which is rounded to 1e-8 or 5e-4 of itself."""
    reliability = ReliabilityPosterior(forgetting=1.0)
    for node, came in itertools.product(NODES, (True, False, False)):
        reliability = reliability.update({node: came})
    given = {unit: random_update(scale * size) for unit, size in enumerate([1.0, 1e-300, 1e5, 1.0, 1.0], start=1)}
    memory = UpdateMemory(np.arange(6), {unit: store.keep(update) for unit, update in given.items()}, store)
    updates = [random_update() for _ in SIZES]
    state = RoundState(SIZES, reliability, memory=memory)
    plan = plan_round(state, NODES, Planning(load=2, decoder=decoder))
    arrays = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    mean, empty = {name: np.zeros(shape) for name, shape in SHAPES.items()}, 0.0
    for arrived, probability in arrival_sets(plan.straggle_prob):
        replies = {}
        for client in np.flatnonzero(arrived).tolist():
            shards = plan.decoder.code.shards_of(client)
            row = weighted(plan.decoder.code.encoding_matrix[client] * SIZES, updates)
            replies[client] = CodedUpdate({client: row}, shards, SIZES[shards])
        after, outcome = finish_round(state, plan, replies, arrays=arrays)
        if outcome.update is None:
            empty = probability
            continue
        for name in SHAPES:
            mean[name] += probability * outcome.update[name]
        assert after.memory is not None
        assert all(np.isfinite(update[name]).all() for update in after.memory.updates.values() for name in SHAPES)
    # An empty round leaves the model as it is: what memory alone would have added is missing.
    moved = memory.for_units(units_of(plan.decoder.code), SIZES)
    held = weighted(np.ones(len(moved.updates)), list(moved.updates.values()))
    for name, full in weighted(SIZES / SIZES.sum(), updates).items():
        found = mean[name] + empty * held[name] / SIZES.sum()
        np.testing.assert_allclose(found, full, rtol=0.0, atol=1e-12 * 1e5 * scale)
    rounded_by = max(float(np.abs(given[3][name] - memory.updates[3][name]).max()) for name in ("a", "b"))
    assert (rounded_by > 1e-4 * scale) is (store.dtype is not None)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("small", ["f2", "f4"])
def test_rounding_is_to_the_types_digits_over_the_larger_types_range(kind: str, small: str) -> None:
    info = np.finfo(kind)
    for exponent in [info.minexp, info.minexp // 2, -20, 0, 15, 16, 17, info.maxexp // 2, info.maxexp - 2]:
        array = np.ldexp(RNG.uniform(-1.0, 1.0, 500), exponent).astype(kind)
        values, factor = rounded(array, np.dtype(small))
        assert values.dtype == small
        assert np.isfinite(values).all()
        back = restored(values, factor, np.dtype(kind))
        digits = 2.0 ** -(np.finfo(small).nmant + 1)
        error = np.abs(back.astype(np.longdouble) - array)
        largest = np.abs(array.astype(np.longdouble)).max()
        floor = largest * 2.0**-39 + np.longdouble(info.smallest_subnormal)
        if exponent == info.minexp:  # the scale itself is at the end of the larger type's range
            floor = largest * 2.0**-20
        assert (error <= digits * np.abs(array) + floor).all(), exponent


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_what_is_beyond_any_range_is_kept_as_the_largest_number(kind: str) -> None:
    most = np.finfo(kind).max
    array = np.array([most, -most, np.inf, -np.inf, np.nan, 1.0], dtype=kind)
    values, factor = rounded(array, np.dtype(np.float16))
    back = restored(values, factor, np.dtype(kind))
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back[:4] / most, [1.0, -1.0, 1.0, -1.0], rtol=1e-3)
    assert back[4] == 0.0
    kept = MemoryStore(dtype="float16").keep({"w": array})
    np.testing.assert_array_equal(kept["w"], back)
    assert rounded(np.zeros(3, kind), np.dtype(np.float16))[0].tolist() == [0.0, 0.0, 0.0]


def test_what_is_kept_keeps_its_values_types_and_shapes(store: MemoryStore) -> None:
    update: dict[str, Any] = random_update() | {"w": np.ones((2, 3), np.float32), "steps": np.array(3)}
    kept = store.keep(update)
    assert list(kept) == list(update)
    for name, value in update.items():
        once, again = kept[name], kept[name]
        assert once.shape == value.shape
        assert once.dtype == (sum_dtype(value.dtype) if isinstance(kept, StoredUpdate) else value.dtype)
        np.testing.assert_array_equal(once, again)
        tolerance = 0.0 if store.dtype is None else 2.0**-11
        np.testing.assert_allclose(once, value, rtol=tolerance)
    assert store.keep(kept) is kept


def test_a_memory_is_refreshed_and_moved_as_without_rounding(store: MemoryStore) -> None:
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 2.0]])
    before, now = [random_update() for _ in range(3)], [random_update() for _ in range(3)]
    memories = [
        UpdateMemory(np.arange(3), {unit: one.keep(update) for unit, update in enumerate(before)}, one)
        for one in (MemoryStore(), store)
    ]
    sums = [weighted(row, now) for row in rows[:2]]
    for count in (1, 2):
        exact, kept = (memory.refresh(rows[:count], sums[:count]) for memory in memories)
        joined, apart = (memory.for_units(np.array([0, 0, 1]), np.ones(3)) for memory in (exact, kept))
        for left, right, name in itertools.product((exact, joined), (kept, apart), SHAPES):
            if left.n_units != right.n_units:
                continue
            for unit in range(left.n_units):
                np.testing.assert_allclose(right.updates[unit][name], left.updates[unit][name], atol=5e-3)
        assert all((memories[0].updates[j]["a"] == before[j]["a"]).all() for j in range(3)), "the old one stays"
        plain = store.dtype is None and store.folder is None
        assert all(isinstance(update, StoredUpdate) is not plain for update in kept.updates.values())


@pytest.mark.parametrize(
    "options", [{}, {"schedule": "work-list"}, {"schedule": "work-list", "sums": "whole"}], ids=str
)
def test_a_run_with_files_is_the_run_without(options: dict[str, Any], tmp_path: Path) -> None:
    inner = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    found = []
    for memory in (True, MemoryStore(folder=tmp_path), MemoryStore(dtype="float16", folder=tmp_path)):
        strategy = GradientCoding(FedAvg(**inner), num_shards=6, deadline=500.0, memory=memory, **options)
        found.append(train(strategy, steady(dropout=0.3), rounds=4)[0].arrays.to_numpy_ndarrays())
    for exact, files, half in zip(*found, strict=True):
        np.testing.assert_array_equal(files, exact)
        np.testing.assert_allclose(half, exact, atol=1e-2)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_is_there_as_long_as_something_refers_to_it(tmp_path: Path) -> None:
    store = MemoryStore(folder=tmp_path)
    kept = [store.keep(random_update()) for _ in range(3)]
    assert files_in(tmp_path) == [f"{number:08d}.row" for number in range(3)]
    mapped = kept[1]["a"]
    expected = mapped.copy()
    del kept[1]
    gc.collect()
    assert len(files_in(tmp_path)) == 2
    np.testing.assert_array_equal(mapped, expected)  # what is mapped stays readable
    other = MemoryStore(folder=tmp_path)
    del store
    gc.collect()
    assert len(list(tmp_path.glob("fedgc-memory-*/"))) == 2, "what is kept keeps the store's files"
    del kept, other
    gc.collect()
    assert not list(tmp_path.glob("fedgc-memory-*/"))


def test_half_a_file_is_never_read(tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk; it breaks off a write in the middle."""
    store = MemoryStore(folder=tmp_path)
    small, large = store.keep({"w": np.arange(10.0)}), {"w": np.ones(100), "v": np.ones(100_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match=r"the memory could not be written to .*00000001\.row"):
            store.keep(large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert files_in(tmp_path) == ["00000000.row"]
    np.testing.assert_array_equal(small["w"], np.arange(10.0))
    np.testing.assert_array_equal(store.keep(large)["v"], np.ones(100_000))
    (path,) = tmp_path.rglob("00000000.row")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(OSError, match="must have 80 bytes, as written; got 40"):
        small["w"]


SCRIPT = """
import os, signal, sys
import numpy as np
from fedgc.memory import MemoryStore
kept = MemoryStore(folder=sys.argv[1]).keep({"w": np.ones(5)})
print("ready", flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "exits"])
def test_what_a_process_leaves_is_removed_and_what_another_uses_stays(end: str, tmp_path: Path) -> None:
    living = MemoryStore(folder=tmp_path)
    kept = living.keep({"w": np.arange(4.0)})
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), end], capture_output=True, check=False)
    assert done.stdout == b"ready\n", done.stderr
    assert files_in(tmp_path) == ["00000000.row"] * (2 if end == "killed" else 1)
    next_one = MemoryStore(folder=tmp_path)
    assert files_in(tmp_path) == ["00000000.row"]
    np.testing.assert_array_equal(kept["w"], np.arange(4.0))
    next_one.keep({"w": np.zeros(2)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float16, float32; got 'int8'"),
        ({"folder": 3}, "folder must be a path; got 3"),
        ({"folder": "/proc/nowhere"}, "folder must be a folder that can be written; got '/proc/nowhere'"),
        ({"folder": __file__}, "folder must be a folder that can be written; got"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MemoryStore(**options)


def test_the_strategy_takes_a_store_or_a_truth_value() -> None:
    with pytest.raises(ValueError, match="memory must be True, False or a MemoryStore; got 'float16'"):
        GradientCoding(num_shards=2, deadline=1.0, memory="float16")  # type: ignore[arg-type]
    strategy = GradientCoding(num_shards=2, deadline=1.0, memory=MemoryStore(dtype="float16"))
    assert strategy.state.memory is not None
    assert repr(strategy.state.memory.store) == "MemoryStore(dtype='float16')"
