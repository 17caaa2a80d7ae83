"""Everything that can be wrong with a reply, as changes of a good one."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

Change = Callable[[RecordDict, np.random.Generator], None]


def copy_of(reply: Message, instruction: Message) -> Message:
    """A reply of its own with the same content: what is taken from one copy stays in the others."""
    kinds = (ArrayRecord, ConfigRecord, MetricRecord)
    records = {
        name: next(kind for kind in kinds if isinstance(record, kind))(dict(record))
        for name, record in reply.content.items()
    }
    return Message(RecordDict(records), reply_to=instruction)


def _some_sum(content: RecordDict, rng: np.random.Generator) -> ArrayRecord:
    sums = list(content.array_records.values())
    if not sums:
        raise KeyError
    return sums[rng.integers(len(sums))]


def _array(value: Callable[[Array, np.random.Generator], Any]) -> Change:
    def change(content: RecordDict, rng: np.random.Generator) -> None:
        record = _some_sum(content, rng)
        name = list(record)[rng.integers(len(record))]
        made = value(record[name], rng)
        record[name] = made if isinstance(made, Array) else Array(np.asarray(made))

    return change


def _one_entry(*values: float) -> Change:
    def with_entry(array: Array, rng: np.random.Generator) -> Any:
        entries = np.asarray(array.numpy(), dtype=np.float64).copy()
        entries.flat[rng.integers(entries.size)] = rng.choice(values)
        return entries

    return _array(with_entry)


def _pickled(array: Array, rng: np.random.Generator) -> Array:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())


def _broken(array: Array, rng: np.random.Generator) -> Array:
    data = [b"", b"nonsense", array.data[:-1], array.data + b"x", array.data[: rng.integers(1, 60)]][rng.integers(5)]
    return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=data)


def _extra_array(content: RecordDict, rng: np.random.Generator) -> None:
    _some_sum(content, rng)["more"] = Array(np.zeros(2))


def _missing_array(content: RecordDict, rng: np.random.Generator) -> None:
    record = _some_sum(content, rng)
    del record[list(record)[rng.integers(len(record))]]


def _renamed(content: RecordDict, rng: np.random.Generator) -> None:
    record = _some_sum(content, rng)
    record["other"] = record.pop(list(record)[rng.integers(len(record))])


def _no_sum(content: RecordDict, rng: np.random.Generator) -> None:
    del content[list(content.array_records)[rng.integers(len(content.array_records))]]


def _extra_sum(content: RecordDict, rng: np.random.Generator) -> None:
    content[f"sum-{rng.integers(9)}"] = ArrayRecord({"w": Array(np.zeros(1))})


def _without(name: str) -> Change:
    def change(content: RecordDict, rng: np.random.Generator) -> None:
        del content[name]

    return change


def _more_metrics(content: RecordDict, rng: np.random.Generator) -> None:
    content["more"] = MetricRecord({"num-examples": 1})


def _said(key: str, value: Callable[[list[int], np.random.Generator], Any]) -> Change:
    def change(content: RecordDict, rng: np.random.Generator) -> None:
        said = content["fedgc"][key]  # type: ignore[index]
        content["fedgc"][key] = value(list(said) if isinstance(said, list) else [0], rng)  # type: ignore[index]

    return change


def _beyond(content: RecordDict, rng: np.random.Generator) -> None:
    """More shards than are on the list, with sizes to match."""
    said = content["fedgc"]
    said["shard-ids"] = [*said["shard-ids"], *range(900, 940)]  # type: ignore[index,misc]
    said["shard-examples"] = [*said["shard-examples"], *[1] * 40]  # type: ignore[index,misc]
    content["metrics"]["num-examples"] += 40  # type: ignore[index,operator]


def _metric(name: str, *values: Any) -> Change:
    def change(content: RecordDict, rng: np.random.Generator) -> None:
        content["metrics"][name] = values[rng.integers(len(values))]  # type: ignore[index]

    return change


def _as_types(values: list[int], rng: np.random.Generator) -> Any:
    texts = [str(value) for value in values]
    wrong: list[Any] = ["all", b"\x00\xff", True, 3.5, 7, texts, [True] * len(values), [v + 0.5 for v in values]]
    return wrong[rng.integers(len(wrong))]


#: Classes of changes to a reply's content, each of which alone makes it useless.
CHANGES: Mapping[str, Change] = {
    "a sum is missing": _no_sum,
    "a sum too many": _extra_sum,
    "no metrics": _without("metrics"),
    "metrics twice": _more_metrics,
    "no record of fedgc": _without("fedgc"),
    "an array too many": _extra_array,
    "an array is missing": _missing_array,
    "renamed": _renamed,
    "shape": _array(lambda array, rng: np.zeros(tuple(rng.integers(0, 7, rng.integers(3, 5))))),
    "dtype": _array(lambda array, rng: np.full(array.shape, 1.0).astype(["U3", "c16", "S2", "M8[s]"][rng.integers(4)])),
    "objects": _array(_pickled),
    "broken bytes": _array(_broken),
    "NaN": _one_entry(np.nan),
    "infinity": _one_entry(np.inf, -np.inf),
    "absurd magnitude": _one_entry(1.7e308, -1.7e308),
    "wrong shard": _said("shard-ids", lambda ids, rng: [ids[0] + int(rng.integers(1, 99)), *ids[1:]]),
    "negative shard": _said("shard-ids", lambda ids, rng: [-1, *ids[1:]]),
    "beyond the plan": _beyond,
    "types of the shards": _said("shard-ids", _as_types),
    "negative examples": _said("shard-examples", lambda sizes, rng: [-sizes[0], *sizes[1:]]),
    "no examples": _said("shard-examples", lambda sizes, rng: [0] * len(sizes)),
    "other examples": _said("shard-examples", lambda sizes, rng: [sizes[0] + int(rng.integers(1, 9)), *sizes[1:]]),
    "types of the examples": _said("shard-examples", _as_types),
    "huge numbers": _said("shard-examples", lambda sizes, rng: [[2**63, 10**400, 2**53][rng.integers(3)], *sizes[1:]]),
    "another weight": _metric("num-examples", 0, -5, 10**30, 10**400, 0.5, float("nan"), [1, 2]),
    "metric": _metric("loss", float("nan"), float("inf"), 10**400, [1.0, float("nan")]),
}
#: Errors, and replies to something else.
OTHERS = ("raises", "an error", "an unknown message", "another round", "twice")
MIXTURE = "several at once"


def malformed(
    kind: str, reply: Message, instruction: Message, rng: np.random.Generator, before: Message | None
) -> Message | None:
    """Return a useless variant of a reply, None if it cannot be had; `before` is the reply of an earlier round."""
    if kind == "an error":
        return Message(Error(code=int(rng.integers(0, 9)), reason="out of order"), reply_to=instruction)
    if kind == "another round":
        return before
    bad = copy_of(reply, instruction)
    if kind == "an unknown message":
        bad.metadata.__dict__["_reply_to_message_id"] = ["", "nonsense", "00000000"][rng.integers(3)]
        return bad
    names = [kind] if kind in CHANGES else rng.choice(list(CHANGES), size=int(rng.integers(2, 5)), replace=False)
    for name in names:
        with suppress(KeyError, TypeError, ValueError):  # an earlier change has spoilt what this one is about
            CHANGES[name](bad.content, rng)
    return bad
