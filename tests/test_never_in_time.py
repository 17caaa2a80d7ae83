"""A client that never comes in a fleet that is alike: it must not be held for one of the others for long."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.completion_times import FAMILIES, CompletionTimes, TimeObservation

N_CLIENTS, LOAD, ROUNDS = 20, 2, 30
NODES = range(N_CLIENTS)
NEVER = 0  # node id of the client that never comes


def draws(family: str, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Seconds per shard, of median near 1 and a relative spread of about 0.3."""
    if family == "log-normal":
        return np.exp(0.3 * rng.standard_normal(size))
    if family == "weibull":
        return rng.weibull(1.0 / 0.3, size)
    return 0.7 + 0.3 * rng.standard_exponential(size)


def watch(family: str, deadline: float, *, replies: bool, seed: int) -> tuple[CompletionTimes, NDArray[np.float64]]:
    """Return what is learnt in all rounds, and the chance that each client was given after each round."""
    rng, times, chances = np.random.default_rng(seed), CompletionTimes(family=family), []
    for _ in range(ROUNDS):
        seconds = LOAD * draws(family, rng, N_CLIENTS)
        seconds[NEVER] = np.inf
        late = seconds > deadline
        times = times.update(
            [
                TimeObservation(
                    node,
                    LOAD,
                    float(min(seconds[node], deadline)),
                    censored=bool(late[node]),
                    # Who works on a list replies in any case, if with nothing done.
                    there=True if replies and node == NEVER else None,
                )
                for node in NODES
            ]
        )
        chances.append(times.in_time_prob(NODES, LOAD, deadline))
    return times, np.array(chances)


@pytest.mark.parametrize("replies", [False, True])
@pytest.mark.parametrize("deadline", [2.4, 4.0, 10.0, 40.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_who_never_comes_is_found_out(family: str, deadline: float, replies: bool) -> None:
    _, chances = watch(family, deadline, replies=replies, seed=0)
    # One shard at a time of ten and thirty rounds without one: the rule of succession has 1 / 12 and 1 / 32.
    assert chances[9:, NEVER].max() < 0.3
    assert chances[29, NEVER] < 0.1
    truth = float((LOAD * draws(family, np.random.default_rng(1), 400_000) <= deadline).mean())
    others = np.delete(chances[29], NEVER)
    # Thirty rounds of nineteen clients: a standard error of at most 0.5 / sqrt(570) = 0.021 of the mean.
    assert others.mean() == pytest.approx(truth, abs=0.05)
    if deadline >= 4.0:
        # Each of them: its own misses, of which there are hardly any, are all that tells it from the others.
        np.testing.assert_allclose(others, truth, atol=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_who_has_gone_would_not_come_later_either(family: str) -> None:
    """Absence explains the silence better than slowness does: twice the time is no hope."""
    times, _ = watch(family, 4.0, replies=False, seed=0)
    assert times.in_time_prob([NEVER], LOAD, 8.0)[0] < 0.1
    assert times.presence([NEVER])[0] < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_who_replies_with_nothing_done_is_slow(family: str) -> None:
    times, _ = watch(family, 40.0, replies=True, seed=0)
    assert times.presence([NEVER])[0] > 0.95
    # Twenty times the others' time was not enough.
    assert times.seconds_per_shard([NEVER])[0] > 20.0
    assert times.presence(NODES).min() > 0.95
