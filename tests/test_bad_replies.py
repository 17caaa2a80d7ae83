"""Replies that cannot be used cost their own contribution and nothing else."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, shard_app, steady, train


def coding(strategy: Strategy | None = None, **options: Any) -> GradientCoding:
    inner = strategy if strategy is not None else FedAvg(fraction_evaluate=0.0)
    return GradientCoding(inner, **{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, **options})


def certain() -> Any:
    """A posterior that is (nearly) sure of every client, so that a complete round decodes to the exact aggregate."""
    return ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)


#: The largest number of half precision is 65504.
LARGE = {"w": np.array([60000.0], dtype=np.float16)}


def spoil_with(change: Callable[[Message], Message | None]) -> Callable[[Message, int], Message | None]:
    return lambda reply, partition: change(reply) if partition == 1 else None


def set_array(name: str, value: Any) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content["arrays"][name] = Array(np.asarray(value))

    return change


def set_record(key: str, value: Any) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content["fedgc"][key] = value

    return change


def set_metric(key: str, value: float) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content["metrics"][key] = value

    return change


def drop(name: str) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        del reply.content[name]

    return change


def raising(reply: Message) -> None:
    raise RuntimeError("battery empty")


def leaving(reply: Message) -> None:
    sys.exit(1)


def renamed(reply: Message) -> None:
    reply.content["arrays"]["other"] = reply.content["arrays"].pop("bias")


def broken_bytes(reply: Message) -> None:
    reply.content["arrays"]["bias"] = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=b"nonsense")


def pickled(reply: Message) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    reply.content["arrays"]["bias"] = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())


BAD = {
    "raises": (raising, r"error 2: RuntimeError: battery empty"),
    "NaN": (set_array("bias", np.array([np.nan], dtype=np.float32)), r"'bias' must be finite"),
    "infinity": (set_array("weight", np.full((2, 2), np.inf)), r"'weight' must be finite"),
    "wrong shape": (set_array("weight", np.zeros(3)), r"'weight' must have shape \(2, 2\); got \(3,\)"),
    "wrong dtype": (set_array("bias", np.array(["x"])), r"'bias' must hold real numbers; got <U1"),
    "wrong names": (renamed, r"array names must be \['bias', 'weight'\]; got \['other', 'weight'\]"),
    "broken bytes": (broken_bytes, r"'bias' cannot be read"),
    "pickle": (pickled, r"'bias' cannot be read"),
    "someone else's shard": (set_record("shard-ids", [0, 5]), r"shard-ids must be \[2, 3\]; got \[0, 5\]"),
    "no shard ids": (set_record("shard-ids", "all"), r"shard-ids must be"),
    "negative examples": (set_record("shard-examples", [-1, 2]), r"shard-examples must be 2 integers of at least 0"),
    "other sizes": (set_record("shard-examples", [7, 7]), r"shard-examples must be \[4.0, 1.0\] as the server knows"),
    "other weight": (set_metric("num-examples", 99), r"num-examples must be 5; got 99"),
    "too large": (set_array("bias", np.array([1e300])), r"'bias' must be finite in float32"),
    "too large to weigh": (
        set_array("weight", np.full((2, 2), 1.7e308)),
        r"array 'weight' must have entries of at most 1e\+12 times",
    ),
    "true for a count": (set_record("shard-examples", [True, True]), r"shard-examples must be 2 integers"),
    "leaves": (leaving, r"error 2: SystemExit: 1"),
    "endless number": (set_metric("loss", 10**400), r"metric 'loss' must be finite; got 1000"),
    "endless count": (set_record("shard-examples", [10**400, 1]), r"shard-examples must be 2 integers"),
    "NaN metric": (set_metric("loss", float("nan")), r"metric 'loss' must be finite; got nan"),
    "no metrics": (drop("metrics"), r"a reply must hold one ArrayRecord, one MetricRecord and the ConfigRecord"),
    "not decorated": (drop("fedgc"), r"is the train function decorated with gradient_coded, or coded_in_a_row\?"),
}


@pytest.mark.parametrize(("change", "reason"), BAD.values(), ids=BAD)
def test_a_bad_client_is_left_out_and_the_round_goes_on(
    change: Callable[[Message], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bad, good = coding(early_end=False), coding(early_end=False)
    result, _ = train(bad, steady(), rounds=2, app=shard_app(spoil_with(change)))
    # The same as if the client had not answered at all; equal deadlines keep the clients' clocks out of it.
    expected, _ = train(good, steady(dropout=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), rounds=2)
    for name, value in arrays_of(expected.arrays).items():
        np.testing.assert_array_equal(arrays_of(result.arrays)[name], value)
    assert [report.n_arrived for report in bad.history] == [5, 5]
    assert set(bad.history[0].rejected) == {101}
    assert pytest.approx(good.history[-1].straggle_prob) == bad.history[-1].straggle_prob
    assert re.search(reason, bad.history[0].rejected[101]), bad.history[0].rejected[101]
    assert "round 1: node 101 is left out" in caplog.text


def test_everyone_bad_is_an_empty_round() -> None:
    strategy = coding()
    result, _ = train(strategy, steady(), rounds=2, app=shard_app(lambda reply, partition: raising(reply)))
    assert [report.n_arrived for report in strategy.history] == [0, 0]
    assert not result.arrays


def test_answers_twice_count_once() -> None:
    strategy = coding()
    strategy_replies: list[list[Message]] = []
    inner = strategy.aggregate_train

    def twice(server_round: int, replies: Any) -> Any:
        batch = list(replies)
        strategy_replies.append(batch)
        return inner(server_round, [*batch, copy(batch[0])])

    strategy.aggregate_train = twice  # type: ignore[method-assign]
    result, _ = train(strategy, steady())
    expected, _ = train(coding(), steady())
    np.testing.assert_array_equal(arrays_of(result.arrays)["weight"], arrays_of(expected.arrays)["weight"])
    assert "not a first reply" in next(iter(strategy.history[0].rejected.values()))


def test_an_aggregate_that_overflows_leaves_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """Updates that are all in range may be decoded, with weights above one, to a model that is not."""
    app, server, strategy = ClientApp(), ServerApp(), coding(load=1)
    results: list[Result] = []
    app.train()(gradient_coded()(lambda shard_id, arrays, config: ShardUpdate(EXAMPLES[shard_id], delta=LARGE)))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        results.append(strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1, dtype=np.float16))}), num_rounds=1))

    run_virtual(server, app, steady())
    assert not results[0].arrays
    assert strategy.history[0].rejected == {}
    assert "round 1: the aggregate is not finite, the model stays as it is" in caplog.text


@pytest.mark.parametrize("value", [3.4e38, 1e31, -2e32])
def test_a_reply_that_is_just_finite_does_not_cost_the_round(value: float) -> None:
    """Weighted, it would take the sum out of the model's range."""
    spoiled = coding(load=1)
    result, _ = train(
        spoiled, steady(), app=shard_app(spoil_with(set_array("bias", np.array([value], dtype=np.float32))))
    )
    expected, _ = train(coding(load=1), steady(dropout=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(arrays_of(result.arrays)["bias"], arrays_of(expected.arrays)["bias"])
    assert "array 'bias' must have entries of at most 1e+12 times" in spoiled.history[0].rejected[101]


def test_a_bad_reply_does_not_end_a_round_before_the_good_copy_comes() -> None:
    """Client 0 answers first and with NaN; its partner in the block takes a fifth longer."""

    def spoil(reply: Message, partition: int) -> Message | None:
        return set_array("bias", np.array([np.nan], dtype=np.float32))(reply) if partition == 0 else None

    fleet = steady(clients=2, median=[1.0, 1.2])
    strategy = coding(load=2, deadline=50.0)
    _, run = train(strategy, fleet, app=shard_app(spoil))
    assert run.seconds == pytest.approx(6 * 1.2)
    assert strategy.history[0].n_arrived == 1
    assert len(strategy.history[0].rejected) == 1


def say(shard_examples: list[int]) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        set_record("shard-examples", shard_examples)(reply)
        set_metric("num-examples", sum(shard_examples))(reply)

    return change


@pytest.mark.parametrize(("lie", "left_out"), [(0, True), (2**50, True), (5000, False)])
def test_a_size_that_others_know_better_is_not_believed(lie: int, left_out: bool) -> None:
    """Client 1 says something else of its shards from the second round on."""

    def spoil(reply: Message, partition: int) -> Message | None:
        later = int(reply.metadata.group_id) > 1
        return say([lie] * len(reply.content["fedgc"]["shard-ids"]))(reply) if partition == 1 and later else None

    spoiled, honest = (coding(load=2, shard_examples=None, early_end=False) for _ in range(2))
    result, _ = train(spoiled, steady(), app=shard_app(spoil), rounds=3)
    expected, _ = train(honest, steady(), rounds=3)
    assert [list(report.rejected) for report in spoiled.history] == [[], *[[101] if left_out else []] * 2]
    if lie == 0:
        assert "must have examples" in spoiled.history[1].rejected[101]
    assert spoiled.state.shard_examples.tolist() == EXAMPLES
    for name, value in arrays_of(expected.arrays).items():
        np.testing.assert_allclose(arrays_of(result.arrays)[name], value, rtol=0.2 if left_out else 1e-6)


def test_what_the_only_holder_says_of_a_shard_can_be_unlearnt() -> None:
    """A size of zero, too: it is what was there to learn from in that round."""
    said = {1: 1, 2: 0, 3: 0, 4: 5000, 5: 1}

    def spoil(reply: Message, partition: int) -> Message | None:
        sizes = [said[int(reply.metadata.group_id)]] * len(reply.content["fedgc"]["shard-ids"])
        return say(sizes)(reply) if partition == 1 else None

    strategy, learnt = coding(load=1, shard_examples=None, early_end=False, reassignment_gain=1.0), []
    inner = strategy.aggregate_train

    def noting(*args: Any) -> Any:
        outcome = inner(*args)
        learnt.append(strategy.state.shard_examples[1])
        return outcome

    strategy.aggregate_train = noting  # type: ignore[method-assign]
    train(strategy, steady(), app=shard_app(spoil), rounds=5)
    assert learnt == [1.0, 0.0, 0.0, 5000.0, 1.0]
    assert [list(report.rejected) for report in strategy.history] == [[], [101], [], [], []]


@pytest.mark.parametrize("value", [1e18, -1e25, 9e28])
def test_absurd_values_are_refused_one_by_one_and_all_at_once(value: float) -> None:
    spoil = spoil_with(set_array("bias", np.array([value], dtype=np.float32)))
    alone = coding(load=1)
    streamed, _ = train(alone, steady(), app=shard_app(spoil))
    assert list(alone.history[0].rejected) == [101]

    class Plain(FedAvg):
        """Drives a strategy with Flower's own loop, which hands over all replies together."""

        def configure_train(self, *args: Any) -> Any:
            return together.configure_train(*args)

        def aggregate_train(self, *args: Any) -> Any:
            return together.aggregate_train(*args)

    together = coding(load=1)
    at_once, _ = train(Plain(fraction_evaluate=0.0), steady(), app=shard_app(spoil))
    assert list(together.history[0].rejected) == [101]
    for name, array in arrays_of(streamed.arrays).items():
        np.testing.assert_allclose(arrays_of(at_once.arrays)[name], array, rtol=1e-6)


def test_a_second_run_gives_everyone_a_new_chance() -> None:
    strategy = coding(load=1)
    spoil = spoil_with(set_array("bias", np.array([np.nan], dtype=np.float32)))
    train(strategy, steady(), app=shard_app(spoil), rounds=12)
    assert strategy.history[-1].n_clients == 5
    train(strategy, steady(), rounds=1)
    assert strategy.history[-1].n_clients == strategy.history[-1].n_arrived == 6


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda reply, partition: say([0] * len(reply.content["fedgc"]["shard-ids"]))(reply),
            "no shard of the 6 replies",
        ),
        (lambda reply, partition: raising(reply), "none of the 6 replies that came can be used"),
    ],
    ids=["no examples", "all bad"],
)
@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_round_without_an_update_says_what_came(
    schedule: str, spoil: Callable[[Message, int], Message | None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = coding(shard_examples=None, load=1, early_end=False, schedule=schedule)
    result, _ = train(strategy, steady(), app=shard_app(spoil), rounds=2)
    assert not result.arrays
    for server_round in (1, 2):
        assert f"round {server_round}: {why}" in caplog.text
    assert "nothing arrived" not in caplog.text


def test_shards_that_are_filled_later_are_learnt_from() -> None:
    """All are empty in the first two rounds."""

    def spoil(reply: Message, partition: int) -> Message | None:
        ids = reply.content["fedgc"]["shard-ids"]
        return say([0] * len(ids))(reply) if int(reply.metadata.group_id) < 3 else None

    strategy = coding(shard_examples=None, early_end=False)
    result, _ = train(strategy, steady(), app=shard_app(spoil), rounds=3)
    assert strategy.state.shard_examples.tolist() == EXAMPLES
    assert result.arrays


@pytest.mark.parametrize("own_loop", [True, False])
def test_initial_arrays_that_are_not_finite_are_refused(own_loop: bool) -> None:
    app, server, strategy = ClientApp(), ServerApp(), coding()
    app.train()(gradient_coded()(lambda shard_id, arrays, config: ShardUpdate(EXAMPLES[shard_id], delta=LARGE)))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = strategy.start if own_loop else partial(Strategy.start, strategy)
        with pytest.raises(ValueError, match=r"initial_arrays must be finite; got NaN or infinity in array 'w'"):
            start(grid, ArrayRecord({"w": Array(np.full(1, np.nan, dtype=np.float16))}), num_rounds=1)

    run_virtual(server, app, steady())
    assert strategy.history == []
