"""Pushed data that is not what it says, and shards named by what is no name, are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import PushedShards
from flwr.app import ConfigRecord, Message, RecordDict

from fedgc.shard_format import pack_shard, shard_digest
from tests.apps import steady
from tests.pushed_shards import (
    DIGESTS,
    SHARDS,
    Sent,
    app_of,
    run,
    stores_in,
)


def with_records(change: Callable[[RecordDict, int, str], None]) -> Callable[[int, Message], None]:
    """Spoil, in round 1, what is pushed to client 0 of the first shard of its list."""

    def spoil(server_round: int, message: Message) -> None:
        if server_round == 1 and message.metadata.dst_node_id == 100:
            shard_id = message.content.config_records["fedgc"]["shard-ids"][0]  # type: ignore[index]
            change(message.content, int(shard_id), f"fedgc-shard-{shard_id}-0")

    return spoil


def _flip(content: RecordDict, shard_id: int, name: str) -> None:
    data = bytearray(content[name]["data"])
    data[-1] ^= 1
    content[name] = ConfigRecord({"data": bytes(data)})


def _objects(content: RecordDict, shard_id: int, name: str) -> None:
    header = b'{"x":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}'
    _replace(content, shard_id, len(header).to_bytes(8, "little") + header + bytes(8))


def _pickle(content: RecordDict, shard_id: int, name: str) -> None:
    _replace(content, shard_id, b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.")


def _absurd(content: RecordDict, shard_id: int, name: str) -> None:
    header = b'{"x":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}'
    _replace(content, shard_id, len(header).to_bytes(8, "little") + header + bytes(8))


def _large(content: RecordDict, shard_id: int, name: str) -> None:
    _replace(content, shard_id, pack_shard({"x": np.zeros(200_000)}))


def _replace(content: RecordDict, shard_id: int, data: bytes) -> None:
    """Other data under its own, right, hash: what a hostile server would send."""
    content[f"fedgc-shard-{shard_id}-0"] = ConfigRecord({"data": data})
    record = content["fedgc"]
    record["shard-digests"] = [
        shard_digest(data) if other == shard_id else digest
        for other, digest in zip(record["shard-ids"], record["shard-digests"], strict=True)
    ]


def _no_bytes(content: RecordDict, shard_id: int, name: str) -> None:
    content[name] = ConfigRecord({"data": "../../etc/passwd"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_flip, "its SHA-256 must be"),
        (_objects, "must be of a known type; got 'O'"),
        (_pickle, "must begin with a header that it holds"),
        (_absurd, "must fill its place of 8 bytes"),
        (_large, "it must fit into ShardStore"),
        (_no_bytes, None),
    ],
)
def test_spoilt_data_is_not_taken_and_sent_again(
    tmp_path: Path, change: Callable[..., None], reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    sent = Sent()
    sent.spoil = with_records(change)
    # After a refusal shards would move otherwise: who is less reliable gets more backups.
    app = app_of(store=stores_in(tmp_path))
    strategy, _, _ = run(PushedShards(SHARDS), app, steady(), sent=sent, reassignment_gain=1.0)
    victim = sent.assigned[0][0][0]
    assert strategy.history[0].rejected.keys() == {100}
    assert strategy.history[0].rejected[100] == f"it lacks the data of shards [{victim}]"
    assert strategy.history[0].n_arrived == 5
    assert reason is None or f"shard {victim} is not taken as it was pushed" in caplog.text
    assert reason is None or reason in caplog.text
    assert sent.to(0)[1:] == [[victim], []]
    assert not strategy.history[1].rejected and not strategy.history[2].rejected
    kept = {path.name for path in (tmp_path / "0").iterdir()} - {".lock"}
    assert kept == {f"{DIGESTS[shard_id]}.safetensors" for shard_id in sent.assigned[0][0]}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("shard-digests", lambda n: ["../../../../tmp/x"] * n, "shard-digests must be 64 hexadecimal digits"),
        ("shard-digests", lambda n: ["A" * 64] * n, "shard-digests must be 64 hexadecimal digits"),
        ("shard-digests", lambda n: DIGESTS[: n - 1], "shard-digests must be one for each of shard-ids"),
        ("shard-digests", lambda n: "0" * 64, "shard-digests must be one for each of shard-ids"),
        ("shard-ids", lambda n: ["../x"] * n, "shard-ids must be an integer of at least 0; got '../x'"),
        ("shard-ids", lambda n: [-1] * n, "shard-ids must be an integer of at least 0; got -1"),
        ("asked-digests", lambda n: ["x"], "asked-digests must be one for each of asked-shards"),
    ],
)
def test_what_names_no_shard_is_refused(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    sent = Sent()

    def spoil(server_round: int, message: Message) -> None:
        if server_round == 1 and message.metadata.dst_node_id == 100:
            record = message.content.config_records["fedgc"]
            record[key] = value(len(record["shard-ids"]))  # type: ignore[arg-type]

    sent.spoil = spoil
    strategy, _, _ = run(PushedShards(SHARDS), app_of(store=stores_in(tmp_path / "in")), steady(4), rounds=2, sent=sent)
    assert reason in strategy.history[0].rejected[100]
    assert strategy.history[0].n_arrived == 3
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    # Its part was sent: the second message asks, and hears that it is not there.
    assert strategy.history[1].rejected[100].startswith("it lacks the data of shards")
