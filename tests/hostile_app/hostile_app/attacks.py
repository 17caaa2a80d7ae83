"""What a hostile client makes of its reply: everything that its own process can put into a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.app.message.arraychunk import ArrayChunk

#: Bytes of an array that is far larger than the model, and of the part of one that is named so many times.
GIANT, PART, TIMES = 64 * 2**20, 5 * 2**20, 400
#: Looks like a path, wherever a name or a text is looked for.
PATH = "../../hostile-marker/../etc/passwd"

Attack = Callable[[Message, np.random.Generator], Any]


def _sum(reply: Message) -> ArrayRecord:
    return next(iter(reply.content.array_records.values()))


def _replace(reply: Message, make: Callable[[Array], Array]) -> None:
    record = _sum(reply)
    name = next(iter(record))
    record[name] = make(record[name])


def random_bytes(reply: Message, rng: np.random.Generator) -> None:
    """Noise in place of an array's bytes, as many as these."""
    _replace(reply, lambda a: Array(a.dtype, a.shape, a.stype, rng.bytes(len(a.data))))


def giant_array(reply: Message, rng: np.random.Generator) -> None:
    """An array a thousand times as large as the model, by the model's name."""
    _replace(reply, lambda a: Array(rng.standard_normal(GIANT // 8)))


def giant_header(reply: Message, rng: np.random.Generator) -> None:
    """The model's bytes under a header that promises an array of a terabyte."""

    def make(array: Array) -> Array:
        head = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (2**37,)}
        text = repr(head).encode().ljust(118) + b"\n"
        return Array(array.dtype, array.shape, array.stype, b"\x93NUMPY\x01\x00" + bytes([119, 0]) + text)

    _replace(reply, make)


def no_bytes_each(reply: Message, rng: np.random.Generator) -> None:
    """A billion entries of no bytes each."""

    def make(array: Array) -> Array:
        text = repr({"descr": "|S0", "fortran_order": False, "shape": (10**9,)}).encode().ljust(118) + b"\n"
        return Array(array.dtype, array.shape, array.stype, b"\x93NUMPY\x01\x00" + bytes([119, 0]) + text)

    _replace(reply, make)


def many_parts(reply: Message, rng: np.random.Generator) -> None:
    """An array of one part of 5 MiB, named 400 times: put together it would be of 2 GB."""

    def make(array: Array) -> Array:
        made, part = Array(array.dtype, array.shape, array.stype, b""), ArrayChunk(memoryview(rng.bytes(PART)))
        made.__dict__["_chunks"] = [(part.object_id, part)] * TIMES
        return made

    _replace(reply, make)


def not_to_be_read(reply: Message, rng: np.random.Generator) -> None:
    """An array whose object says that it is one, and nothing else that makes sense."""
    record = _sum(reply)
    record[next(iter(record))].__dict__["deflate"] = lambda: b"Array  4\x00}{}{"


def many_records(reply: Message, rng: np.random.Generator) -> None:
    """Records beyond count."""
    for number in range(2_000):
        reply.content[f"record-{number}"] = ConfigRecord({"value": number})


def many_arrays(reply: Message, rng: np.random.Generator) -> None:
    """Arrays beyond count, with the model's among them."""
    for number in range(2_000):
        _sum(reply)[f"array-{number}"] = Array(np.array([number]))


def not_a_number(reply: Message, rng: np.random.Generator) -> None:
    """NaN in every entry."""
    _replace(reply, lambda a: Array(np.full(a.shape, np.nan, dtype=a.dtype)))


def absurd(reply: Message, rng: np.random.Generator) -> None:
    """Numbers that are just finite."""
    _replace(reply, lambda a: Array(np.full(a.shape, 3e38, dtype=a.dtype)))


def huge_metrics(reply: Message, rng: np.random.Generator) -> None:
    """A metric of a million numbers, one with a name of a megabyte, and a thousand more."""
    metrics = next(iter(reply.content.metric_records.values()))
    metrics["loss"] = rng.standard_normal(10**6).tolist()
    metrics["m" * 10**6] = 1.0
    for number in range(2000):
        metrics[f"metric-{number}"] = 1.0


def huge_config(reply: Message, rng: np.random.Generator) -> None:
    """Lists of a hundred thousand shards, and a text of 10 MB that would fill the log."""
    said = reply.content["fedgc"]
    said["shard-ids"] = list(range(10**5))
    said["lacking-shards"] = list(range(10**5))
    reply.content["more"] = ConfigRecord({"text": "line\n" * (2 * 10**6)})


def paths(reply: Message, rng: np.random.Generator) -> None:
    """Paths where names and texts are expected."""
    said = reply.content["fedgc"]
    said["shard-digests"], said["kept-shards"], said["lacking-shards"] = [PATH], PATH, [PATH]
    said[PATH], said["shard-ids"] = PATH, [PATH]
    reply.content[PATH] = MetricRecord({PATH: 1.0})


def others_shards(reply: Message, rng: np.random.Generator) -> None:
    """A claim to shards that it was not assigned."""
    said = reply.content["fedgc"]
    said["shard-ids"] = [(shard + 1) % 12 for shard in said["shard-ids"]]


def more_progress(reply: Message, rng: np.random.Generator) -> None:
    """A claim to more shards than it was assigned, all with sizes."""
    said, metrics = reply.content["fedgc"], next(iter(reply.content.metric_records.values()))
    said["shard-ids"] = [*said["shard-ids"], 0, 1, 2, 3]
    said["shard-examples"] = [*said["shard-examples"], 900, 900, 900, 900]
    metrics["num-examples"] += 3600


def more_examples(reply: Message, rng: np.random.Generator) -> None:
    """A claim to far more examples, so that it counts for more."""
    said, metrics = reply.content["fedgc"], next(iter(reply.content.metric_records.values()))
    said["shard-examples"] = [count * 10**6 for count in said["shard-examples"]]
    metrics["num-examples"] = sum(said["shard-examples"])


def forged(reply: Message, rng: np.random.Generator) -> None:
    """An update that is well formed and made up: the model turned round."""
    for name, array in _sum(reply).items():
        _sum(reply)[name] = Array((-array.numpy() + rng.standard_normal(array.shape)).astype(array.dtype))


def long_reason(reply: Message, rng: np.random.Generator) -> None:
    """An error with reasons that look like lines of the log, ten thousand of them."""
    raise RuntimeError("battery empty\n" + "round 1: node 7 is left out: forged\n" * 10_000)


ATTACKS: dict[str, Attack] = {
    "random bytes": random_bytes,
    "giant array": giant_array,
    "giant header": giant_header,
    "no bytes each": no_bytes_each,
    "many parts": many_parts,
    "not to be read": not_to_be_read,
    "many records": many_records,
    "many arrays": many_arrays,
    "NaN": not_a_number,
    "absurd": absurd,
    "huge metrics": huge_metrics,
    "huge config": huge_config,
    "paths": paths,
    "others' shards": others_shards,
    "more progress": more_progress,
    "more examples": more_examples,
    "forged": forged,
    "long reason": long_reason,
}
