"""The embedded runtime: Flower apps in virtual time."""

from __future__ import annotations

import asyncio
import random
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, Strategy

from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import VirtualClock, VirtualGrid, VirtualRun, run_virtual


def steady(clients: int, **settings: Any) -> Fleet:
    """A fleet without randomness: one second of work a shard for everyone."""
    return build_fleet({"model": "log-normal", "clients": clients, "sigma": 0.0, **settings}, seed=1)


def echo_app(calls: list[tuple[int, int]] | None = None) -> ClientApp:
    """A client that adds its partition's number to the model, in a way that uses every global generator."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        config = message.content.config_records.get("config", ConfigRecord())
        server_round = int(config.get("server-round", 0))
        if calls is not None:
            calls.append((partition, server_round))
        noise = random.random() + np.random.random() + float(torch.rand(1))
        arrays = {k: v.numpy() + partition + 1e-3 * noise for k, v in message.content["arrays"].items()}
        count = int(context.state.config_records.setdefault("count", ConfigRecord({"n": 0}))["n"]) + 1
        context.state["count"] = ConfigRecord({"n": count})
        metrics = MetricRecord({"num-examples": 1, "calls": count, "round": server_round})
        content = RecordDict({"arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()}), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)

    return app


def run(
    main: Callable[[Grid, Context], None], fleet: Fleet, app: ClientApp | None = None, **options: Any
) -> VirtualRun:
    server = ServerApp()
    server.main()(main)
    return run_virtual(server, app or echo_app(), fleet, **options)


def messages_for(grid: Grid, ttl: float | None = None, server_round: int = 1) -> list[Message]:
    arrays = ArrayRecord([np.zeros(2)])
    return [
        Message(
            RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": server_round})}),
            node,
            "train",
            ttl=ttl,
        )
        for node in grid.get_node_ids()
    ]


def test_timeouts_are_virtual_and_exact() -> None:
    fleet = steady(3, median=[1.0, 2.0, 9.0])
    seen: dict[str, Any] = {}

    def main(grid: Grid, context: Context) -> None:
        assert isinstance(grid, VirtualGrid)
        replies = list(grid.send_and_receive(messages_for(grid), timeout=2.0))
        seen["came"] = [reply.metadata.src_node_id - 100 for reply in replies]
        seen["now"] = grid.clock.now()
        replies = list(grid.send_and_receive(messages_for(grid, server_round=2)))
        seen["all"] = [reply.metadata.src_node_id - 100 for reply in replies]

    start = time.perf_counter()
    result = run(main, fleet)
    assert seen == {"came": [0, 1], "now": 2.0, "all": [0, 1, 2]}
    assert result.seconds == 11.0
    assert time.perf_counter() - start < 5.0  # eleven virtual seconds were not slept


def test_push_and_pull_with_time_sleep_as_apps_do() -> None:
    """An unmodified ServerApp that polls with time.sleep until time.time passes its limit."""
    polls: list[int] = []

    def main(grid: Grid, context: Context) -> None:
        ids = list(grid.push_messages(messages_for(grid)))
        end, replies = time.time() + 100.0, []
        while time.time() < end and len(replies) < 2:
            replies += list(grid.pull_messages(ids))
            polls.append(len(replies))
            time.sleep(0.5)

    real = time.time
    run(main, steady(2, median=[1.0, 1.6]))
    assert polls == [0, 0, 1, 1, 2]
    assert time.time is real


def test_messages_are_snapshots() -> None:
    """Flower's FedAvg shares one ConfigRecord among its messages and changes it later."""
    seen = []

    def main(grid: Grid, context: Context) -> None:
        batch = messages_for(grid)
        ids = grid.push_messages(batch)
        batch[0].content["config"]["server-round"] = 99
        time.sleep(5.0)
        seen.extend(reply.content["metrics"]["round"] for reply in grid.pull_messages(ids))

    run(main, steady(1))
    assert seen == [1]


def test_a_new_message_replaces_unfinished_work_unless_there_is_a_backlog() -> None:
    def main(grid: Grid, context: Context) -> None:
        for server_round in (1, 2, 3):
            grid.send_and_receive(messages_for(grid, server_round=server_round), timeout=4.0)
        time.sleep(60.0)

    for backlog, expected in ((False, [3]), (True, [1, 2, 3])):
        calls: list[tuple[int, int]] = []
        result = run(main, steady(1, median=5.0), echo_app(calls), backlog=backlog)
        assert [server_round for _, server_round in calls] == expected
        finished = [event.instant for event in result.trace if event.kind == "replied"]
        assert finished == ([13.0] if not backlog else [5.0, 10.0, 15.0])


def test_time_to_live_ends_in_an_error_reply() -> None:
    errors = []

    def main(grid: Grid, context: Context) -> None:
        errors.extend(reply.error.code for reply in grid.send_and_receive(messages_for(grid, ttl=3.0)))

    calls: list[tuple[int, int]] = []
    result = run(main, steady(1, median=5.0), echo_app(calls))
    assert (errors, calls, result.seconds) == ([4], [], 3.0)


def test_lost_nodes_are_reported_and_leave() -> None:
    seen: dict[str, Any] = {}

    def main(grid: Grid, context: Context) -> None:
        replies = list(grid.send_and_receive(messages_for(grid)))
        seen["codes"] = [reply.error.code if reply.has_error() else None for reply in replies]
        seen["left"] = len(list(grid.get_node_ids()))

    result = run(main, steady(2, leave_after=[0.0, 9.0], loss_detection=40.0))
    assert seen == {"codes": [None, 5], "left": 1}
    assert result.seconds == 40.0


def test_client_failures_become_error_replies() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("disk full")
        return "not a message"  # type: ignore[return-value]

    reasons: list[str] = []

    def main(grid: Grid, context: Context) -> None:
        reasons.extend(str(reply.error.reason) for reply in grid.send_and_receive(messages_for(grid)))

    run(main, steady(2), app)
    assert reasons[0] == "RuntimeError: disk full"
    assert reasons[1].startswith("TypeError: a ClientApp must return a Message")


@pytest.mark.parametrize(
    "make", [FedAvg, lambda: FedAvg(fraction_train=0.5), FedAdam, lambda: FedProx(proximal_mu=0.1)]
)
def test_same_seed_same_trace_and_arrays(make: Callable[[], Strategy]) -> None:
    """Bit for bit, although sampling and clients draw from global generators."""

    def once(seed: int) -> tuple[Any, ...]:
        final = []

        def main(grid: Grid, context: Context) -> None:
            result = make().start(grid, ArrayRecord([np.zeros(3)]), num_rounds=4, timeout=20.0)
            final.append(result.arrays.to_numpy_ndarrays()[0].tobytes())

        fleet = build_fleet({"preset": "phones", "clients": 8}, seed=seed)
        outcome = run(main, fleet)
        return outcome.trace, outcome.seconds, final

    random.seed(1)
    state = random.getstate()
    first = once(7)
    assert random.getstate() == state  # the caller's generators are left as they were
    random.seed(2)
    assert once(7) == first
    assert once(8) != first


def test_clients_keep_their_state_and_partition() -> None:
    counts = []

    def main(grid: Grid, context: Context) -> None:
        assert context.run_config == {"lr": 0.1}
        for server_round in (1, 2, 3):
            replies = grid.send_and_receive(messages_for(grid, server_round=server_round))
            counts.append([reply.content["metrics"]["calls"] for reply in replies])

    run(main, steady(2), run_config={"lr": 0.1})
    assert counts == [[1, 1], [2, 2], [3, 3]]


def test_waiting_for_nothing_is_an_error_not_a_hang() -> None:
    def main(grid: Grid, context: Context) -> None:
        FedAvg(min_available_nodes=5).start(grid, ArrayRecord([np.zeros(1)]), num_rounds=1)

    with pytest.raises(TimeoutError, match="it would wait for ever"):
        run(main, steady(2))


def test_clock_orders_events_by_instant_priority_and_time_of_scheduling() -> None:
    clock, order = VirtualClock(), []
    for label, instant, priority in (("d", 2.0, 1), ("b", 1.0, 5), ("a", 1.0, 2), ("e", 2.0, 1), ("c", 2.0, 0)):
        clock.schedule(instant, lambda label=label: order.append(label), priority=priority)  # type: ignore[misc]
    clock.sleep(3.0)
    assert order == ["a", "b", "c", "d", "e"]
    assert clock.now() == 3.0


def test_a_loop_that_pulls_without_sleeping_ends() -> None:
    seen: list[float] = []

    def main(grid: Grid, context: Context) -> None:
        ids, replies = list(grid.push_messages(messages_for(grid))), []
        while len(replies) < 2:
            replies += list(grid.pull_messages(ids))
        seen.append(grid.clock.now())  # type: ignore[attr-defined]

    run(main, steady(2, median=[1.0, 7.0]))
    assert seen == [7.0]


def test_sleep_imported_by_name_is_virtual() -> None:
    module = types.ModuleType("an_app")
    exec(
        "from time import sleep, time\ndef nap(): end = time() + 1000.0; sleep(999.5); assert time() < end; sleep(0.5)",
        module.__dict__,
    )
    sys.modules["an_app"] = module
    try:
        start = time.perf_counter()
        assert run(lambda grid, context: module.nap(), steady(1)).seconds == 1000.0
        assert time.perf_counter() - start < 5.0
        assert module.__dict__["sleep"] is time.sleep
    finally:
        del sys.modules["an_app"]


def test_a_sleeping_client_delays_only_itself() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before = time.monotonic()
        if context.node_config["partition-id"] in (1, 3):
            time.sleep(5.0)
            assert time.monotonic() == before + 5.0
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    seen: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        assert isinstance(grid, VirtualGrid)
        for timeout in (3.0, None):
            replies = grid.send_and_receive(messages_for(grid, ttl=8.5), timeout=timeout)
            came = [reply.metadata.src_node_id - 100 for reply in replies if not reply.has_error()]
            seen.append((came, grid.clock.now()))

    run(main, steady(4, median=[1.0, 2.0, 3.0, 4.0]), app)
    # Client 3 would be back 9 seconds after the sending, when its message has expired.
    assert seen == [([0, 2], 3.0), ([0, 2, 1], 11.5)]


def test_polling_messages_one_by_one_keeps_the_limit() -> None:
    seen: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        pending, came = set(grid.push_messages(messages_for(grid))), 0
        end = time.time() + 2.5
        while time.time() < end:
            for key in sorted(pending):
                if list(grid.pull_messages([key])):
                    pending.discard(key)
                    came += 1
            time.sleep(0.1)
        seen.append(came)

    result = run(main, steady(6, median=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert seen == [2]
    assert result.seconds == pytest.approx(2.5, abs=0.11)


def test_event_loops_keep_running() -> None:
    """asyncio lives by time.monotonic: on a clock that stands still it would wait for ever."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        asyncio.run(asyncio.sleep(0.01))
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    replies: list[Message] = []
    result = run(lambda grid, context: replies.extend(grid.send_and_receive(messages_for(grid))), steady(1), app)
    assert result.seconds == 1.0
    assert not replies[0].has_error()


def test_modules_imported_during_a_run_work_after_it() -> None:
    kept: list[Callable[[float], None]] = []
    run(lambda grid, context: kept.append(time.sleep), steady(1))
    start = time.perf_counter()
    kept[0](0.05)
    assert time.perf_counter() - start >= 0.05
