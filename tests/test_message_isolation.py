"""Messages in one process: what one side does to what it has, or keeps of it, never reaches the other."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.fleets import Fleet, build_fleet
from fedgc.global_random import seeded_globals
from fedgc.records.array_bytes import record_array, view
from fedgc.records.copies import own_copy
from fedgc.simulation import VirtualGrid, VirtualRun, run_virtual


def steady(clients: int) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": clients, "sigma": 0.0}, seed=1)


def run(main: Callable[[Grid, Context], None], app: ClientApp, clients: int = 2) -> VirtualRun:
    server = ServerApp()
    server.main()(main)
    return run_virtual(server, app, steady(clients))


def content() -> RecordDict:
    config = ConfigRecord({"server-round": 1, "ids": [1, 2], "name": "a"})
    return RecordDict(
        {"arrays": ArrayRecord([np.ones(3)]), "config": config, "metrics": MetricRecord({"m": [0.5], "n": 2})}
    )


def spoil(records: RecordDict) -> None:
    """Change everything that can be changed of a message's records, in place."""
    for record in list(records.values()):
        for name, value in list(record.items()):
            if isinstance(value, list):
                value.append(value[0])
            elif isinstance(value, Array):
                value.data = record_array(np.full(3, 9.0)).data
            else:
                record[name] = 7  # type: ignore[assignment]
        first = next(iter(record))
        del record[first]
    records["more"] = ConfigRecord({"x": 1})
    del records["config"]


def test_clients_do_not_change_what_the_server_or_another_client_has() -> None:
    """All messages share their records, as those of Flower's strategies do."""
    app, got = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        got.append(message.content == content())
        spoil(message.content)
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    sent = content()

    def main(grid: Grid, context: Context) -> None:
        for _ in range(2):
            replies = grid.send_and_receive([Message(sent, node, "train") for node in grid.get_node_ids()])
            assert not any(reply.has_error() for reply in replies)

    run(main, app)
    assert got == [True] * 4
    assert sent == content()


def test_the_server_does_not_change_what_a_client_has_yet_to_read() -> None:
    app, got = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        got.append(message.content == content())
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    def main(grid: Grid, context: Context) -> None:
        assert isinstance(grid, VirtualGrid)
        sent = content()
        ids = grid.push_messages([Message(sent, node, "train") for node in grid.get_node_ids()])
        spoil(sent)
        grid.clock.sleep(5.0)
        assert len(list(grid.pull_messages(ids))) == 2

    run(main, app)
    assert got == [True, True]


@pytest.mark.parametrize("kept_by", ["state", "echo"])
def test_what_a_client_keeps_of_its_reply_is_its_own(kept_by: str) -> None:
    """It may keep the record that it sends in its context, or send the one that it got."""
    app, seen = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if "arrays" in context.state:
            seen.append(context.state == content())
        context.state = message.content if kept_by == "echo" else content()
        return Message(context.state, reply_to=message)

    def main(grid: Grid, context: Context) -> None:
        for _ in range(2):
            for reply in grid.send_and_receive([Message(content(), node, "train") for node in grid.get_node_ids()]):
                assert reply.content == content()
                spoil(reply.content)

    run(main, app)
    assert seen == [True, True]


@pytest.mark.parametrize("coded", [False, True])
def test_a_trainer_that_changes_what_it_gets_changes_no_other_shard(coded: bool) -> None:
    """The same model comes out whether or not train functions write into arrays and config."""

    def once(writes: bool) -> bytes:
        app = ClientApp()

        @app.train()
        @gradient_coded(num_shards=4)
        def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
            value = arrays["0"].numpy()
            assert config["server-round"] in (1, 2)
            if writes:
                arrays["0"].data = record_array(np.full(3, 9.0)).data
                arrays["0"] = Array(np.full(3, 8.0))
                config["server-round"] = 50
            return ShardUpdate(num_examples=1 + shard_id, arrays={"0": 0.5 * value + shard_id})

        final: list[ArrayRecord] = []

        def main(grid: Grid, context: Context) -> None:
            inner = FedAvg(fraction_evaluate=0.0)
            strategy = GradientCoding(inner, num_shards=4, deadline=9.0, load=2) if coded else inner
            final.append(strategy.start(grid, ArrayRecord([np.ones(3)]), num_rounds=2).arrays)

        run(main, app)
        return final[0]["0"].data

    assert once(True) == once(False)


@pytest.mark.parametrize("kind", ["arrays", "config", "metrics"])
def test_a_copy_of_a_record_is_checked_like_any_other(kind: str) -> None:
    copy: Any = own_copy(content()[kind])
    assert copy == content()[kind] and type(copy) is type(content()[kind])
    with pytest.raises(TypeError):
        copy["x"] = object()
    with pytest.raises(TypeError):
        copy[1] = next(iter(copy.values()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool", ">f4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 4)])
def test_arrays_have_the_bytes_that_flower_writes(dtype: str, shape: tuple[int, ...]) -> None:
    value = np.asarray(np.arange(int(np.prod(shape))).reshape(shape)).astype(dtype)
    made, own = record_array(value), Array(value)
    assert made == own and made.data == own.data and type(made.shape) is tuple
    assert made.object_id == own.object_id
    np.testing.assert_array_equal(view(own), own.numpy(), strict=True)
    np.testing.assert_array_equal(record_array(np.asarray(value, order="F")).numpy(), value, strict=True)


def test_global_generators_are_put_back_to_the_last_draw() -> None:
    """Also a normal draw that numpy has put by, with a state that has been seen before, and one within another."""

    def draws() -> tuple[float, ...]:
        return random.random(), *np.random.normal(size=3), float(np.random.rand())

    np.random.seed(3)
    for before in (0, 1, 1, 2, 0):
        np.random.normal(size=before)
        random_state, numpy_state = random.getstate(), np.random.get_state()
        expected = draws()
        random.setstate(random_state)
        np.random.set_state(numpy_state)
        with seeded_globals(1, 2):
            first = draws()
            with seeded_globals(3):
                draws()
            second = draws()
        with seeded_globals(1, 2):
            assert (draws(), draws()) == (first, second)
        random.setstate(random_state)
        assert np.random.get_state()[3] == numpy_state[3]  # type: ignore[index]
        assert draws() == expected
