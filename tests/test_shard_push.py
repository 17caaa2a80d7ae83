"""Shards that the server pushes: each to each holder once, and only what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import FunctionShards, ShardStore, ShardUpdate, gradient_coded
from fedgc.strategies import PushedShards
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedgc.shard_format import pack_shard
from fedgc.simulation.run import _task_identity
from tests.apps import N_SHARDS, initial_arrays, steady, train_shard
from tests.pushed_shards import (
    BYTES,
    DIGESTS,
    SHARDS,
    Sent,
    app_of,
    run,
    shard_data,
    stores_in,
    train_on,
)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("lazy", [False, True])
def test_pushed_shards_train_the_model_that_local_ones_do(tmp_path: Path, schedule: str, lazy: bool) -> None:
    sent, shards = Sent(), PushedShards(shard_data if lazy else SHARDS)
    options = {"schedule": schedule, "rounds": 4}
    pushed, model, trace = run(shards, app_of(store=stores_in(tmp_path)), steady(), sent=sent, **options)
    local, expected, local_trace = run(None, app_of(source=FunctionShards(shard_data)), steady(), **options)
    for name, value in expected.items():
        np.testing.assert_array_equal(model[name], value)
    assert [(e.instant, e.kind, e.client) for e in trace.trace] == [
        (e.instant, e.kind, e.client) for e in local_trace.trace
    ]
    for one, other in zip(pushed.history, local.history, strict=True):
        assert (one.rejected, one.n_arrived, one.seconds) == (other.rejected, other.n_arrived, other.seconds)
    # Each shard went to each of its holders, with the first message that asked for it, and never again.
    for client in range(6):
        seen: set[int] = set()
        for pushed_now, assigned in zip(sent.to(client), sent.assigned, strict=True):
            assert set(pushed_now) == set(assigned[client]) - seen
            seen |= set(assigned[client])
    assert shards.history[0].n_shards == sum(map(len, sent.rounds[0].values())) >= 2 * N_SHARDS
    assert shards.history[0].n_nodes == 6
    every = [shard_id for pushed_now in sent.rounds for ids in pushed_now.values() for shard_id in ids]
    assert shards.n_bytes_sent == sum(BYTES[shard_id] for shard_id in every)
    assert str(shards) == f"PushedShards(n_bytes_sent={shards.n_bytes_sent})"


@pytest.mark.parametrize(("schedule", "gain"), [("full", 1.0), ("work-list", 1.0), ("full", 0.2), ("work-list", 0.2)])
def test_reassignment_sends_only_what_is_missing(tmp_path: Path, schedule: str, gain: float) -> None:
    """Two of six clients leave after round 2; the others take over their shards, with a gain of 1 only those."""
    sent, shards = Sent(), PushedShards(SHARDS)
    fleet = steady(6, leave_after=[2.0, 2.0, np.inf, np.inf, np.inf, np.inf], loss_detection=1.0)
    options = {"schedule": schedule, "reassignment_gain": gain}
    run(shards, app_of(store=stores_in(tmp_path)), fleet, rounds=8, sent=sent, **options)
    assert set(sent.rounds[-1]) == {2, 3, 4, 5}
    moved = 0
    for client in range(2, 6):
        held: set[int] = set()
        for pushed, assigned in zip(sent.to(client), sent.assigned, strict=True):
            assert set(pushed) == set(assigned[client]) - held
            held |= set(assigned[client])
        moved += sum(map(len, sent.to(client)[1:]))
    assert moved > 0  # somebody took over
    assert [pushes.n_shards for pushes in shards.history][-2:] == [0, 0]


def test_a_node_that_restarts_or_evicts_gets_what_it_lacks_with_the_next_message(tmp_path: Path) -> None:
    sent, shards, trained = Sent(), PushedShards(SHARDS), []

    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context, shard: Any) -> ShardUpdate:
        trained.append((config["server-round"], context.node_id))
        return train_on(shard_id, arrays, config, shard)

    app = ClientApp()
    app.train()(gradient_coded(store=stores_in(tmp_path))(trainer))

    def forget(server_round: int, message: Message) -> None:
        if server_round == 2 and message.metadata.dst_node_id == 100:
            (tmp_path / "0" / f"{DIGESTS[sent.assigned[0][0][-1]]}.safetensors").unlink()

    sent.spoil = forget
    strategy, _, _ = run(shards, app, steady(), rounds=4, sent=sent, reassignment_gain=1.0)
    part = sent.assigned[0][0]
    assert len(part) > 1 and sent.to(0) == [sorted(part), [], part[-1:], []]
    assert all(sent.to(client)[1:] == [[], [], []] for client in range(1, 6))
    reasons = [dict(report.rejected) for report in strategy.history]
    assert reasons[1] == {100: f"it lacks the data of shards [{part[-1]}]"}
    assert trained.count((1, 100)) == len(part) and (2, 100) not in trained  # nothing of it would have counted
    assert [reasons[index] for index in (0, 2, 3)] == [{}, {}, {}]


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_damaged_file_is_noticed_and_sent_again(
    tmp_path: Path, schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent, spoilt = Sent(), []

    def damage(server_round: int, message: Message) -> None:
        if server_round == 2 and message.metadata.dst_node_id == 100:
            shard_id = sent.assigned[1][0][-1]  # the last of its list
            path = tmp_path / "0" / f"{DIGESTS[shard_id]}.safetensors"
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
            spoilt.append(shard_id)

    sent.spoil = damage
    options = {"schedule": schedule, "reassignment_gain": 1.0}
    strategy, _, _ = run(
        PushedShards(SHARDS), app_of(store=stores_in(tmp_path)), steady(), rounds=4, sent=sent, **options
    )
    assert f"shard {DIGESTS[spoilt[0]]} is damaged on disk" in caplog.text
    assert sent.to(0)[2] == spoilt and sent.to(0)[1] == sent.to(0)[3] == []
    # On a work list what stands before it has been done; of the full schedule nothing counts.
    lost = strategy.history[1].rejected
    assert (lost == {}) if schedule == "work-list" else (lost == {100: f"it lacks the data of shards {spoilt}"})
    assert all(not strategy.history[index].rejected for index in (0, 2, 3))


def test_the_budget_holds_and_what_does_not_fit_is_used_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of three clients has four shards and room for three: one of them is sent every round."""
    budget, sent = 3 * max(BYTES), Sent()
    assert sum(sorted(BYTES)[:4]) > budget
    app = app_of(store=stores_in(tmp_path, budget))
    strategy, model, _ = run(PushedShards(SHARDS), app, steady(3), rounds=4, sent=sent, load=2)
    _, expected, _ = run(None, app_of(source=FunctionShards(shard_data)), steady(3), rounds=4, load=2)
    for name, value in expected.items():
        np.testing.assert_array_equal(model[name], value)
    assert all(report.rejected == {} for report in strategy.history)
    for client in range(3):
        assert ShardStore(tmp_path / str(client), budget).n_bytes <= budget
        spare = len(sent.assigned[0][client]) - 3
        assert [len(pushed) for pushed in sent.to(client)[1:]] == [max(spare, 0)] * 3
    assert "does not keep all that it is sent: is its store too small?" in caplog.text


def test_a_disk_that_takes_nothing_costs_bytes_and_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: ShardStore, data: bytes, *, spare: Iterable[str] = ()) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardStore, "put", full)
    strategy, _, _ = run(PushedShards(SHARDS), app_of(store=stores_in(tmp_path)), steady(), rounds=2)
    assert all(report.rejected == {} and report.n_arrived == 6 for report in strategy.history)
    assert "cannot be kept: [Errno 28] No space left on device" in caplog.text


def test_large_shards_come_in_parts_and_over_several_messages(tmp_path: Path) -> None:
    """Of a work list that comes in pieces the beginning can be done at once; a shard beyond the limit comes alone."""
    large = {shard_id: {**SHARDS[shard_id], "noise": np.arange(2_000_000.0)} for shard_id in range(N_SHARDS)}
    sent, shards = Sent(), PushedShards(large, message_bytes=10_000_000)
    options = {"schedule": "work-list", "redraw": False, "rounds": 3}
    strategy, _, _ = run(
        shards, app_of(store=stores_in(tmp_path, 10**9)), steady(2), sent=sent, **options, reassignment_gain=1.0
    )
    names = [name for name in sent.messages[0].content.config_records if name.startswith("fedgc-shard-")]
    first = sent.assigned[0][0][0]
    assert names == [f"fedgc-shard-{first}-{part}" for part in range(4)]  # 16 MB in parts of 5 MiB
    assert all(len(sent.messages[0].content[name]["data"]) <= 5 * 2**20 for name in names)
    for client in range(2):
        assert [len(pushed) for pushed in sent.to(client)] == [1, 1, 1]
        assert [ids[0] for ids in sent.to(client)] == sent.assigned[0][client][:3]
    assert all(report.rejected == {} for report in strategy.history)
    assert [int((report.coverage > 0).sum()) for report in strategy.history] == [2, 4, 6]
    # What ended for want of data says nothing about a client's pace.
    history = strategy.state.completion_times.history
    assert not strategy.state.new_times and history is not None and history.count.sum() == 0


@pytest.mark.parametrize("ask_first", [False, True])
def test_a_second_run_finds_what_the_first_has_left(tmp_path: Path, ask_first: bool) -> None:
    app = app_of(store=stores_in(tmp_path))
    run(PushedShards(SHARDS), app, steady(), rounds=1)
    shards = PushedShards(SHARDS, ask_first=ask_first)
    strategy, _, _ = run(shards, app, steady(), rounds=2)
    assert (shards.n_bytes_sent == 0) == ask_first
    assert all(report.n_arrived == 6 for report in strategy.history)
    # With nothing on the disks, asking costs the first round.
    fresh = PushedShards(SHARDS, ask_first=ask_first)
    strategy, _, _ = run(fresh, app_of(store=stores_in(tmp_path / "empty")), steady(), rounds=2)
    assert [report.n_arrived for report in strategy.history] == ([0, 6] if ask_first else [6, 6])
    assert [pushes.n_nodes for pushes in fresh.history] == ([0, 6] if ask_first else [6, 0])


def test_one_folder_for_several_nodes(tmp_path: Path) -> None:
    shards = PushedShards(SHARDS, ask_first=True)
    store = ShardStore(tmp_path, 10**6)
    for shard_id in range(N_SHARDS):
        store.put(pack_shard(SHARDS[shard_id]))
    strategy, _, _ = run(shards, app_of(store=store), steady(), rounds=1)
    assert shards.n_bytes_sent == 0 and strategy.history[0].n_arrived == 6


def test_clients_without_a_store_are_sent_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    sent, shards = Sent(), PushedShards(SHARDS)
    strategy, _, _ = run(shards, app_of(source=FunctionShards(shard_data)), steady(), sent=sent)
    assert all(report.n_arrived == 6 for report in strategy.history)
    assert [pushes.n_nodes for pushes in shards.history] == [6, 0, 0]
    assert "shard-digests" not in sent.messages[-1].content["fedgc"]
    assert caplog.text.count("has no store for shards: it is sent none") == 6


def test_a_store_and_a_server_without_shards(tmp_path: Path) -> None:
    strategy, _, _ = run(None, app_of(store=stores_in(tmp_path)), steady(2), rounds=1)
    assert all(
        "the server pushes no shards: give gradient_coded a source" in r for r in strategy.history[0].rejected.values()
    )
    assert len(strategy.history[0].rejected) == 2
    both = app_of(store=stores_in(tmp_path), source=FunctionShards(shard_data))
    strategy, _, _ = run(None, both, steady(2), rounds=1)
    assert strategy.history[0].n_arrived == 2


def test_trainers_without_data_know_nothing_of_it() -> None:
    app = ClientApp()
    app.train()(gradient_coded(num_shards=N_SHARDS)(train_shard))
    _, model, _ = run(None, app, steady(), rounds=3)
    _, same, _ = run(None, app_of(source=FunctionShards(shard_data)), steady(), rounds=3)
    for name, value in model.items():
        np.testing.assert_array_equal(same[name], value)


def test_time_to_keep_shards_is_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that writes to disk for 5.4 of its 8 seconds has time for one shard, not two, of 1.4 seconds each."""
    now = [0.0]
    monkeypatch.setattr("fedgc.clients.encode.time.monotonic", lambda: now[0])

    def put(self: ShardStore, data: bytes, *, spare: Iterable[str] = ()) -> bool:
        now[0] += 1.8
        return False

    monkeypatch.setattr(ShardStore, "put", put)

    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, shard: Any) -> ShardUpdate:
        now[0] += 1.4
        return train_on(shard_id, arrays, config, shard)

    decorated = gradient_coded(store=ShardStore(tmp_path, 10**6))(trainer)
    assignment = ConfigRecord({"shard-ids": [0, 1, 2], "coefficients": [1.0] * 3, "run-seed": 0, "budget": 8.0})
    assignment["segments"], assignment["shard-digests"] = [3], DIGESTS[:3]
    content = RecordDict({"arrays": initial_arrays(), "fedgc": assignment})
    for shard_id in (0, 1, 2):
        content[f"fedgc-shard-{shard_id}-0"] = ConfigRecord({"data": pack_shard(SHARDS[shard_id])})
    with _task_identity():
        message = Message(content, dst_node_id=7, message_type="train")
        context = Context(1, 7, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
        said = decorated(message, context).content["fedgc"]
    assert said["shard-ids"] == [0]
    assert said["work-seconds"] == pytest.approx(1.4)
    assert said["lacking-shards"] == [0, 1, 2] and said["kept-shards"] == 0
