"""A client's own frequency under censoring, and how far it is believed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.completion_times.mixing import Mixing
from fedgc.completion_times.own_frequency import OwnFrequency
from fedgc.completion_times.timeline import Timeline

GRID = np.linspace(-8.0, 8.0, 4001)
STRENGTH = 3.0
Vector = NDArray[np.float64]


def fleet(log_x: Vector | float) -> Vector:
    """One in ten is away, the others have a logistic law."""
    return np.asarray(0.1 + 0.9 / (1.0 + np.exp(2.0 * np.asarray(log_x))))


def own(log_time: Vector, weight: Vector, censored: NDArray[np.bool_]) -> OwnFrequency:
    return OwnFrequency.of(Timeline(log_time, weight, censored, ~censored), GRID, fleet(GRID))


def susarla_van_ryzin(log_x: float, log_time: Vector, weight: Vector, censored: NDArray[np.bool_]) -> float:
    """Their closed form, equation 3.1: a product over waits, where the recursion's is over all times."""
    value = STRENGTH * float(fleet(log_x)) + weight[log_time > log_x].sum()
    for bound in np.unique(log_time[censored & (log_time <= log_x)]):
        at_risk = STRENGTH * float(fleet(bound)) + weight[log_time >= bound].sum()
        # Times seen that equal a wait come before it.
        at_risk -= weight[~censored & (log_time == bound)].sum()
        value *= at_risk / (at_risk - weight[censored & (log_time == bound)].sum())
    return float(value / (STRENGTH + weight.sum()))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_posterior_mean_of_a_dirichlet_process(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # A grid of times, so that some are equal.
    log_time, censored = rng.integers(-4, 5, 12) / 4.0, rng.random(12) < 0.4
    weight = rng.uniform(0.3, 1.0, 12)
    frequency = own(log_time[None], weight[None], censored[None])
    for log_x in (*rng.uniform(-2.0, log_time.max(), 10), *np.unique(log_time)):
        found = frequency.longer(np.array([0]), np.array([log_x]), 0.5, 0.5)
        assert found[0] == pytest.approx(susarla_van_ryzin(log_x, log_time, weight, censored), rel=2e-5)


def test_one_deadline_gives_the_frequency_of_misses() -> None:
    rng = np.random.default_rng(0)
    log_time, bound = rng.normal(0.0, 1.0, (20, 30)), 0.4
    censored = log_time > bound
    frequency = own(np.minimum(log_time, bound), np.ones(log_time.shape), censored)
    found = frequency.longer(np.arange(20), np.full(20, bound), 0.0, 0.0)
    expected = (STRENGTH * fleet(bound) + censored.sum(axis=1)) / (STRENGTH + 30)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_beyond_the_longest_wait_the_model_goes_on() -> None:
    log_time, censored = np.array([[-0.5, 0.0, 0.3, 0.3]]), np.array([[False, False, True, True]])
    frequency = own(log_time, np.ones((1, 4)), censored)
    rows = np.array([0])
    last = frequency.longer(rows, np.array([0.3]), 0.8, 0.8)
    np.testing.assert_allclose(frequency.longer(rows, np.array([1.0]), 0.2, 0.8), last * 0.2 / 0.8, rtol=1e-9)
    # A client of which nothing was seen has its model, which is the fleet.
    nothing = own(np.zeros((1, 4)), np.zeros((1, 4)), np.zeros((1, 4), dtype=bool))
    np.testing.assert_allclose(nothing.longer(rows, np.array([0.2]), 0.37, 1.0), 0.37, rtol=1e-6)


def two_bumps(rng: np.random.Generator, n_rounds: int, n_clients: int) -> Vector:
    """Half of the rounds take one second, half three, of each client in its own proportion: no family's law."""
    often = rng.uniform(0.2, 0.8, n_clients)
    long = rng.random((n_rounds, n_clients)) < often
    return np.where(long, 3.0, 1.0) * np.exp(0.02 * rng.standard_normal((n_rounds, n_clients)))


def learn(seconds: Vector, deadlines: Vector, **options: bool) -> CompletionTimes:
    times = CompletionTimes(**options)  # type: ignore[arg-type]
    for own_seconds, deadline in zip(seconds.tolist(), deadlines.tolist(), strict=True):
        times = times.update(
            [
                TimeObservation(node, 1, min(one, deadline), censored=one > deadline)
                for node, one in enumerate(own_seconds)
            ]
        )
    return times


def test_the_frequency_is_believed_where_no_law_fits() -> None:
    rng = np.random.default_rng(1)
    # Waits that end between the bumps and beside them: the law between is what matters, and no family has it.
    times = learn(two_bumps(rng, 30, 60), rng.choice([0.9, 2.0, 2.8], 30), slow_rounds=False)
    assert times.mixing.frequency_share > 0.4
    fits = learn(np.exp(0.4 * rng.standard_normal((30, 60))), rng.choice([0.9, 1.3, 2.0], 30))
    assert fits.mixing.frequency_share < 0.1


def test_chances_grow_with_time_and_fall_with_the_load_whatever_is_believed() -> None:
    rng = np.random.default_rng(2)
    times = learn(two_bumps(rng, 12, 20), rng.choice([0.9, 2.0, 2.8], 12))
    nodes = range(22)
    for scores in ((0.0, -20.0, -20.0), (-20.0, 0.0, -20.0), (-20.0, -20.0, 0.0)):
        data = {**times.to_data(), "log_scores": list(scores)}
        same = CompletionTimes.from_data(json.loads(json.dumps(data)))
        steps = np.array(
            [same.in_time_prob(nodes, 1, x) for x in (0.0, 0.5, 1.0, 1.5, 2.0, 2.9, 3.1, 9.0, 1e9, np.inf)]
        )
        assert ((steps >= 0.0) & (steps <= 1.0)).all()
        assert (np.diff(steps, axis=0) >= -1e-9).all()
        np.testing.assert_allclose(steps[-1], same.presence(nodes), atol=1e-12)
        assert (np.diff(same.reach(nodes, 5, 4.0), axis=1) <= 0.0).all()


def test_scores_are_of_predictions_made_before() -> None:
    """Nothing has been predicted of a first batch, and what is scored does not depend on what is learnt from it."""
    rng = np.random.default_rng(3)
    seconds = two_bumps(rng, 6, 20)
    first = learn(seconds[:1], np.full(1, 2.0))
    assert first.mixing == Mixing()
    later = learn(seconds, np.full(6, 2.0))
    assert later.mixing != Mixing()
    assert max(later.mixing.log_scores) == 0.0


@pytest.mark.parametrize("scores", [[0.0, 0.0], [0.0, 0.0, float("nan")]])
def test_scores_in_data_are_checked(scores: list[float]) -> None:
    data = {**CompletionTimes().to_data(), "log_scores": scores}
    with pytest.raises(ValueError, match="log_scores must be three finite numbers"):
        CompletionTimes.from_data(data)
