"""Changes of behaviour: found soon, and not where there are none; a suspicion is taken back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.change import ALARM, change_prob, cusum
from fedgc.reliability.prediction import Prediction
from tests.reliability_worlds import PLAIN, World, after, alike, long_sessions, paper


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


def test_a_suspected_client_is_believed_in_part() -> None:
    """Enumerated: the mixture of two models and two states of mind, by the law of total variance."""
    mean, deviation = np.array([[0.2], [0.4]]), np.array([[0.1], [0.05]])
    fast, fast_deviation = np.array([[0.7], [0.9]]), np.array([[0.2], [0.1]])
    weights, score = np.array([0.25, 0.75]), np.array([4.5])
    found, variance = Prediction(mean, deviation, fast, fast_deviation).believed(weights, score)
    changed = 1.0 / (1.0 + np.exp(-0.5))
    part = np.concatenate([(1.0 - changed) * weights, changed * weights])
    means = np.concatenate([mean, fast])[:, 0]
    second = np.concatenate([deviation, fast_deviation])[:, 0] ** 2 + means**2
    assert found[0] == pytest.approx(part @ means, rel=1e-12)
    assert variance[0] == pytest.approx(part @ second - (part @ means) ** 2, rel=1e-12)


def test_the_suspicion_grows_with_the_score_and_is_taken_back() -> None:
    assert change_prob(np.zeros(1))[0] == 0.0
    assert (np.diff(change_prob(np.linspace(0.0, ALARM, 50))) > 0.0).all()
    posterior = after(replace(PLAIN, forgetting=1.0), [True] * 40)
    calm = posterior.straggle_prob([0])[0]
    suspected = posterior.update({0: False}).update({0: False})
    assert 0.0 < suspected.clients.score[0] < ALARM
    long_memory = replace(suspected, clients=replace(suspected.clients, score=np.zeros(1))).straggle_prob([0])[0]
    assert suspected.straggle_prob([0])[0] > 2.0 * long_memory > 2.0 * calm
    later = after(suspected, [True] * 10)
    assert later.clients.score[0] == 0.0
    assert not later.clients.resets.any()
    # Nothing was lost: 2 misses in 52 rounds.
    assert later.straggle_prob([0])[0] == pytest.approx(3.0 / 54.0, rel=1e-12)


def test_steady_clients_rarely_lose_their_past() -> None:
    """On the paper's fleet, where many miss more often than not: once in 10,000 rounds at most."""
    n, rounds = 400, 100
    world, posterior = paper(np.random.default_rng(12), n), ReliabilityPosterior()
    for _ in range(rounds):
        posterior = posterior.update(world.step())
    # z = 3: at once in 20,000 rounds, 2 resets are expected, of standard deviation 1.4.
    assert posterior.clients.resets.sum() <= 2 + 3 * 1.4
