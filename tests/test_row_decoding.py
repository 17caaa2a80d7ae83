"""Shards in a row: what is decoded of them, and what a longer step is worth."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.strategies.messages.client_task import ClientTask
from fedgc.strategies.messages.replies import read_reply
from fedgc.strategies.options import as_decoder
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import WorkLists
from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import (
    AutomaticDeadline,
    DeadlineRule,
    FixedDeadline,
    RoundForecast,
    time_at_fixed_step,
    time_to_target,
)
from fedgc.deadline.ranking import way_in_a_row
from fedgc.fleets import build_fleet
from fedgc.noise import NoiseSensitivity
from fedgc.protocol import RECORD
from fedgc.round import CodedUpdate, Planning, RoundFold, RoundState, finish_round, plan_round
from fedgc.round.saved_state import state_from_tree, state_to_tree
from fedgc.simulation import run_virtual
from fedgc.simulation.grid import FIRST_NODE_ID
from fedgc.updates import ScaledDifference
from tests.apps import steady
from tests.row_cases import row_app


def planning(deadline: DeadlineRule | None = None, **options: Any) -> Planning:
    return Planning(
        load=2,
        decoder=as_decoder("auto", None),
        schedule="work-list",
        deadline=deadline or AutomaticDeadline(initial=6.0),
        in_a_row=True,
        **options,
    )


@pytest.mark.parametrize("sizes", [(2.0, 2.0, 2.0, 2.0), (3.0, 1.0, 5.0, 2.0)])
def test_decoded_rows_are_unbiased_over_places_and_arrivals(sizes: tuple[float, ...]) -> None:
    """All places of the shards of a block and all progress of its clients, each shard moving in a direction of its own.

    To 1e-12 for shards of one size; of others the sum over all shards is.
    """
    n_examples, n_shards, n_clients = np.array(sizes), len(sizes), 2
    fleet = build_fleet({"model": "log-normal", "clients": n_clients, "sigma": 0.8}, seed=3)
    state = RoundState(n_examples)
    plan = plan_round(state, range(n_clients), planning(timing=fleet))
    base = plan.base
    assert plan.in_a_row and base is not None and isinstance(plan.arrivals, ProgressArrivals)
    np.testing.assert_array_equal(base.code.interchangeable, np.zeros(n_shards))  # type: ignore[arg-type]
    way, start = np.diag(n_examples), {"w": np.zeros(n_shards)}
    mean, chance = np.zeros(n_shards), 0.0
    places = list(itertools.permutations(range(n_shards)))
    for one in places:
        decoder = base.with_places(np.array(one))
        code = decoder.code
        assert isinstance(code, WorkLists)
        now = replace(plan, decoder=decoder, code=code)
        lists = [code.shards_of(client) for client in range(n_clients)]
        for progress in itertools.product(*(range(own.size + 1) for own in lists)):
            probability = float(np.prod([p[k] for p, k in zip(plan.arrivals.progress_prob, progress, strict=True)]))
            chance += probability / len(places)
            if probability == 0.0:
                continue
            replies = {}
            for client, done in enumerate(progress):
                shards = lists[client][:done]
                end = {"w": way[shards].sum(axis=0)}
                own = n_examples[shards] / max(n_examples[shards].sum(), 1.0)
                rows = code.rows_after(client, done).tolist()
                parts = {row: ScaledDifference(end, start, part) for row, part in zip(rows, own.tolist(), strict=True)}
                replies[client] = CodedUpdate(parts, shards, n_examples[shards])
            _, outcome = finish_round(state, now, replies, arrays=start, learn=False)
            if outcome.update is not None:
                mean += probability / len(places) * outcome.update["w"]
    assert chance == pytest.approx(1.0, abs=1e-12)
    # Per shard: the strategy multiplies it by how many of them a client does.
    assert mean.sum() == pytest.approx(n_examples.sum() / n_shards, abs=1e-11)
    if len(set(sizes)) == 1:
        np.testing.assert_allclose(mean, n_examples / n_shards, rtol=0, atol=1e-11)


def test_all_holders_of_a_shard_count_and_share_its_weight() -> None:
    """Two clients that have both done everything, each in its own way: neither is a copy of the other."""
    state = RoundState(np.full(4, 2.0))
    fleet = build_fleet({"model": "log-normal", "clients": 2, "sigma": 0.0, "median": 0.01}, seed=3)
    plan = plan_round(state, range(2), planning(FixedDeadline(6.0), timing=fleet))
    code, start = plan.decoder.code, {"w": np.zeros(1)}
    assert isinstance(code, WorkLists) and plan.step == pytest.approx(4.0)
    replies = {}
    for client, moved in enumerate([8.0, 24.0]):
        rows = code.rows_after(client, 4).tolist()
        shares = {row: ScaledDifference({"w": np.array([moved])}, start, 0.25) for row in rows}
        replies[client] = CodedUpdate(shares, code.shards_of(client), np.full(4, 2.0))
    _, outcome = finish_round(state, plan, replies, arrays=start)
    assert outcome.update is not None
    assert float(outcome.update["w"][0]) * plan.step == pytest.approx(16.0)
    assert outcome.model_residual_error == pytest.approx(0.0, abs=1e-20)
    # What running statistics are divided by: with everybody there the step is the mean of the clients.
    assert outcome.total_weight * plan.step == pytest.approx(1.0)


@pytest.mark.parametrize("done", [(1, 0), (1, 1), (4, 1), (4, 4)])
@pytest.mark.parametrize("initial", [0.01, 1.0, 100.0])
def test_before_anything_is_known_the_step_is_the_mean_of_those_who_came(done: tuple[int, int], initial: float) -> None:
    """However far off the guess is that weights are made for; what is learnt is of the steps that were made."""
    state = RoundState(np.full(4, 2.0), noise=NoiseSensitivity())
    plan = plan_round(state, range(2), planning(AutomaticDeadline(initial=initial)))
    assert plan.is_guess
    code, start = plan.decoder.code, {"w": np.zeros(1)}
    assert isinstance(code, WorkLists)
    replies, moved = {}, [8.0, 24.0]
    for client, count in enumerate(done):
        rows = code.rows_after(client, count).tolist()
        way = {"w": np.array([moved[client]])}
        parts: dict[int, Any] = {row: ScaledDifference(way, start, 1.0 / count) for row in rows}
        replies[client] = CodedUpdate(parts, code.shards_of(client)[:count], np.full(count, 2.0))
    after, outcome = finish_round(state, plan, replies, arrays=start)
    assert outcome.update is not None and outcome.step == sum(done) / 2.0
    came = [way for way, count in zip(moved, done, strict=True) if count]
    moved_by = float(outcome.update["w"][0]) * outcome.step
    assert min(came) - 1e-12 <= moved_by <= max(came) + 1e-12
    assert done[0] != done[1] or moved_by == pytest.approx(16.0)
    assert outcome.total_weight * outcome.step == pytest.approx(1.0)
    assert after.plan is not None and not after.plan.is_guess and after.plan.step == outcome.step
    # How wrong it is nobody knows: the next round is not compared with it.
    assert after.noise is not None and after.noise.last is not None and np.isinf(after.noise.last_error)


def test_a_round_of_guesses_in_which_nobody_comes_shows_no_step() -> None:
    state = RoundState(np.full(4, 2.0), noise=NoiseSensitivity())
    plan = plan_round(state, range(2), planning())
    after, outcome = finish_round(state, plan, {}, arrays={"w": np.zeros(1)})
    assert outcome.update is None and after.plan is not None and after.plan.is_guess
    assert after.noise is not None and after.noise.last is None
    # Nor does one in which they come with nothing done.
    idle = {0: CodedUpdate({}, np.zeros(0, dtype=np.intp), np.zeros(0))}
    after, _ = finish_round(state, plan, idle, arrays={"w": np.zeros(1)})
    assert after.plan is not None and after.plan.is_guess


def test_a_reply_is_divided_among_its_shards_by_their_examples() -> None:
    arrays = {"w": np.ones(3)}
    code = WorkLists([[[2], [0], [1]], [[1], [2], [0]]], n_shards=3)
    task = ClientTask.of(code, 0, in_a_row=True)
    said = {"shard-ids": [2, 0], "shard-examples": [6, 2], "work-seconds": 3.0, "busy-seconds": 4.0}
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.full(3, 5.0))}),
            "metrics": MetricRecord({"num-examples": 8}),
            RECORD: ConfigRecord(said),  # type: ignore[arg-type]
        }
    )
    read = []

    def main(grid: Grid, context: Context) -> None:  # within a run, so that Flower knows who sends it
        message = Message(content, dst_node_id=FIRST_NODE_ID, message_type="train")
        read.append(read_reply(message, arrays, task, np.full(3, np.nan))[0])

    run_virtual(main, row_app(), steady(2), num_shards=3)
    update = read[0]
    rows = code.rows_after(0, 2).tolist()
    assert [update.sums[row]["w"].tolist() for row in rows] == [[3.0] * 3, [1.0] * 3]
    assert (update.work_seconds, update.busy_seconds) == (3.0, 4.0)


def test_coherence_is_learnt_of_single_shards() -> None:
    """Of means over several the shared part stays, and the rest is as many times smaller."""
    rng = np.random.default_rng(5)
    counts, dim, shared = np.array([1, 2, 4, 8] * 50), 400, 0.3
    common = rng.normal(size=dim)
    common *= np.sqrt(shared) / np.linalg.norm(common)
    rows = [common + np.sqrt((1.0 - shared) / dim / n) * rng.normal(size=dim) for n in counts]
    energies, total = [float(row @ row) for row in rows], np.sum(rows, axis=0)
    found = CoherenceEstimate().update_from_rows(energies, float(total @ total), counts)
    assert found.energy == pytest.approx(1.0, rel=0.05)
    assert found.overlap / found.energy == pytest.approx(shared, rel=0.05)
    assert CoherenceEstimate().update(energies, float(total @ total)).energy < 0.8


def test_one_client_that_hardly_moves_leaves_the_coherence_of_the_others() -> None:
    assert CoherenceEstimate().update_from_rows([0.0, 1.0, 1.0, 1.0], 6.0, [4] * 4).overlap == pytest.approx(0.25)
    before = CoherenceEstimate().update([1.0, 1.0], 3.0)
    assert before.update_from_rows([np.inf, 1.0], np.inf, [2, 2]) is before


def test_shared_shards_are_no_overlap() -> None:
    """Of two rows of the same shards the second one's likeness to the first says nothing of other shards."""
    state = RoundState(np.full(4, 2.0))
    fleet = build_fleet({"model": "log-normal", "clients": 2, "sigma": 0.0, "median": 0.01}, seed=3)
    plan = plan_round(state, range(2), planning(FixedDeadline(6.0), timing=fleet))
    code, start = plan.decoder.code, {"w": np.zeros(3)}
    assert isinstance(code, WorkLists)
    fold = RoundFold(state, plan, start)
    for client in range(2):
        end, rows = {"w": np.array([1.0, 2.0, 2.0])}, code.rows_after(client, 4).tolist()
        shares: dict[int, Any] = {row: ScaledDifference(end, start, 0.25) for row in rows}
        fold.add(client, CodedUpdate(shares, code.shards_of(client), np.full(4, 2.0)))
    assert fold.energies == [9.0 / 64.0] and fold.averaged == [4.0] and fold.copies.disagreements == []


def test_a_plan_in_a_row_is_one_after_it_was_saved() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 3, "sigma": 0.8}, seed=3)
    ways = planning(timing=fleet)
    state = RoundState(np.ones(6))
    plan = plan_round(state, range(3), ways)
    state, _ = finish_round(state, plan, {}, arrays={"w": np.zeros(2)})
    back = state_from_tree(state_to_tree(state), ways, None)
    assert back.plan is not None and back.plan.in_a_row and back.plan.step == plan.step


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("curvature", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("error", [0.0, 0.2, 1.5])
def test_what_more_steps_in_a_row_gain_is_what_gradient_descent_gains(
    steps: int, curvature: float, error: float
) -> None:
    """Steps of gradient descent one by one on ``w^2``, then the way they went, by noise longer or shorter."""

    def falls_by(number: int) -> float:
        left = 1.0
        for _ in range(number):
            left -= curvature * left
        ways = (1.0 - left) * (1.0 + np.sqrt(error) * np.array([1.0, -1.0]))
        return 1.0 - float(((1.0 - ways) ** 2).mean())

    exact = 1.0 - (1.0 - curvature) ** 2
    found = time_at_fixed_step(RoundForecast(10.0, 5.0, error, step=steps), curvature / (2.0 - curvature))
    gain = falls_by(steps) / exact
    assert found == (pytest.approx(10.0 / gain, rel=1e-9) if gain > 1e-9 else np.inf)


def test_steps_in_a_row_go_less_and_less_far() -> None:
    for sensitivity in (0.0, 0.1, 1.0, 9.0):
        ways = [way_in_a_row(steps, sensitivity) for steps in (0.0, 0.5, 1.0, 1.5, 4.0, 1000.0)]
        assert ways[0] == 0.0 and ways[2] == 1.0
        assert ways == sorted(ways)
        more = np.diff(ways) / [0.5, 0.5, 0.5, 2.5, 996.0]
        assert sensitivity == 0.0 or (np.diff(more) < 0.0).all()


def test_no_step_takes_for_ever_and_twice_the_step_half_the_time() -> None:
    assert time_at_fixed_step(RoundForecast(10.0, 5.0, 0.2, step=0.0), 0.2) == np.inf
    assert time_to_target(RoundForecast(10.0, 5.0, 0.2, step=2.0)) == time_to_target(RoundForecast(10.0, 5.0, 0.2)) / 2
    assert time_to_target(RoundForecast(10.0, 5.0, 0.2, step=0.0)) == np.inf


def test_curvature_is_along_the_step() -> None:
    """The same turning seen in steps of one and told of steps of three is three times as much for those."""
    short, long = NoiseSensitivity(), NoiseSensitivity()
    for length in (1.0, 0.9, 0.81, 0.73, 0.66, 0.59):
        short = short.update([length, 0.0], error=0.0, step=1.0)
        long = long.update([length, 0.0], error=0.0, step=3.0)
    assert long.curvature == short.curvature  # seen at the step that is taken
    assert replace(short, step=3.0).turned / short.squared == pytest.approx(0.1, rel=0.05)
    grown = replace(short, step=3.0).curvature
    assert grown == pytest.approx((2 * 0.4 + 5 * 0.3) / 7, rel=0.05) and grown > short.curvature
