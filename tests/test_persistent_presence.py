"""Presence given the last rounds: the recursion against all paths, and fleets with and without persistence."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.completion_times.presence import PERSISTENCE, PersistentPresence

N_CLIENTS, DEADLINE = 60, 3.0
NODES = range(N_CLIENTS)


@pytest.mark.parametrize("seed", range(5))
def test_the_recursion_is_the_sum_over_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share, n_rounds = rng.uniform(0.1, 0.9), 7
    silent, longer = rng.random(n_rounds) < 0.6, rng.random(n_rounds)
    found = PersistentPresence(
        np.full((PERSISTENCE.size, 1), share), np.full((PERSISTENCE.size, 1), share), np.zeros((PERSISTENCE.size, 1))
    )
    for k in range(n_rounds):
        found = found.after(np.array([0]), silent[k : k + 1], longer[k : k + 1])
    for row, persistence in enumerate(PERSISTENCE):
        stay = {True: share + persistence * (1.0 - share), False: share * (1.0 - persistence)}
        total = coming = 0.0
        for path in product([True, False], repeat=n_rounds):
            prob = share if path[0] else 1.0 - share
            for before, now in pairwise(path):
                prob *= stay[before] if now else 1.0 - stay[before]
            for there, quiet, slow in zip(path, silent, longer, strict=True):
                prob *= (slow if there else 1.0) if quiet else float(there)
            total += prob
            coming += prob * stay[path[-1]]
        assert np.exp(found.log_likelihood[row, 0]) == pytest.approx(total, rel=1e-10)
        assert found.coming[row, 0] == pytest.approx(coming / total, rel=1e-10)


def presences(rng: np.random.Generator, n_rounds: int, share: float, persistence: float) -> NDArray[np.bool_]:
    there = rng.random((n_rounds, N_CLIENTS)) < share
    for k in range(1, n_rounds):
        there[k] = np.where(rng.random(N_CLIENTS) < persistence, there[k - 1], there[k])
    return there


def rounds_of(rng: np.random.Generator, there: NDArray[np.bool_]) -> list[list[TimeObservation]]:
    """Seconds of median 1; one round in eight of those who are there takes longer than the deadline."""
    seconds = np.exp(0.95 * rng.standard_normal(there.shape))
    return [
        [
            TimeObservation(node, 1, float(own[node]))
            if here[node] and own[node] <= DEADLINE
            else TimeObservation(node, 1, DEADLINE, censored=True)
            for node in NODES
        ]
        for here, own in zip(there, seconds, strict=True)
    ]


def learn(rounds: list[list[TimeObservation]], times: CompletionTimes | None = None) -> CompletionTimes:
    times = times or CompletionTimes()
    for seen in rounds:
        times = times.update(seen)
    return times


def test_sessions_are_noticed() -> None:
    rng = np.random.default_rng(1)
    there = presences(rng, 30, 0.6, 0.9)
    times = learn(rounds_of(rng, there))
    found, last = times.presence(NODES), there[-1]
    # The truth: 0.6 + 0.9 x 0.4 = 0.96 after a round there, 0.6 x 0.1 = 0.06 after one away, as far as is known which.
    assert found[last].mean() > 0.85
    assert found[~last].mean() < 0.25
    truth = np.where(last, 0.96, 0.06)
    assert np.abs(found - truth).mean() < 0.12


def test_nothing_is_lost_where_rounds_are_drawn_anew() -> None:
    rng = np.random.default_rng(2)
    there = presences(rng, 30, 0.6, 0.0)
    found = learn(rounds_of(rng, there)).presence(NODES)
    # Thirty rounds of a client: 0.09 of its own frequency, and shrunk to the fleet.
    assert found.std() < 0.09
    assert found.mean() == pytest.approx(0.6, abs=0.07)
    assert found[there[-1]].mean() - found[~there[-1]].mean() < 0.03


def test_rounds_that_are_noted_count_as_if_they_had_been_learnt() -> None:
    rng = np.random.default_rng(3)
    rounds = rounds_of(rng, presences(rng, 33, 0.6, 0.9))
    start = learn(rounds[:30])
    noted = start.noting([one for seen in rounds[30:] for one in seen])
    learnt = learn(rounds[30:], start)
    # What has been learnt of speeds and shares since is all that differs.
    assert np.abs(noted.presence(NODES) - learnt.presence(NODES)).mean() < 0.03
    assert start.noting([]) is start
    # It is not a state: what is kept is what was learnt.
    assert noted.to_data() == start.to_data()
    assert np.abs(start.presence(NODES) - learnt.presence(NODES)).max() > 0.5
    unknown = start.noting([TimeObservation(10**6, 1, DEADLINE, censored=True)])
    np.testing.assert_array_equal(unknown.presence(NODES), start.presence(NODES))
    assert CompletionTimes().noting(rounds[0]).priors == {}
