"""How far changes are learnt within 10 and 20 rounds, and how far they could be."""

from __future__ import annotations

from functools import cache

import cvxpy as cp
import numpy as np
import pytest
from scipy.stats import binom

from fedgc.reliability import ReliabilityPosterior
from tests.reliability_worlds import World

#: Rounds before the change; the memory is as long.
BEFORE = 100


def nats(before: float, now: float, rounds: int = 10) -> float:
    """Expected evidence of the rounds for the new probability against the old one."""
    return rounds * float(now * np.log(now / before) + (1.0 - now) * np.log((1.0 - now) / (1.0 - before)))


@cache
def learnt(before: float, now: float) -> tuple[float, float, float]:
    """Share of the way after 10 and 20 rounds, and the mean square error before the change.

    Half of a fleet of 1,000 like clients changes: the others hold the fleet prior where it was.
    """
    p = np.full(1000, before)
    world, posterior = World(p, p, np.random.default_rng(9)), ReliabilityPosterior()
    errors, shares = [], []
    for t in range(BEFORE):
        posterior = posterior.update(world.step())
        if t >= BEFORE - 10:
            errors.append(np.mean((posterior.straggle_prob(range(1000)) - before) ** 2))
    p[:500] = now
    for _ in range(2):
        for _ in range(10):
            posterior = posterior.update(world.step())
        shares.append((posterior.straggle_prob(range(500)).mean() - before) / (now - before))
    return float(shares[0]), float(shares[1]), float(np.mean(errors))


@pytest.mark.parametrize(("before", "now"), [(0.1, 0.5), (0.9, 0.5), (0.6, 0.05), (0.8, 0.3)])
def test_changes_of_five_nats_are_half_learnt_within_ten_rounds(before: float, now: float) -> None:
    assert nats(before, now) >= 5.0
    assert learnt(before, now)[0] > 0.5


@pytest.mark.parametrize(("before", "now"), [(0.5, 0.1), (0.3, 0.7), (0.7, 0.3)])
def test_changes_of_three_to_four_nats_are_half_learnt_within_twenty_rounds(before: float, now: float) -> None:
    assert 3.0 <= nats(before, now) <= 4.0
    assert learnt(before, now)[1] > 0.5


def test_unlike_clients_learn_as_fast() -> None:
    """Every change between seven probabilities, 120 clients of each, in one fleet and at once."""
    n, levels = 120, (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
    pairs = [(before, now) for before in levels for now in levels if before != now]
    before, now = np.repeat(np.array(pairs), n, axis=0).T
    p = before.copy()
    world, posterior = World(p, p, np.random.default_rng(0)), ReliabilityPosterior()
    for _ in range(BEFORE):
        posterior = posterior.update(world.step())
    p[:] = now
    shares = []
    for _ in range(2):
        for _ in range(10):
            posterior = posterior.update(world.step())
        shares.append(((posterior.straggle_prob(range(p.size)) - before) / (now - before)).reshape(-1, n).mean(axis=1))
    evidence = np.array([nats(*pair) for pair in pairs])
    large, middle = evidence >= 5.0, (evidence >= 3.0) & (evidence < 5.0)
    assert (large.sum(), middle.sum()) == (14, 8)
    assert (shares[0][large] > 0.5).all(), shares[0][large]
    assert (shares[1][middle] > 0.5).all(), shares[1][middle]


def most(before: float, now: float, error: float) -> float:
    """The largest share of the way, in the mean, of any estimator of mean square error `error` on unchanged clients.

    Enumerated over the 2^10 outcomes of the 10 rounds. The estimator may know the old probability, the new one and when
    clients change, if they do. How it moves, g(outcomes), has E_before g^2 <= error, and E_now g is wanted as large as
    possible: g is a multiple of the likelihood ratio then.
    """
    outcomes = (np.arange(2**10)[:, None] >> np.arange(10)) & 1
    old, new = (np.prod(np.where(outcomes == 1, p, 1.0 - p), axis=1) for p in (before, now))
    move = new / old
    move *= np.sqrt(error / (old @ move**2))
    return float(new @ move) / abs(now - before)


def test_from_a_half_to_a_fifth_nobody_is_half_way_after_ten_rounds() -> None:
    share, later, error = learnt(0.5, 0.2)
    bound = most(0.5, 0.2, error)
    assert 0.15 < share < bound < 0.5
    assert later < 0.5
    assert nats(0.5, 0.2) < 2.0
    # The error at which it would become possible, in the words of the docstring: 0.027 is what there is.
    assert error == pytest.approx(0.027**2, rel=0.1)
    assert most(0.5, 0.2, 0.031**2) < 0.5 < most(0.5, 0.2, 0.033**2)


def test_the_bound_is_the_optimum_of_the_program() -> None:
    """By cvxpy, over estimators of the number of misses, which is sufficient; to stay in [0, 1] can only cost."""
    before, now, error = 0.5, 0.2, 0.0007
    old, new = (binom.pmf(np.arange(11), 10, p) for p in (before, now))
    estimate = cp.Variable(11)
    goal = cp.Maximize(new @ (before - estimate))
    steady = [cp.sum(cp.multiply(old, cp.square(estimate - before))) <= error]
    free = cp.Problem(goal, steady).solve()
    inside = cp.Problem(goal, [*steady, estimate >= 0.0, estimate <= 1.0]).solve()
    assert free / (before - now) == pytest.approx(most(before, now, error), rel=1e-4)
    assert 0.9 * free < inside < free
    ratio = (now**2 / before + (1.0 - now) ** 2 / (1.0 - before)) ** 10
    assert most(before, now, error) == pytest.approx(np.sqrt(error * ratio) / (before - now), rel=1e-10)
