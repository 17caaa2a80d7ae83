"""Rivals as Flower strategies, each against a plain numpy account of what its paper says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fedgc.strategies.rivals import (
    RIVALS,
    FedBuff,
    OverSelection,
    PartialFedProx,
    RivalOptions,
    build_rival,
)
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedgc.assignment import own_part
from fedgc.errors import TooFewNodesError
from fedgc.experiment.config.sections import RivalConfig
from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import VirtualRun, run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, full_aggregate, initial_arrays, shard_app, shard_delta, steady

INNER: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
SIZES = np.array(EXAMPLES, dtype=float)
#: Rivals whose aggregate is that of all shards when everyone comes; the others count copies.
COMPLETE = sorted(set(RIVALS) - {"bgc", "bgc-authors", "erasure-head-authors", "sgc-authors", "fedbuff"})


def rival(name: str, deadline: float | None = 4.0, **own: Any) -> tuple[Strategy, float]:
    return build_rival(name, RivalOptions(N_SHARDS, deadline=deadline, shard_examples=EXAMPLES, inner=INNER, own=own))


def run(
    strategy: Strategy, timeout: float, fleet: Fleet, rounds: int
) -> tuple[Result, VirtualRun, list[dict[str, NDArray[Any]]]]:
    """Train, and return the models after each round too."""
    results, models, server = [], [], ServerApp()

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        def keep(server_round: int, arrays: ArrayRecord) -> None:
            models.append(arrays_of(arrays))

        results.append(strategy.start(grid, initial_arrays(), num_rounds=rounds, timeout=timeout, evaluate_fn=keep))

    virtual = run_virtual(server, shard_app(), fleet, num_shards=N_SHARDS)
    return results[0], virtual, models


def client_update(client: int, n_clients: int, model: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Sum of examples x update over a client's own part."""
    total = {name: np.zeros(value.shape) for name, value in model.items()}
    for shard in own_part(client, n_clients, N_SHARDS):
        for name, value in shard_delta(shard, model).items():
            total[name] += SIZES[shard] * value
    return total


def came(virtual: VirtualRun, server_round: int) -> list[int]:
    return [event.client for event in virtual.trace if event.kind == "replied" and event.server_round == server_round]


def assert_equal(model: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(model[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", COMPLETE)
def test_where_everyone_comes_every_shard_counts_once(name: str) -> None:
    # The first round of those that learn probabilities is by a prior; who waits for some only must be told to wait.
    strategy, timeout = rival(name, **({"over_selection": 1.0} if name == "over-selection" else {}))
    rounds = 40 if "prob" in name or name.startswith(("scheme", "sgc", "fedvarp-unb")) else 1
    _, _, models = run(strategy, timeout, steady(6, median=0.1), rounds)
    before = models[-2]
    expected = full_aggregate(ArrayRecord({name: _array(value) for name, value in before.items()}))
    # After 39 rounds in which all came, those that learn believe in no more than two misses in 41.
    tolerance = 1e-5 if rounds == 1 else 2.0 / 41.0
    for key, value in expected.items():
        gap = np.abs(models[-1][key] - before[key] - value).max()
        assert gap <= tolerance * max(np.abs(value).max(), 1.0), (key, gap)


def _array(value: NDArray[Any]) -> Any:
    return next(iter(ArrayRecord([value]).values()))


def test_mifa_averages_everyones_last_update() -> None:
    fleet = build_fleet({"preset": "uneven", "clients": 3}, seed=2)
    strategy, timeout = rival("mifa", 4.0)
    _, virtual, models = run(strategy, timeout, fleet, 8)
    memory = {client: {name: np.zeros(v.shape) for name, v in models[0].items()} for client in range(3)}
    missing = 0
    for server_round in range(1, 9):
        before = models[server_round - 1]
        here = came(virtual, server_round)
        missing += 3 - len(here)
        for client in here:
            memory[client] = client_update(client, 3, before)
        step = {name: sum(memory[c][name] for c in range(3)) / SIZES.sum() for name in before}
        expected = {name: before[name] + (step[name] if here else 0.0) for name in before}
        assert_equal(models[server_round], expected)
    assert missing > 2


def test_fedvarp_corrects_the_mean_of_those_who_came_by_what_is_remembered() -> None:
    fleet = build_fleet({"preset": "uneven", "clients": 3}, seed=2)
    strategy, timeout = rival("fedvarp", 4.0)
    _, virtual, models = run(strategy, timeout, fleet, 8)
    memory = {client: {name: np.zeros(v.shape) for name, v in models[0].items()} for client in range(3)}
    for server_round in range(1, 9):
        before, here = models[server_round - 1], came(virtual, server_round)
        new = {client: client_update(client, 3, before) for client in here}
        expected = {}
        for name in before:
            mean = sum(memory[c][name] for c in range(3))
            change = sum(3 / len(here) * (new[c][name] - memory[c][name]) for c in here) if here else 0.0
            expected[name] = before[name] + ((mean + change) / SIZES.sum() if here else 0.0)
        memory |= new
        assert_equal(models[server_round], expected)


def test_fedprox_averages_what_each_has_done_by_the_deadline() -> None:
    strategy, timeout = rival("fedprox", 3.0, proximal_mu=0.1)
    assert isinstance(strategy, PartialFedProx) and timeout == 3.0
    _, virtual, models = run(strategy, timeout, steady(3, median=[1.0, 2.0, 9.0]), 2)
    # Client 0 has done both of its shards, client 1 the first of its two, client 2 none: it counts as not come.
    assert virtual.seconds == 6.0
    for before, after in itertools.pairwise(models):
        for name in before:
            update = sum(SIZES[s] * shard_delta(s, before)[name] for s in (0, 1, 2)) / SIZES[[0, 1, 2]].sum()
            np.testing.assert_allclose(after[name], before[name] + update, rtol=1e-5, atol=1e-6)


def test_fedprox_keeps_seconds_for_messages_on_their_way() -> None:
    strategy, timeout = rival("fedprox", 3.0, travel_seconds=1.5)
    _, _, (before, after) = run(strategy, timeout, steady(3, median=[1.0, 2.0, 9.0]), 1)
    # Clients stop after a second and a half: client 0 has done the first of its shards, and nobody else any.
    for name in before:
        np.testing.assert_allclose(after[name], before[name] + shard_delta(0, before)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(kind for kind, rival in RIVALS.items() if rival.own))
def test_what_a_rival_heeds_can_be_configured(kind: str) -> None:
    given = dict.fromkeys(RIVALS[kind].own, 3)
    assert RivalConfig(kind=kind, **given).own == given  # type: ignore[arg-type]


def test_fedprox_waits_where_nobody_has_done_anything() -> None:
    strategy, timeout = rival("fedprox", 0.5)
    _, virtual, models = run(strategy, timeout, steady(3, median=[1.0, 2.0, 9.0]), 3)
    assert virtual.seconds == 1.5
    assert all(np.array_equal(models[0][name], models[-1][name]) for name in models[0])


def test_the_weight_of_the_proximal_term_reaches_the_clients() -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        strategy, _ = rival("fedprox", 30.0, proximal_mu=0.25)
        messages = list(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid))
        assert {message.content["config"]["proximal-mu"] for message in messages} == {0.25}
        assert len(messages) == 3

    run_virtual(server, shard_app(), steady(3), num_shards=N_SHARDS)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "mifa", "over-selection"])
def test_the_servers_step_is_flowers(name: str) -> None:
    """Where all come, a rival with momentum takes the steps of its mean aggregate by the formula of FedAvgM."""
    step = {"server_learning_rate": 0.5, "server_momentum": 0.6}
    own = {"over_selection": 1.0} if name == "over-selection" else {}
    strategy, timeout = rival(name, 1e5, **step, **own)
    _, _, models = run(strategy, timeout, steady(3), 4)
    velocity = {name: np.zeros(value.shape) for name, value in models[0].items()}
    model = models[0]
    for after in models[1:]:
        full = full_aggregate(ArrayRecord({key: _array(value) for key, value in model.items()}))
        velocity = {key: 0.6 * velocity[key] + full[key] for key in full}
        model = {key: model[key] + 0.5 * velocity[key] for key in full}
        for key, value in model.items():
            np.testing.assert_allclose(after[key], value, rtol=1e-4, atol=1e-4)


def test_over_selection_ends_with_the_answers_that_it_needs() -> None:
    strategy = OverSelection(over_selection=1.5, **INNER)
    fleet = steady(6, median=[1.0, 2.0, 3.0, 4.0, 50.0, 60.0])
    _, virtual, models = run(strategy, 1e6, fleet, 3)
    assert [sorted(came(virtual, server_round)) for server_round in (1, 2, 3)] == [[0, 1, 2, 3]] * 3
    assert virtual.seconds == pytest.approx(12.0)
    before = models[0]
    total = [client_update(client, 6, before) for client in range(4)]
    for name in before:
        step = sum(update[name] for update in total) / SIZES[:4].sum()
        np.testing.assert_allclose(models[1][name], before[name] + step, rtol=1e-5, atol=1e-6)


def test_over_selection_asks_some_of_the_nodes() -> None:
    strategy = OverSelection(0.5, over_selection=1.4, **INNER)
    _, virtual, _ = run(strategy, 1e6, steady(6), 2)
    sent = [event for event in virtual.trace if event.kind == "sent" and event.server_round == 1]
    assert len(sent) == 5 and len(came(virtual, 1)) >= 3
    for options, message in (
        ({"over_selection": 0.5}, "over_selection must be at least 1"),
        ({"fraction_train": 0.9}, "fraction_train must be above 0 and at most"),
    ):
        with pytest.raises(ValueError, match=message):
            OverSelection(**options)


def test_fedbuff_steps_with_every_full_buffer() -> None:
    """Two nodes of 1 and 2.6 s, a buffer of two, against its account by hand, event for event."""
    fleet = steady(2, median=[1.0 / 3.0, 2.6 / 3.0])
    strategy = FedBuff(buffer_size=2, server_learning_rate=0.5, **INNER)
    _, virtual, models = run(strategy, 1e5, fleet, 4)
    # Client 0 answers at 1, 2, 3, ... and client 1 at 2.6 and 5.2: the buffer is full at 2, 3, 5 and 6.
    version, at, model = 0, {0: 0, 1: 0}, [models[0]]
    buffer: list[tuple[int, int]] = []
    for client in (0, 0, 1, 0, 0, 0, 1, 0):
        buffer.append((client, at[client]))
        if len(buffer) == 2:
            step = {name: np.zeros(value.shape) for name, value in model[-1].items()}
            for who, since in buffer:
                for name, value in client_update(who, 2, model[since]).items():
                    step[name] += value / np.sqrt(1.0 + version - since)
            total = sum(SIZES[list(own_part(who, 2, N_SHARDS))].sum() for who, _ in buffer)
            model.append({name: model[-1][name] + 0.5 * step[name] / total for name in step})
            version, buffer = version + 1, []
        at[client] = version
    assert [event.client for event in virtual.trace if event.kind == "replied"] == [0, 0, 1, 0, 0, 0, 1, 0]
    assert virtual.seconds == pytest.approx(6.0)
    for have, want in zip(models, model, strict=True):
        assert_equal(have, want)


def test_fedbuff_sends_a_node_that_does_not_answer_the_model_anew() -> None:
    # Client 1 needs 9 s for its three shards and is asked again after 4: nothing ever comes of it.
    fleet = steady(2, median=[1.0 / 3.0, 3.0])
    for limit, came_from in ((4.0, {0}), (None, {0, 1})):
        _, virtual, _ = run(FedBuff(buffer_size=2, client_timeout=limit, **INNER), 1e5, fleet, 6)
        assert {event.client for event in virtual.trace if event.kind == "replied"} == came_from
        sent = [event.instant for event in virtual.trace if event.kind == "sent" and event.client == 1]
        assert sent == ([0.0, 4.0, 8.0] if limit else [0.0, 9.0]), sent


def test_fedbuff_counts_what_comes_late_where_nodes_finish_their_work() -> None:
    """With a backlog client 1 works on through what it was sent, and answers every nine seconds."""
    fleet, server, results = steady(2, median=[1.0 / 3.0, 3.0]), ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        strategy = FedBuff(buffer_size=2, client_timeout=4.0, **INNER)
        results.append(strategy.start(grid, initial_arrays(), num_rounds=12, timeout=1e5))

    virtual = run_virtual(server, shard_app(), fleet, num_shards=N_SHARDS, backlog=True)
    # Of 24 updates in the time those of client 1 at 9 and 18 s are two.
    assert virtual.seconds == pytest.approx(22.0)


def test_fedbuff_gives_up_where_everyone_is_too_slow_for_its_timeout() -> None:
    with pytest.raises(TooFewNodesError, match="no update has come for 100 s"):
        run(FedBuff(buffer_size=2, client_timeout=1.0, **INNER), 1e6, steady(2, median=1.0), 6)


def test_fedbuff_with_momentum_keeps_what_it_says_of_the_steps_before() -> None:
    """One node at a time, so that no update is old: plain steps with momentum."""
    _, _, models = run(FedBuff(buffer_size=1, server_momentum=0.5, **INNER), 1e5, steady(1), 3)
    velocity = {name: np.zeros(value.shape) for name, value in models[0].items()}
    for before, after in itertools.pairwise(models):
        update = client_update(0, 1, before)
        velocity = {name: 0.5 * velocity[name] + update[name] / SIZES.sum() for name in before}
        assert_equal(after, {name: before[name] + velocity[name] for name in before})


def test_all_rivals_meet_the_same_draws() -> None:
    """What client and round draw does not depend on the strategy: equal loads are answered at equal times."""
    fleet = build_fleet({"preset": "uneven", "clients": 6}, seed=2)
    times: dict[tuple[int, int], set[float]] = {}
    for name in ("fedavg", "mifa", "inverse-probability", "is-sgd"):
        strategy, timeout = rival(name, None if name == "fedavg" else 1e5)
        _, virtual, _ = run(strategy, timeout, fleet, 3)
        began: dict[tuple[int, int], float] = {}
        for event in virtual.trace:
            key = (event.client, event.server_round)
            if event.kind == "sent":
                began[key] = event.instant
            elif event.kind == "replied":
                times.setdefault(key, set()).add(round(event.instant - began[key], 9))
    assert len(times) > 10 and all(len(seen) == 1 for seen in times.values())


@pytest.mark.parametrize(
    ("name", "deadline", "own", "message"),
    [
        ("mife", 1.0, {}, "rival must be one of"),
        ("mifa", None, {}, "deadline must be given for rival 'mifa'"),
        ("mifa", 1.0, {"buffer_size": 3}, "options of rival 'mifa' must be among"),
        ("fedbuff", None, {"buffer_size": 0}, "buffer_size must"),
        ("fedbuff", None, {"server_momentum": 1.0}, "server_momentum must be at least 0 and below 1; got 1.0"),
        ("fedbuff", -1.0, {}, "client_timeout must"),
        ("fedprox", 1.0, {"travel_seconds": -1.0}, "travel_seconds must be finite and at least 0; got -1.0"),
        ("fedavg", None, {"server_momentum": 1.5}, "server_momentum must be at least 0 and below 1; got 1.5"),
        ("mifa", 1.0, {"server_learning_rate": -1.0}, "server_learning_rate must"),
        ("fedprox", 1.0, {"proximal_mu": -1.0}, "proximal_mu must be finite and at least 0; got -1.0"),
        ("fedavg-deadline", -1.0, {}, "deadline must"),
    ],
)
def test_refusals(name: str, deadline: float | None, own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rival(name, deadline, **own)


def test_fedbuff_leaves_out_what_it_cannot_use_and_goes_on() -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 0 and not reply.has_error():
            reply.content["arrays"] = ArrayRecord([np.full(3, np.nan)])
            return reply
        return None

    server, results = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        results.append(FedBuff(buffer_size=2, **INNER).start(grid, initial_arrays(), num_rounds=3, timeout=100.0))

    run_virtual(server, shard_app(spoil), steady(3), num_shards=N_SHARDS)
    assert len(results[0].train_metrics_clientapp) == 3
    assert all(np.isfinite(value).all() for value in arrays_of(results[0].arrays).values())
