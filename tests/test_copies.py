"""Copies of a coded update: who differs from most of those who hold the same shards, and what cannot be told."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.app import Array, Message
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.codes import FractionalRepetition
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from fedgc.round import Copies
from fedgc.updates import ScaledDifference
from tests.apps import EXAMPLES, N_SHARDS, shard_app, steady, train

LIKE = {"w": np.zeros((300, 50)), "b": np.zeros(10)}


def decoder(n_clients: int = 5) -> CalibratedDecoder:
    code = FractionalRepetition([0] * n_clients, [0])
    return OptimalUnbiasedDecoder().calibrate(code, [0.3] * n_clients, GramModel.uniform(1, 0.0))


def update(kind: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(kind)
    return {name: rng.standard_normal(value.shape) for name, value in LIKE.items()}


@given(kinds=st.lists(st.integers(0, 2), min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_only_a_majority_judges(kinds: list[int], order: Any) -> None:
    """Clients that send the same kind agree; the outcome does not depend on who comes first."""
    clients = list(range(len(kinds)))
    order.shuffle(clients)
    copies = Copies(decoder(), LIKE, secret=3)
    for client in clients:
        copies.note(client, client, update(kinds[client]))
    verdict = copies.verdict()
    most = max(set(kinds), key=kinds.count)
    if kinds.count(most) >= 2 and kinds.count(most) > len(kinds) / 2:
        assert verdict.confirmed == {client for client in clients if kinds[client] == most}
        assert verdict.dissenting == set(clients) - verdict.confirmed
    else:  # two that differ, or a tie: nobody knows
        assert not verdict.confirmed and not verdict.dissenting
    first = kinds[clients[0]]
    assert {other for _, other, _ in copies.disagreements} == {c for c in clients if kinds[c] != first}
    assert all(one == clients[0] for one, _, _ in copies.disagreements)
    assert not copies.verdict().dissenting and not copies.verdict().confirmed


def test_what_comes_later_is_judged_then() -> None:
    copies = Copies(decoder(), LIKE, secret=3)
    copies.note(0, 0, update(7))
    copies.note(1, 1, update(1))
    assert not copies.verdict().dissenting
    saved = json.loads(json.dumps(copies.to_data(), default=lambda value: value.tolist()))
    restored = Copies.from_data(saved, decoder(), LIKE)
    for one in (copies, restored):
        one.note(2, 2, update(1))
        verdict = one.verdict()
        assert (verdict.dissenting, verdict.confirmed) == ({0}, {1, 2})
        one.note(3, 3, update(1))
        verdict = one.verdict()
        assert (verdict.dissenting, verdict.confirmed) == (set(), {3})
        assert one.disagreements == copies.disagreements


@pytest.mark.parametrize(("off", "logged", "judged"), [(1e-5, False, False), (0.02, True, False), (0.3, True, True)])
def test_small_differences_are_logged_or_nothing(off: float, logged: bool, judged: bool) -> None:
    """Other processors sum in another order; nobody is set aside for it."""
    copies = Copies(decoder(), LIKE, secret=3)
    for client in range(4):
        factor = 1.0 + off if client == 2 else 1.0
        copies.note(client, client, {name: value * factor for name, value in update(1).items()})
    assert [(one, other) for one, other, _ in copies.disagreements] == ([(0, 2)] if logged else [])
    assert copies.verdict().dissenting == ({2} if judged else set())


def test_the_difference_that_came_is_compared_without_being_made() -> None:
    old = update(9)
    copies = Copies(decoder(), LIKE, secret=3)
    for client in range(3):
        new = {name: value + (2.0 if client == 1 else 1.0) for name, value in old.items()}
        copies.note(client, client, ScaledDifference(new, old, 10.0))
    assert copies.verdict().dissenting == {1}
    assert copies.disagreements[0][2] == pytest.approx(1.0)


def test_a_forged_bias_is_always_seen_and_a_forged_entry_of_a_matrix_sometimes() -> None:
    """The entries that are compared are others for every secret: who forges few of many is seen sooner or later."""

    def seen(change: Any, secret: int) -> bool:
        copies = Copies(decoder(), LIKE, secret)
        for client in range(3):
            sent = update(1)
            if client == 2:
                change(sent)
            copies.note(client, client, sent)
        return copies.verdict().dissenting == {2}

    def bias(sent: dict[str, NDArray[Any]]) -> None:
        sent["b"] = np.full(10, 30.0)

    def few(sent: dict[str, NDArray[Any]]) -> None:
        sent["w"].flat[:10] = 3000.0

    assert all(seen(bias, secret) for secret in range(50))
    # As the class says, with the 1024 of 15000 entries that are compared: about every other time.
    hits, expected = sum(seen(few, secret) for secret in range(400)), 1.0 - (1.0 - 10 / 15000) ** 1024
    assert hits / 400 == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 400))


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return GradientCoding(inner, **{"num_shards": N_SHARDS, "deadline": 50.0, "shard_examples": EXAMPLES, **options})


def turned_round(client: int) -> Any:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == client:
            for record in reply.content.array_records.values():
                record["weight"] = Array(5.0 - record["weight"].numpy())
        return None

    return spoil


@pytest.mark.parametrize("early_end", [False, True])
@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_who_keeps_forging_is_set_aside_by_the_other_two(
    schedule: str, early_end: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Client 1 is the quickest, so that a round which ends early has decoded its copy, and hears the others late."""
    strategy = coding(load=3, schedule=schedule, early_end=early_end)
    fleet = steady(median=[1.0, 0.5, 1.0, 1.1, 1.2, 1.3])
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(strategy, fleet, rounds=8, app=shard_app(turned_round(1)), backlog=True)
    named = [report.dissenting for report in strategy.history]
    assert {node for nodes in named for node in nodes} == {101}
    asked = [101 in report.node_ids for report in strategy.history]
    assert asked[:2] == [True, True] and asked.count(False) >= 3, asked
    assert "node 101 has sent another sum than most of those who hold the same shards" in caplog.text
    assert "node 101 is not asked: its last sums were not those of others with its shards" in caplog.text


def test_of_two_that_differ_none_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=2, early_end=False)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(strategy, steady(), rounds=6, app=shard_app(turned_round(1)))
    assert all(report.dissenting == () and report.n_clients == 6 for report in strategy.history)
    assert all(len(report.disagreements) == 1 for report in strategy.history)
    (one, other, _) = strategy.history[0].disagreements[0]
    assert 101 in (one, other) and f"nodes {one} and {other} should have sent the same sum" in caplog.text


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_pair_that_differs_in_all_its_sums_counts_once(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=2, schedule=schedule, early_end=False)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, steady(2), rounds=3, app=shard_app(turned_round(1)))
    assert [len(report.disagreements) for report in strategy.history] == [1] * 3
    assert all(metrics["fedgc-disagreements"] == 1 for metrics in result.train_metrics_clientapp.values())
    assert caplog.text.count("nodes 100 and 101 should have sent the same sum") == 3


def test_honest_holders_that_all_differ_are_not_judged() -> None:
    """A train function that draws from another seed than the shard's: nobody agrees with anybody."""

    def noise(reply: Message, partition: int) -> Message | None:
        rng = np.random.default_rng([partition, int(reply.metadata.group_id)])
        for record in reply.content.array_records.values():
            record["weight"] = Array(record["weight"].numpy() + rng.standard_normal((2, 2)))
        return None

    strategy = coding(load=3, early_end=False)
    train(strategy, steady(), rounds=5, app=shard_app(noise))
    assert all(report.disagreements and not report.dissenting for report in strategy.history)
    assert all(report.n_clients == 6 for report in strategy.history)
