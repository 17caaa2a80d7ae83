"""What planning keeps or asks at once is what it would be if it was worked out anew, or one by one, to the last bit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from fedgc.arrivals import ProgressArrivals
from fedgc.calibration import block_states, patterns
from fedgc.calibration.block_states import find_blocks
from fedgc.calibration.patterns import pattern_of, super_shards, unknowns
from fedgc.calibration.projection import row_space
from fedgc.codes import WorkLists
from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.deadline import FixedDeadline, mean_progress
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from fedgc.round import Planning, RoundState, plan_round
from fedgc.round.before.timing import LearntTiming, SomeClients
from fedgc.round.saved_state import state_from_tree, state_to_tree

LISTS = [[[0], [1], [2]], [[2], [1], [0]], [[3], [4]], [[4], [3]], [[5]]]
WHOLE = [[0, 1, 2], [2, 1, 0], [3, 4], [4, 3], [5]]
LABELS = [0, 0, 0, 1, 1, 2]


def progress(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return probabilities of which some may be zero."""
    drawn = rng.random(length + 1) * (rng.random(length + 1) < 0.7)
    drawn[[0, -1]] += 0.1
    return drawn / drawn.sum()


@pytest.mark.parametrize("lists", [LISTS, WHOLE])
@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("coherent", [0.0, 0.6])
def test_a_code_calibrated_again_is_as_if_it_was_new(
    lists: list[list[int]], labels: list[int] | None, coherent: float
) -> None:
    rng, decoder = np.random.default_rng(3), OptimalUnbiasedDecoder()
    code = WorkLists(lists, 6, interchangeable=labels)
    for _ in range(12):
        chances = [progress(rng, code.shards_of(client).size) for client in range(5)]
        gram = GramModel(rng.random(6) + 0.5, coherent * rng.random(6))
        new = WorkLists(lists, 6, interchangeable=labels)
        again = decoder.calibrate(code, ProgressArrivals(code, chances), gram)
        patterns._kept_pattern.cache_clear()
        fresh = decoder.calibrate(new, ProgressArrivals(new, chances), gram)
        assert again.residual_error == fresh.residual_error
        arrived = rng.random(code.n_rows) < 0.7
        assert again.decode(arrived).coverage.tolist() == fresh.decode(arrived).coverage.tolist()


@pytest.mark.parametrize("redrawn", [True, False])
@pytest.mark.parametrize("at_once", [2**20, 16])
def test_blocks_that_are_alike_are_what_they_are_one_by_one(
    redrawn: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of them are so only in pattern: what never comes is impossible in one, and rare in another."""
    monkeypatch.setattr(block_states, "_LISTED_AT_ONCE", at_once)
    rng = np.random.default_rng(8)
    lists = [[[3 * block + shard] for shard in order] for block in range(7) for order in ([0, 1, 2], [2, 1, 0])]
    labels = np.repeat(np.arange(7), 3) if redrawn else None
    listed = 0
    for coherent in (0.0, 0.6):
        code = WorkLists([*lists, [[21]]], 22, interchangeable=None if labels is None else [*labels, 7])
        chances = [progress(rng, 3) for _ in lists] + [np.array([0.5, 0.5])]
        for client in (2, 3, 8, 9):
            chances[client] = np.array([0.25, 0.25, 0.25, 0.25])
        chances[4] = np.array([1.0 - 2e-16, 1e-16, 0.0, 1e-16])
        chances[5] = np.array([0.1, 0.2, 0.3, 0.4])
        arrivals, gram = ProgressArrivals(code, chances), GramModel(rng.random(22) + 0.5, coherent * rng.random(22))
        together = find_blocks(code, arrivals, gram, draws=8, rng=np.random.default_rng(1))
        parts = arrivals.parts()
        components = block_states.components_of(code, [part.rows for part in parts])
        listed += len(block_states._listed_alike(components, parts, gram, block_states.MOST_STATES))
        with monkeypatch.context() as alone:
            alone.setattr(block_states, "_listed_alike", lambda *_: {})
            one_by_one = find_blocks(code, arrivals, gram, draws=8, rng=np.random.default_rng(1))
        assert len(together) == len(one_by_one) >= 8
        for block, other in zip(together, one_by_one, strict=True):
            for field in fields(block):
                here, there = getattr(block, field.name), getattr(other, field.name)
                for a, b in zip(*((one,) if not isinstance(one, tuple) else one for one in (here, there)), strict=True):
                    assert np.array_equal(a, b), field.name
    assert (listed > 0) == redrawn


def test_rows_of_one_super_shard_span_what_elimination_finds() -> None:
    rng = np.random.default_rng(5)
    for groups in (None, np.array([0, 0, 1, 1])):
        for _ in range(20):
            coefficients = np.eye(4)[rng.integers(4, size=6)]
            outcomes = [rng.random((3, 6)) < 0.4]
            pattern, energy = pattern_of(coefficients, outcomes, groups), rng.random(4) + 0.1
            if not pattern.single:
                continue
            energy = energy[: pattern.merged.shape[1]]
            found = pattern.unknowns(energy)
            wanted = unknowns(row_space(pattern.merged, energy), pattern.merged, pattern.super_shard, groups)
            assert found.rank == wanted.rank
            for one, other in zip(found[1:], wanted[1:], strict=True):
                assert one.tolist() == other.tolist()


def test_super_shards_are_the_distinct_columns() -> None:
    rng = np.random.default_rng(7)
    for _ in range(30):
        coefficients, possible = rng.integers(0, 3, (4, 6)).astype(np.float64), rng.random(4) < 0.7
        merged, place = super_shards(coefficients, possible, None)
        wanted, inverse = np.unique(coefficients * possible[:, None], axis=1, return_inverse=True)
        assert merged.tolist() == wanted.tolist()
        assert place.tolist() == inverse.ravel().tolist()


def test_outcomes_of_a_list_are_the_rows_after_each_number_of_shards() -> None:
    code = WorkLists([[[4, 0], [1], [3, 2, 5]], [[2], [0, 1]]], 6)
    for client in (0, 1):
        outcomes, rows = code.progress_outcomes(client), code.rows_of(client)
        for done, sent in enumerate(outcomes):
            assert rows[sent].tolist() == (code.rows_after(client, done).tolist() if done else [])


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("away", [None, np.array([0.1, 0.4, 0.2])])
def test_many_instants_are_as_one_by_one(seen: bool, away: np.ndarray | None) -> None:
    rng, times = np.random.default_rng(9), CompletionTimes()
    for _ in range(6 if seen else 0):
        times = times.update([TimeObservation(node, 2, 1.0 + node + rng.random()) for node in (1, 2, 3)])
    timing = LearntTiming(times, (1, 2, 3), away, 0.7).tabulated()
    instants, load = np.append(np.geomspace(0.01, 50.0, 3000), np.inf), np.array([0, 2, 5])
    wanted = [timing.straggle_prob(instant, load).tolist() for instant in instants]
    assert timing.straggle_prob_at(instants, load).tolist() == wanted


@pytest.mark.parametrize("rounds", [1, 3, 1000])
def test_next_to_nothing_is_done_in_no_time_however_long_the_lists_are(rounds: int) -> None:
    """No shard is without a chance, so that it can be decoded; their sum is no progress that anybody would make."""
    rng, times = np.random.default_rng(9), CompletionTimes()
    for _ in range(9):
        times = times.update([TimeObservation(node, 2, 2.0 + rng.random()) for node in (1, 2, 3)])
    timing = LearntTiming(times, (1, 2, 3), None, 0.7, rounds=rounds)
    assert (timing.reach(0.01, 60) >= 1e-3).all()
    # Not half of what the lowest bounds, which are those of a thousand rounds, add up to.
    assert (timing.mean_progress(0.01, [60, 60, 2]) < np.array([60, 60, 2]) * 1e-3 / 2.0).all()


def test_progress_on_lists_is_the_sum_of_what_is_reached() -> None:
    timing = LearntTiming(CompletionTimes(), (1, 2, 3), np.array([0.1, 0.4, 0.2]), 0.7)
    reach = timing.reach(4.0, 5)
    assert timing.mean_progress(4.0, [0, 2, 5]) == pytest.approx([0.0, reach[1, 1:3].sum(), reach[2, 1:].sum()])


def test_steps_in_a_row_are_what_is_expected_and_not_what_bounds_add_up_to() -> None:
    """Ten clients that take two seconds a piece, sixty pieces each: by a tenth of a second next to none is done."""
    rng, nodes = np.random.default_rng(9), tuple(range(10))
    times = CompletionTimes()
    for _ in range(9):
        times = times.update([TimeObservation(node, 1, 2.0 + 0.1 * rng.random()) for node in nodes])
    state = RoundState(np.ones(300), completion_times=times, rounds=3)
    planning = Planning(
        load=2, decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=FixedDeadline(0.1), in_a_row=True
    )
    plan = plan_round(state, nodes, planning)
    assert isinstance(plan.arrivals, ProgressArrivals)
    assert plan.step < plan.arrivals.mean_progress.mean() / 5.0
    back = state_from_tree(state_to_tree(replace(state, plan=plan)), planning, None)
    assert back.plan is not None
    assert back.plan.step == plan.step


def test_some_clients_progress_as_they_do_among_all() -> None:
    timing = LearntTiming(CompletionTimes(), (1, 2, 3), np.array([0.1, 0.4, 0.2]), 0.7)
    some = SomeClients(timing, 3, np.array([2, 0]))
    assert mean_progress(some, 4.0, [5, 2]).tolist() == mean_progress(timing, 4.0, [2, 0, 5])[[2, 0]].tolist()
