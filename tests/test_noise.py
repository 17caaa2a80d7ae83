"""What residual error costs at a step size: the formula, and how it is learnt."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import (
    AutomaticDeadline,
    DeadlineRule,
    Outlook,
    QuantileDeadline,
    RoundForecast,
    time_at_fixed_step,
    time_to_target,
)
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.experiment.config import check_config
from fedgc.experiment.row import Row
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.noise import NoiseSensitivity
from fedgc.round import CodedUpdate, Planning, RoundState, finish_round, plan_round
from fedgc.round.after.evidence import is_surprising
from fedgc.round.saved_state import state_from_tree, state_to_tree
from fedgc.round.state import time_to_reconsider


def descend(
    curvatures: np.ndarray, step: float, error: float, rounds: int, rng: np.random.Generator
) -> tuple[NoiseSensitivity, list[float]]:
    """Run gradient descent on a quadratic with estimates of a relative squared error, and learn from them."""
    x, noise, losses = np.ones(curvatures.size) / np.sqrt(curvatures), NoiseSensitivity(), []
    for _ in range(rounds):
        gradient = curvatures * x
        deviation = np.sqrt(error * (gradient @ gradient) / gradient.size)
        direction = gradient + deviation * rng.standard_normal(gradient.size)
        noise = noise.update(-step * direction, error)
        losses.append(float(curvatures @ x**2) / 2.0)
        x = x - step * direction
    return noise, losses


@pytest.mark.parametrize("times_curvature", [0.3, 0.7, 0.9, 1.3, 1.7])
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_curvature_along_the_step_is_found(times_curvature: float, error: float) -> None:
    curvatures = np.full(4000, 2.0)
    noise, _ = descend(curvatures, times_curvature / 2.0, error, 40, np.random.default_rng(1))
    # The prior, 0.4, counts as two rounds. Inner products with noise in 4000 dimensions deviate by sqrt(2 eps / 4000).
    expected = (40 - 1) / 41 * times_curvature + 2 / 41 * 0.4
    assert noise.curvature == pytest.approx(expected, abs=1e-9 if error == 0.0 else 0.05)
    assert noise.value == noise.curvature / (2.0 - noise.curvature)


@pytest.mark.parametrize("step", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("error", [0.1, 0.4])
def test_the_time_at_a_fixed_step_is_what_a_round_gains(step: float, error: float) -> None:
    """On a quadratic of one curvature the expected gain of a step is known exactly."""
    curvature, rng = 2.0, np.random.default_rng(2)
    gradient = rng.standard_normal(5)
    sensitivity = step * curvature / (2.0 - step * curvature)

    def gain(eps: float) -> float:
        squared = float(gradient @ gradient)
        return step * squared - 0.5 * curvature * step**2 * squared * (1.0 + eps)

    forecast = RoundForecast(3.0, 1.0, error)
    assert time_at_fixed_step(forecast, sensitivity) == pytest.approx(3.0 * gain(0.0) / gain(error), rel=1e-12)


def test_to_first_order_it_is_the_time_with_the_best_step() -> None:
    forecast = RoundForecast(1.0, 1.0, 1e-6)
    assert time_at_fixed_step(forecast, 0.7) - time_to_target(forecast, 0.7) == pytest.approx(0.0, abs=1e-12)
    assert time_at_fixed_step(RoundForecast(1.0, 1.0, 2.0), 0.5) == np.inf
    assert time_at_fixed_step(RoundForecast(1.0, 1.0, np.inf), 0.0) == np.inf


def test_it_stays_between_bounds_and_passes_over_what_is_no_update() -> None:
    still, wild = NoiseSensitivity(), NoiseSensitivity()
    for number in range(30):
        still = still.update([1.0, 0.0], 0.0)
        wild = wild.update([(-1.5) ** number, 0.0], 0.0)
    assert (still.curvature, wild.curvature) == (0.2, 1.8)
    for bad in ([np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]):
        assert still.update(bad, 0.0) is still
    # What is as wrong as nobody knows is not compared with what comes next.
    unknown = still.update([7.0, 0.0], np.inf)
    assert unknown.value == still.value and unknown.update([1.0, 0.0], 0.0).rounds == still.rounds
    assert unknown.update([1.0, 0.0], 0.0).update([1.0, 0.0], 0.0).rounds == still.rounds + 1
    # After a change of the model there is nothing to compare with.
    assert still.update([1.0, 0.0, 0.0], 0.0).rounds == still.rounds


def test_with_a_memory_an_error_costs_as_much_as_changes_weigh() -> None:
    rng = np.random.default_rng(3)
    n, entries = 6, 50
    changes, sizes = rng.standard_normal((n, entries)), np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0])
    coherence = CoherenceEstimate().update((changes**2).sum(axis=1), float((changes.sum(axis=0) ** 2).sum()))
    noise = NoiseSensitivity().update(10.0 * np.ones(entries), 0.0)
    part = sizes / sizes.sum()
    overlap = np.clip(coherence.overlap, 0.0, 0.999 * coherence.energy)
    expected = ((coherence.energy - overlap) * (part**2).sum() + overlap) / (100.0 * entries)
    assert noise.share_of_changes(coherence, sizes) == pytest.approx(expected, rel=1e-12)
    assert NoiseSensitivity().share_of_changes(coherence, sizes) == 1.0
    assert noise.share_of_changes(CoherenceEstimate(), sizes) == 1.0


def test_deadlines_do_not_shrink_to_where_nothing_is_learnt_from_a_round() -> None:
    """An error like one over the deadline makes time to target flat with the best step, but not with a fixed one."""

    def forecast(seconds: float) -> RoundForecast:
        return RoundForecast(seconds, seconds, 0.4 / seconds)

    rule = AutomaticDeadline(initial=1.0, cover=False)
    for sensitivity, least in ((0.5, 0.2), (1.0, 0.4), (3.0, 1.2)):
        deadline = rule.initial
        for _ in range(20):
            deadline = rule.choose(outlook(forecast, deadline, sensitivity))
        # The least of t / (1 - s / t), with s = sensitivity x 0.4, is at 2 s.
        assert deadline == pytest.approx(2.0 * least, rel=0.1)


def outlook(forecast: Callable[[float], RoundForecast], last: float, sensitivity: float) -> Outlook:
    fleet = build_fleet({"preset": "lognormal", "clients": 3}, seed=1)
    return Outlook(fleet, np.ones(3, dtype=np.intp), 3, last, forecast, sensitivity)


def rows_of(preset: str, rounds: int, **options: object) -> list[Row]:
    """Train with automatic deadlines that may be shorter than a cover."""
    coded = {"kind": "gradient-coding", "label": "x", "schedule": "work-list", "deadline": 2.0}
    raw = {
        "name": "n",
        "rounds": rounds,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 12},
        "fleet": {"preset": preset, "clients": 6},
        "strategies": [{**coded, "deadline_rule": "auto", "deadline_cover": False, **options}],
    }
    return run_experiment(check_config(raw))


def test_a_biased_decoder_does_not_send_deadlines_to_zero() -> None:
    """Its residual error is one at most, by which the shortest deadline would be the best."""
    biased, unbiased = (
        rows_of("uneven", 12, memory=True, decoder=decoder)[-1].seconds
        for decoder in ("least-squares", "optimal-unbiased")
    )
    # Deadlines differ with what each decoder has made of the model; by its own forecasts it took less than half.
    assert biased == pytest.approx(unbiased, rel=0.5)


def test_on_a_fleet_that_needs_a_second_deadlines_stay_above_it() -> None:
    """No client of the paper's fleet ever answers within its least time, whatever is made of those that took longer."""
    rows = rows_of("paper", 40, memory=True)
    assert sum(row.metrics["fedgc-arrived"] > 0 for row in rows[21:]) >= 16
    assert min(row.metrics["fedgc-deadline"] for row in rows[21:]) > 0.9


def test_after_a_round_in_which_nothing_came_the_deadline_is_thought_over() -> None:
    rows = rows_of("paper", 14, deadline=0.002)
    empty = [row for row in rows if row.round > 2 and row.metrics["fedgc-arrived"] == 0]
    deadlines = {row.round: row.metrics["fedgc-deadline"] for row in rows if row.round}
    assert any(row.round in {6, 7, 8, 9} for row in empty), "rounds that are thought over anyway would show nothing"
    assert all(deadlines[row.round + 1] >= 1.4 * deadlines[row.round] for row in empty if row.round < 14)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("n_clients", [20, 400])
def test_arrivals_are_surprising_where_they_are_far_from_what_was_expected(schedule: str, n_clients: int) -> None:
    """Three standard deviations of the binomial where there are few clients, half of the mean where there are many."""
    planning = Planning(
        load=2, decoder=OptimalUnbiasedDecoder(), schedule=schedule, deadline=AutomaticDeadline(initial=4.0)
    )
    plan = plan_round(RoundState(np.ones(2 * n_clients), noise=NoiseSensitivity()), range(n_clients), planning)
    come = 1.0 - plan.silence_prob
    mean, spread = float(come.sum()), float(np.sqrt((come * (1.0 - come)).sum()))
    far = max(3.0 * spread, 0.5 * mean)
    assert (far > 0.5 * mean) == (n_clients == 20)
    assert plan.deadline is not None
    most, least = math.floor(mean + far), math.ceil(mean - far)
    for n_arrived, surprising in ((most, False), (least, False), (most + 1, True), (least - 1, True)):
        assert is_surprising(plan, n_arrived, plan.deadline) is surprising
        assert is_surprising(plan, n_arrived, None) is surprising
    assert not is_surprising(plan, least - 1, 0.9 * plan.deadline), "the others had not been waited for"


@pytest.mark.parametrize("rule", [AutomaticDeadline(initial=4.0), QuantileDeadline(0.7, initial=4.0)])
@pytest.mark.parametrize("come_before", [False, True])
def test_rounds_too_short_for_anybody_show_nobody_to_be_unreliable(rule: DeadlineRule, come_before: bool) -> None:
    """But once somebody has come they do, as they do where the rule knows nothing of such rounds."""
    noise = NoiseSensitivity() if rule.learns_noise else None
    if noise is not None and come_before:
        noise = noise.update([1.0, 0.0, 0.0], 0.0)
    planning = Planning(load=2, decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=rule)
    state = RoundState(np.ones(40), noise=noise)
    before = state.reliability.straggle_prob(range(20))
    for _ in range(3):
        plan = plan_round(state, range(20), planning)
        state, _ = finish_round(state, plan, {}, arrays={"w": np.zeros(3)}, waited=plan.deadline)
    after = state.reliability.straggle_prob(range(20))
    too_short = rule.learns_noise and not come_before
    assert (after == before).all() if too_short else (after > before + 0.1).all()


@pytest.mark.parametrize(("n_come", "surprised"), [(10, False), (1, True), (20, True)])
def test_after_a_surprise_all_is_thought_over(n_come: int, surprised: bool) -> None:
    """Whole blocks of which half are expected to come."""
    planning = Planning(load=2, decoder=OptimalUnbiasedDecoder(), deadline=AutomaticDeadline(initial=4.0))
    noise = NoiseSensitivity().update([1.0, 0.0, 0.0], 0.0)
    state = RoundState(np.ones(40), noise=noise, rounds=10)
    plan = plan_round(state, range(20), planning)
    assert (1.0 - plan.silence_prob).sum() == pytest.approx(10.0)
    replies = {}
    for client in range(n_come):
        shards = plan.code.shards_of(client)
        replies[client] = CodedUpdate({client: {"w": np.ones(3)}}, shards, np.ones(shards.size), 3.0, 3.0, 3.0)
    after, _ = finish_round(state, plan, replies, arrays={"w": np.zeros(3)}, waited=4.0)
    assert not time_to_reconsider(after.rounds), "a round that is thought over anyway would show nothing"
    assert after.reconsiders is surprised


def test_the_first_to_come_are_learnt_from_at_once() -> None:
    """What is known of overheads from then on would make clients of whose times nothing is known seem far too slow."""
    rows = [row.metrics for row in rows_of("paper", 11, deadline=0.1) if row.round]
    first = next(number for number, row in enumerate(rows) if row["fedgc-arrived"] > 0)
    assert not time_to_reconsider(first + 1), "a round that is thought over anyway would show nothing"
    # Who came is expected again by a deadline that is no shorter; half of it is left for who else may not.
    assert rows[first + 1]["fedgc-deadline"] >= rows[first]["fedgc-deadline"]
    assert rows[first + 1]["fedgc-arrived-predicted"] > rows[first]["fedgc-arrived"] / 2.0


def test_what_was_learnt_of_noise_and_deadlines_survives_a_restart() -> None:
    noise = NoiseSensitivity().update([1.0, 0.5], 0.1).update([0.3, 0.2], 0.2)
    state = RoundState(np.ones(4), noise=noise, fruitless=2.5, surprised=True)
    back = state_from_tree(state_to_tree(state), Planning(load=1, decoder=OptimalUnbiasedDecoder()), None)
    assert back.fruitless == 2.5 and back.noise is not None and back.surprised
    assert (back.noise.value, back.noise.signal, back.noise.rounds) == (noise.value, noise.signal, 1)
    assert back.noise.update([0.1, 0.1], 0.0).value == noise.update([0.1, 0.1], 0.0).value
