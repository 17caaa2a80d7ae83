"""Packed shards, and the store that keeps them on disk."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import queue
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardStore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from fedgc.shard_format import pack_shard, shard_digest, unpack_shard

NUMBERS = st_numpy.boolean_dtypes() | st_numpy.integer_dtypes() | st_numpy.unsigned_integer_dtypes()
ARRAYS = st_numpy.arrays(
    NUMBERS | st_numpy.floating_dtypes(sizes=(16, 32, 64)), st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)
)


@given(st.dictionaries(st.text(max_size=5), ARRAYS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_packed_is_unpacked(arrays: dict[str, NDArray[Any]]) -> None:
    data = pack_shard(arrays)
    back = unpack_shard(data)
    assert back.keys() == arrays.keys()
    for name, value in arrays.items():
        assert back[name].dtype == value.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back[name], value)
        assert back[name].flags.writeable
    assert pack_shard(dict(reversed(arrays.items()))) == data
    assert pack_shard(back) == data


def test_the_bytes_are_those_of_the_safetensors_format() -> None:
    header = (
        b'{"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"a":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}}'
    )
    header += b" " * (-len(header) % 8)
    body = np.array([[1.5, -2.0]], dtype="<f4").tobytes() + np.array([1, 2, 3], dtype="i1").tobytes()
    data = len(header).to_bytes(8, "little") + header + body
    assert pack_shard({"a": np.array([1, 2, 3], dtype="i1"), "b": np.array([[1.5, -2.0]], dtype=">f4")}) == data
    # Another writer's notes, and arrays that begin anywhere.
    other = b'{"__metadata__":{"by":"hand"},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},'
    other += b'"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    read = unpack_shard(len(other).to_bytes(8, "little") + other + b"\x07" + body[:8])
    assert {name: value.tolist() for name, value in read.items()} == {"a": [7], "b": [1.5, -2.0]}


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        ({}, "a shard must be a mapping of names to at least one array"),
        ({3: np.zeros(2)}, "a shard must be a mapping of names to at least one array"),
        ([np.zeros(2)], "a shard must be a mapping of names to at least one array"),
        ({"x": np.array([{1}])}, "array 'x' of a shard must hold booleans, integers or floats; got object"),
        ({"x": np.array(["text"])}, "must hold booleans, integers or floats; got <U4"),
        ({"x": np.array([1j])}, "must hold booleans, integers or floats; got complex128"),
        ({"__metadata__": np.zeros(2)}, "array '__metadata__' of a shard"),
    ],
    ids=str,
)
def test_what_is_no_shard_is_not_packed(shard: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pack_shard(shard)


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F64", shape: Any = (1,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "must begin with a header that it holds; got 0 bytes"),
        (b"\xff" * 64, "must begin with a header that it holds; got 64 bytes, header of 18446744073709551615"),
        (packed(b"{" + b" " * 2**20 + b"}"), "must begin with a header that it holds"),
        (packed(b"not json"), "must be JSON"),
        (packed(b"\xff\xff"), "must be JSON"),
        (packed(b"[" * 100_000), "must be JSON"),
        (packed(b"9" * 5000), "must be JSON"),
        (packed([1, 2]), "must name its arrays"),
        (packed({}), "must be filled by its arrays; got 0 bytes beyond"),
        (packed({"x": 3}), "must say where it begins and ends"),
        (packed(entry(offsets=[0]), bytes(8)), "must say where it begins and ends"),
        (packed(entry(offsets=[0, 8.0]), bytes(8)), "must say where it begins and ends"),
        (packed(entry(offsets=[-8, 0]), bytes(8)), "must say where it begins and ends"),
        (packed(entry("O"), bytes(8)), "must be of a known type; got 'O'"),
        (packed(entry("|O8"), bytes(8)), "must be of a known type"),
        (packed(entry(["F64"]), bytes(8)), "must be of a known type"),
        (packed(entry(shape=[10**30]), bytes(8)), "must fill its place of 8 bytes"),
        (packed(entry(shape=[2**61]), bytes(8)), "must fill its place of 8 bytes"),  # 0 bytes modulo 2^64
        (packed(entry(shape=[2**61], offsets=[0, 2**64]), bytes(8)), "must fill its place of 8 bytes"),
        (packed(entry(shape=[0, 2**62, 2**62], offsets=[0, 0])), "must have a shape that numpy can hold"),
        (packed(entry(shape=[-1, -1]), bytes(8)), "must have a shape"),
        (packed(entry(shape=[True]), bytes(8)), "must have a shape"),
        (packed(entry(shape=[1] * 33), bytes(8)), "must have a shape"),
        (packed(entry(shape="1"), bytes(8)), "must have a shape"),
        (packed(entry(offsets=[8, 16]), bytes(16)), "must fill its place"),  # a hole
        (packed(entry(), bytes(9)), "must be filled by its arrays; got 1 bytes beyond"),
        (packed({**entry(), "y": entry()["x"]}, bytes(8)), "must fill its place"),  # overlap
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else "",
)
def test_other_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpack_shard(data)


@given(st.binary(max_size=200), st.integers(0, 300), st.binary(min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_arrays_or_a_value_error(noise: bytes, at: int, piece: bytes) -> None:
    good = pack_shard({"x": np.arange(5), "y": np.zeros((2, 2), dtype=np.float32)})
    for data in (noise, packed(noise), good[:at] + piece + good[at + len(piece) :], good[:at]):
        try:
            arrays = unpack_shard(data)
        except ValueError:
            continue
        assert sum(value.nbytes for value in arrays.values()) < len(data)


def shard(number: int, size: int = 100) -> bytes:
    return pack_shard({"x": np.full(size, number, dtype=np.int32)})


SIZE = len(shard(0))


def test_a_store_keeps_what_it_is_given(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "a" / "b", 10 * SIZE)
    assert (store.digests, store.n_bytes) == ([], 0)
    for number in range(3):
        assert store.put(shard(number))
    again = ShardStore(tmp_path / "a" / "b", 10 * SIZE)  # another process, or a later start
    for number in range(3):
        digest = shard_digest(shard(number))
        assert digest in again
        loaded = again.load(digest)
        assert loaded is not None and loaded["x"].tolist() == [number] * 100
    assert again.n_bytes == 3 * SIZE
    assert again.put(shard(0)) and again.n_bytes == 3 * SIZE
    again.remove(digest)
    assert digest not in again and again.load(digest) is None
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store, digests = ShardStore(tmp_path, 3 * SIZE), [shard_digest(shard(number)) for number in range(6)]
    for number in (0, 1, 2):
        assert store.put(shard(number))
    assert store.load(digests[0]) is not None
    assert store.put(shard(3))
    assert set(store.digests) == {digests[2], digests[0], digests[3]}
    assert store.digests == [digests[2], digests[0], digests[3]]
    # What the caller needs is spared; where nothing else can go, the new one is not kept.
    assert store.put(shard(4), spare=[digests[2], digests[0]])
    assert store.digests == [digests[2], digests[0], digests[4]]
    assert not store.put(shard(5), spare=store.digests)
    assert store.digests == [digests[2], digests[0], digests[4]]
    # A large one takes the place of several; one beyond the budget takes nothing.
    large = shard(6, 300)
    assert 2 * SIZE < len(large) < 3 * SIZE
    assert store.put(large) and store.digests == [shard_digest(large)]
    assert not store.put(shard(7, 400)) and store.digests == [shard_digest(large)]


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=25), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_the_budget_holds_and_order_is_that_of_use(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], room: int
) -> None:
    budget = room * SIZE + SIZE // 2
    store = ShardStore(tmp_path_factory.mktemp("store"), budget)
    expected: list[str] = []
    for number, write in steps:
        digest = shard_digest(shard(number))
        found = store.put(shard(number)) if write else store.load(digest) is not None
        assert found == (digest in expected or (write and room > 0))
        if found:
            expected = [other for other in expected if other != digest] + [digest]
            expected = expected[-room:]
        assert store.digests == expected
        assert store.n_bytes <= budget


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty"])
def test_a_damaged_file_is_removed_and_never_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, digest = ShardStore(tmp_path, 10 * SIZE), shard_digest(shard(1))
    store.put(shard(1))
    path = next(tmp_path.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"flip": data, "cut": data[:-1], "longer": shard(1) + b"x", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "flwr.fedgc"):
        assert store.load(digest) is None
    assert f"shard {digest} is damaged on disk" in caplog.text
    assert digest not in store and not path.exists()
    assert store.put(shard(1)) and store.load(digest) is not None
    path.write_bytes(data)
    assert store.put(shard(1))  # a good copy takes the place of a bad one
    assert store.load(digest) is not None


@pytest.mark.parametrize(
    "digest", ["", "0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n", "/etc/passwd", b"0" * 64, 7, None]
)
def test_only_a_digest_is_ever_part_of_a_path(tmp_path: Path, digest: Any) -> None:
    store = ShardStore(tmp_path, SIZE)
    for use in (store.load, store.remove, store.__contains__):
        with pytest.raises(ValueError, match="digest must be 64 hexadecimal digits"):
            use(digest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["link to the shard", "link to a secret", "link to nothing", "pipe", "link to a pipe"])
def test_a_shard_is_read_from_a_plain_file_only(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither is a link followed, wherever it leads, nor does anything wait for what a pipe may bring."""
    (tmp_path / "elsewhere").mkdir()
    outside = tmp_path / "elsewhere" / "file"
    outside.write_bytes(shard(1) if kind == "link to the shard" else b"secret")
    if kind == "link to nothing":
        outside.unlink()
    pipe = tmp_path / "elsewhere" / "pipe"
    os.mkfifo(pipe)
    store, digest = ShardStore(tmp_path / "store", SIZE), shard_digest(shard(1))
    path = tmp_path / "store" / f"{digest}.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(pipe if kind == "link to a pipe" else outside)
    before = outside.read_bytes() if outside.exists() else None
    assert digest not in store and store.digests == [] and store.n_bytes == 0
    with caplog.at_level(logging.WARNING, "flwr.fedgc"):
        assert store.load(digest) is None
    assert f"shard {digest} is damaged on disk" in caplog.text
    assert not path.is_symlink() and not path.exists()
    if kind != "pipe":
        path.symlink_to(outside)  # and what is written takes the place of the link, not of what it leads to
        assert store.put(shard(1)) and digest in store and not path.is_symlink()
    assert (outside.read_bytes() if outside.exists() else None) == before


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes must be an integer of at least 1; got 0"):
        ShardStore(tmp_path / "new", 0)
    assert not (tmp_path / "new").exists()


def test_other_files_are_let_alone_and_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine" * 1000)
    (tmp_path / "unfinished-abc").write_bytes(b"x" * 10_000)  # a process died while writing it
    store = ShardStore(tmp_path, SIZE)
    assert store.digests == []
    assert store.put(shard(0)) and store.n_bytes == SIZE
    assert (tmp_path / "notes.txt").exists() and not (tmp_path / "unfinished-abc").exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_or_a_full_disk_leaves_nothing_half_done(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ShardStore(tmp_path, 10 * SIZE)
    store.put(shard(0))

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            store.put(shard(1))
    assert store.digests == [shard_digest(shard(0))]
    assert not list(tmp_path.glob("unfinished-*"))


def _use(folder: str, seed: int, budget: int, found: Any) -> None:
    store, rng = ShardStore(folder, budget), np.random.default_rng(seed)
    wrong = 0
    for _ in range(60):
        number = int(rng.integers(8))
        if rng.random() < 0.5:
            store.put(shard(number))
        else:
            loaded = store.load(shard_digest(shard(number)))
            wrong += loaded is not None and loaded["x"].tolist() != [number] * 100
    found.put(wrong)


def test_processes_may_share_a_folder(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn")
    found, budget = other.Queue(), 4 * SIZE
    worker = other.Process(target=_use, args=(str(tmp_path), 0, budget, found))
    worker.start()
    seed, mine = 0, queue.Queue[int]()
    while worker.is_alive() and found.empty():  # at the same time, for as long as the other takes
        seed += 1
        _use(str(tmp_path), seed, budget, mine)
    assert found.get(timeout=60) == 0
    worker.join(60)
    assert worker.exitcode == 0
    assert seed > 0 and not any(mine.get() for _ in range(seed))
    store = ShardStore(tmp_path, budget)
    assert 0 < store.n_bytes <= budget
    assert all(store.load(digest) is not None for digest in store.digests)
    assert not list(tmp_path.glob("unfinished-*"))


def test_a_clock_that_is_set_back_only_changes_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShardStore(tmp_path, 2 * SIZE)
    store.put(shard(0))
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    store.put(shard(1))
    store.put(shard(2))
    assert store.digests == [shard_digest(shard(2)), shard_digest(shard(0))]
