"""Changes of behaviour: found soon, and not where there are none; suspicion by shifts, which is taken back."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.change import ALARM, cusum
from fedgc.reliability.shift import SHIFTS, believed, filter_shifts, shifted, widen
from tests.reliability_worlds import PLAIN, World, after, alike, long_sessions, paper, without_shifts


@pytest.mark.parametrize(("before", "now"), [(0.1, 0.7), (0.7, 0.1), (0.2, 0.9), (0.05, 0.5)])
def test_a_change_is_half_learnt_within_ten_rounds(before: float, now: float) -> None:
    p = np.full(1000, before)
    world, posterior = World(p, p, np.random.default_rng(9)), ReliabilityPosterior()
    for _ in range(100):
        posterior = posterior.update(world.step())
    assert posterior.clients.resets.sum() < 0.001 * 100 * 1000
    p[:500] = now
    for _ in range(10):
        posterior = posterior.update(world.step())
    half_way = (before + now) / 2
    estimate = posterior.straggle_prob(range(500)).mean()
    assert (estimate - half_way) * (now - before) >= 0.0
    rest = posterior.straggle_prob(range(500, 1000)).mean()
    assert abs(rest - before) < 0.05


def test_one_changed_client_among_many_like_ones_is_found() -> None:
    """The fleet prior is worth hundreds of rounds here, and wrong for the one that changes."""
    rng = np.random.default_rng(10)
    world, posterior = alike(rng, 300), ReliabilityPosterior()
    for _ in range(60):
        posterior = posterior.update(world.step())
    rounds = 0
    while not posterior.clients.resets[0] or posterior.straggle_prob([0])[0] < 0.5:
        posterior = posterior.update(world.step() | {0: False})
        rounds += 1
        assert rounds <= 10
    (summary,) = posterior.describe([0])
    assert summary.resets >= 1
    assert 60 < (summary.changed_at or 0) <= 70
    assert summary.low < summary.straggle_prob < summary.high


def test_long_sessions_are_no_change() -> None:
    """Stay probability 0.95: resets are rarer than once in 2,000 client-rounds, and the conditional posterior stays."""
    n, rounds = 500, 120
    world, posterior = long_sessions(np.random.default_rng(11), n), ReliabilityPosterior()
    for _ in range(rounds):
        posterior = posterior.update(world.step())
    assert posterior.clients.resets.sum() < n * rounds / 2000
    np.testing.assert_allclose(posterior.straggle_prob(range(n)), world.straggle_prob, atol=0.05)


def test_the_score_is_pages_cusum() -> None:
    slow, fast = np.full(5, 0.1), np.full(5, 0.4)
    score = cusum(np.array([0.0, 0.0, 2.0, 2.0, 2.0]), slow, fast, np.array([1.0, 0.0, 1.0, 0.0, 0.5]))
    expected = [np.log(4) - 0.1, 0.0, 1.9 + np.log(4), 1.9 + np.log(6 / 9), 2.0]
    np.testing.assert_allclose(score, expected, rtol=1e-12)


def test_a_reset_keeps_the_rounds_since_the_change_only() -> None:
    posterior = after(replace(PLAIN, forgetting=1.0), [True] * 40)
    while not posterior.clients.resets[0]:
        posterior = posterior.update({0: False})
    misses = int(posterior.clients.rounds[0]) - 40
    assert 2 <= misses <= 5
    assert posterior.clients.score[0] == 0.0 < ALARM
    weight = 0.9 ** np.arange(misses)
    n = weight.sum() ** 2 / (weight**2).sum()
    assert posterior.straggle_prob([0])[0] == pytest.approx((1.0 + n) / (2.0 + n), rel=1e-12)


def test_the_filter_is_bayes_rule_over_all_histories_of_the_shift() -> None:
    """Enumerated: five states in each of five rounds, with the chances that a shift starts and ends."""
    starts, end = np.array([0.0003, 0.0006, 0.00035, 0.0008]), 0.02
    chain = np.diag([1.0 - starts.sum(), *np.full(4, 1.0 - end)])
    chain[0, 1:], chain[1:, 0] = starts, end
    missed, means = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.array([0.3, 0.25, 0.3, 0.4, 0.35])
    of_state = np.column_stack([means, expit(logit(means)[:, None] + np.array(SHIFTS))])
    likely = np.where(missed[:, None] == 1.0, of_state, 1.0 - of_state)
    shift, posterior = np.zeros((1, 4)), np.zeros(5)
    for t in range(5):
        shift = filter_shifts(shift, means[t : t + 1], missed[t : t + 1])
    for path in product(range(5), repeat=6):
        if path[0] == 0:
            steps = [likely[t, path[t]] * chain[path[t], path[t + 1]] for t in range(5)]
            posterior[path[5]] += np.prod(steps)
    np.testing.assert_allclose(shift[0], posterior[1:] / posterior.sum(), rtol=1e-10)


def test_an_outcome_that_was_not_seen_is_no_evidence_for_a_shift() -> None:
    shift = np.array([[0.1, 0.2, 0.0, 0.1]])
    np.testing.assert_array_equal(filter_shifts(shift, np.array([0.2]), np.array([0.7])), shift)
    posterior = after(PLAIN, [True] * 20 + [False] * 2)
    assert posterior.clients.shift[0, :2].sum() > 0.01
    np.testing.assert_array_equal(posterior.update({0: 0.1}).clients.shift, posterior.clients.shift)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_holds_the_mixture_of_the_states(level: float) -> None:
    """Simulated: the long memory's posterior, normal on the logit scale, moved by shifts of known probability."""
    rng, n = np.random.default_rng(13), 200_000
    shift = np.array([[0.0, 0.0, 0.0, 0.0], [0.02, 0.03, 0.01, 0.04], [0.3, 0.4, 0.0, 0.1]])
    middle, spread = np.array([-1.0, -2.0, 0.5]), np.array([0.3, 0.5, 0.1])
    width = norm.ppf((1.0 + level) / 2.0) * spread
    low, high = widen(shift, expit(middle - width), expit(middle + width), level)
    moves = np.array([0.0, *SHIFTS])
    for i in range(3):
        state = rng.choice(5, n, p=[1.0 - shift[i].sum(), *shift[i]])
        prob = expit(middle[i] + spread[i] * rng.standard_normal(n) + moves[state])
        # z = 4 standard errors of a proportion.
        tail = (1.0 - level) / 2.0
        bound = 4.0 * np.sqrt(tail * (1.0 - tail) / n)
        assert np.mean(prob < low[i]) == pytest.approx(tail, abs=bound)
        assert np.mean(prob > high[i]) == pytest.approx(tail, abs=bound)
    mean = expit(middle)
    expected = (1.0 - shift.sum(axis=1)) * mean + (shift * expit(middle[:, None] + moves[1:])).sum(axis=1)
    np.testing.assert_allclose(believed(shift, mean), expected, rtol=1e-12)


def test_shifts_of_certain_clients_stay_inside() -> None:
    prob = np.array([1e-300, 1e-16, np.nextafter(1.0, 0.0)])
    moved = shifted(prob)
    assert ((moved >= 0.0) & (moved <= 1.0)).all()
    shift = filter_shifts(np.full((3, 4), 0.2), prob, np.array([1.0, 1.0, 0.0]))
    assert np.isfinite(shift).all()
    assert (shift.sum(axis=1) <= 1.0).all()
    low, high = widen(shift, prob, prob, 1e-12)
    assert (low <= high).all()


def test_the_suspicion_grows_with_the_misses_and_is_taken_back() -> None:
    posterior = after(replace(PLAIN, forgetting=1.0), [True] * 40)
    calm = posterior.straggle_prob([0])[0]
    suspected = posterior.update({0: False}).update({0: False})
    assert 0.0 < suspected.clients.score[0] < ALARM
    assert suspected.clients.shift[0, :2].sum() > 10.0 * posterior.clients.shift[0, :2].sum()
    long_memory = without_shifts(suspected).straggle_prob([0])[0]
    assert suspected.straggle_prob([0])[0] > 1.5 * long_memory > 2.0 * calm
    later = after(suspected, [True] * 20)
    assert later.clients.score[0] == 0.0
    assert not later.clients.resets.any()
    # Nothing was lost: 2 misses in 62 rounds.
    assert without_shifts(later).straggle_prob([0])[0] == pytest.approx(3.0 / 64.0, rel=1e-12)
    assert later.straggle_prob([0])[0] == pytest.approx(3.0 / 64.0, rel=0.1)


def test_steady_clients_rarely_lose_their_past() -> None:
    """On the paper's fleet, where many miss more often than not: once in 10,000 rounds at most."""
    n, rounds = 400, 100
    world, posterior = paper(np.random.default_rng(12), n), ReliabilityPosterior()
    for _ in range(rounds):
        posterior = posterior.update(world.step())
    # z = 3: at once in 20,000 rounds, 2 resets are expected, of standard deviation 1.4.
    assert posterior.clients.resets.sum() <= 2 + 3 * 1.4
