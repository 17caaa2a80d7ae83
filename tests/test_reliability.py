"""The posterior of a client to miss the deadline: closed forms, outcomes that were not seen, intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.clients import NEVER

#: A posterior whose learnt parts are still: fixed prior, one model.
from tests.reliability_worlds import (
    FLAT,
    PLAIN,
    World,
    after,
    paper,
    persistent,
    persistent_alike,
    uniform,
    without_shifts,
)

# --- posterior ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=6), forgetting=st.floats(0.5, 1.0))
def test_posterior_is_the_closed_form_with_forgetting(outcomes: list[bool], forgetting: float) -> None:
    posterior = after(ReliabilityPosterior(2.0, 3.0, forgetting, conditional=False), outcomes, node=5)
    if posterior.clients.resets.any():
        return
    posterior = without_shifts(posterior)
    weight = forgetting ** np.arange(len(outcomes))[::-1]
    n = weight.sum() ** 2 / (weight**2).sum()
    k = n * (weight @ ~np.array(outcomes)) / weight.sum()
    assert posterior.straggle_prob([5])[0] == pytest.approx((3.0 + k) / (5.0 + n), rel=1e-12)
    for level in (0.5, 0.9):
        found = [limit[0] for limit in posterior.credible_interval([5], level)]
        assert found == pytest.approx(beta.interval(level, 3.0 + k, 2.0 + n - k), rel=1e-9)


def test_posterior_converges_and_keeps_unseen_nodes_at_the_prior() -> None:
    rng = np.random.default_rng(0)
    posterior = ReliabilityPosterior(**FLAT, forgetting=1.0)
    for _ in range(400):
        posterior = posterior.update({node: bool(rng.random() < 0.7) for node in range(20)})
    # A suspicion moves a client for a few rounds, and a false alarm costs it its past.
    steady = np.flatnonzero((posterior.clients.resets == 0) & (posterior.clients.score < 1.0))
    assert steady.size > 8
    # z = 4 standard errors of a proportion over 400 draws.
    np.testing.assert_allclose(posterior.straggle_prob(steady.tolist()), 0.3, atol=4 * np.sqrt(0.21 / 400))
    assert ReliabilityPosterior(**FLAT).straggle_prob([2])[0] == 0.5


def test_posterior_never_claims_certainty() -> None:
    for prior in ({}, {"prior_arrivals": 1e15, "prior_misses": 1e-6}, {"prior_arrivals": 1e-6, "prior_misses": 1e15}):
        posterior = ReliabilityPosterior(**prior, forgetting=1.0)
        for _ in range(150):
            posterior = posterior.update({1: False, 2: True})
        probability = posterior.straggle_prob([2, 1, 3])
        assert ((probability > 0) & (probability < 1)).all()
        low, high = posterior.credible_interval([2, 1, 3])
        assert ((low >= 0) & (low <= high) & (high <= 1)).all()
    assert probability[0] <= probability[1]


def test_new_clients_are_taken_for_members_of_the_fleet() -> None:
    rng = np.random.default_rng(4)
    world, posterior = paper(rng, 300), ReliabilityPosterior()
    for _ in range(30):
        posterior = posterior.update(world.step())
    # z = 5 standard errors of the fleet's mean; the hyperprior pulls by less than 0.01.
    spread = world.after_arrival.std() / np.sqrt(300)
    assert posterior.straggle_prob([10**19])[0] == pytest.approx(world.after_arrival.mean(), abs=5 * spread + 0.01)
    low, high = posterior.credible_interval([10**19])
    assert np.mean((world.after_arrival > low) & (world.after_arrival < high)) > 0.85


def test_who_was_not_asked_is_remembered_as_before() -> None:
    rng = np.random.default_rng(5)
    posterior = PLAIN
    for _ in range(10):
        posterior = posterior.update({node: bool(rng.random() < 0.6) for node in range(5)})
    later = posterior
    for _ in range(50):
        later = later.update({0: True})
    np.testing.assert_array_equal(later.straggle_prob(range(1, 5)), posterior.straggle_prob(range(1, 5)))
    assert later.straggle_prob([0])[0] < posterior.straggle_prob([0])[0]
    assert posterior.update({}) is posterior


def test_updating_leaves_the_old_posterior_alone() -> None:
    first = after(ReliabilityPosterior(), [True, False])
    before = json.dumps(first.to_data())
    first.update({0: True, 1: False})
    assert json.dumps(first.to_data()) == before


@settings(max_examples=25, deadline=None)
@given(data=st.data(), conditional=st.booleans(), learnt=st.booleans())
def test_the_order_and_the_names_of_clients_do_not_matter(data: Any, conditional: bool, learnt: bool) -> None:
    start = ReliabilityPosterior(**({} if learnt else FLAT), conditional=conditional)
    outcome = st.one_of(st.booleans(), st.floats(0.0, 1.0))
    rounds = data.draw(st.lists(st.dictionaries(st.integers(0, 5), outcome), max_size=12))
    one, other = start, start
    for arrived in rounds:
        one = one.update(arrived)
        other = other.update({10**18 - node: arrived[node] for node in sorted(arrived, reverse=True)})
    nodes = list(range(7))
    probability = one.straggle_prob(nodes)
    # The search for the prior sums in another order, and stops at a relative change of 2e-9.
    np.testing.assert_allclose(other.straggle_prob([10**18 - node for node in nodes]), probability, rtol=1e-3)
    assert ((probability > 0) & (probability < 1)).all()
    low, high = one.credible_interval(nodes)
    assert (low <= high).all()


# --- outcomes that were not seen ------------------------------------------------------------------------------------


def test_certain_outcomes_are_seen_outcomes() -> None:
    for conditional in (True, False):
        start = ReliabilityPosterior(conditional=conditional)
        seen, told = after(start, [True, False, False, True]), after(start, [1.0, 0.0, 0.0, 1.0])
        assert seen.straggle_prob([0])[0] == told.straggle_prob([0])[0]


def test_an_outcome_in_probability_counts_in_part() -> None:
    posterior = without_shifts(after(replace(PLAIN, forgetting=1.0), [True, 0.75, False]))
    assert posterior.straggle_prob([0])[0] == pytest.approx((1.0 + 0.25 + 1.0) / (2.0 + 3.0), rel=1e-12)


def test_after_an_unseen_outcome_both_states_are_mixed() -> None:
    rng = np.random.default_rng(6)
    world, posterior = persistent_alike(rng, 300), ReliabilityPosterior()
    for _ in range(40):
        posterior = posterior.update(world.step())
    table = without_shifts(posterior).clients
    forced = [
        replace(posterior, clients=replace(table, last=np.full(300, value))).straggle_prob(range(300))
        for value in (0.0, 1.0, 0.25, NEVER)
    ]
    after_arrival, after_miss, unseen, never = forced
    np.testing.assert_allclose(unseen, 0.25 * after_miss + 0.75 * after_arrival, rtol=1e-12)
    assert after_arrival.mean() == pytest.approx(0.1, abs=0.02)
    assert after_miss.mean() == pytest.approx(0.6, abs=0.04)
    # The stationary probability 0.1 / (0.1 + 0.4).
    assert never.mean() == pytest.approx(0.2, abs=0.03)


def test_censored_rounds_do_not_bias() -> None:
    """Half of the outcomes are told in probability, by someone who knows the client's true one."""
    rng = np.random.default_rng(7)
    p, n = 0.3, 400
    posterior = ReliabilityPosterior()
    for _ in range(40):
        missed, censored = rng.random(n) < p, rng.random(n) < 0.5
        posterior = posterior.update(
            {i: (1.0 - p) if censored[i] else bool(~missed[i]) for i in range(n)},
        )
    # z = 4 standard errors of the mean of the seen half.
    assert posterior.straggle_prob(range(n)).mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / (20 * n)))


# --- intervals ------------------------------------------------------------------------------------------------------


def coverage(make: Callable[..., World], seed: int, rounds: Sequence[int], n: int = 1000) -> list[float]:
    world, posterior, result = make(np.random.default_rng(seed), n), ReliabilityPosterior(), []
    for t in range(1, max(rounds) + 1):
        posterior = posterior.update(world.step())
        if t in rounds:
            low, high = posterior.credible_interval(range(n))
            result.append(float(np.mean((low <= world.straggle_prob) & (world.straggle_prob <= high))))
    return result


@pytest.mark.parametrize("make", [uniform, paper, persistent])
def test_intervals_cover_the_truth(make: Callable[..., World]) -> None:
    """Of 1,000 clients, 88 to 96 % of the true probabilities lie in the 90 % interval.

    After 5 and 20 rounds all clients share the error of the fleet prior, so that single fleets scatter by 3 %: the
    mean of three is what is tested there.
    """
    early = np.mean([coverage(make, seed, (5, 20)) for seed in range(3)], axis=0)
    late = coverage(make, 0, (100, 300))
    assert all(0.88 <= share <= 0.96 for share in (*early, *late)), (early, late)


def test_forgetting_never_narrows_the_interval() -> None:
    rng = np.random.default_rng(8)
    outcomes = (rng.random(60) < 0.7).tolist()
    widths = []
    for forgetting in (1.0, 0.99, 0.95, 0.9):
        # The same misses at a steady pace, so that the means agree and only the strength of the evidence differs.
        posterior = ReliabilityPosterior(**FLAT, forgetting=forgetting, conditional=False)
        posterior = after(posterior, [t % 3 != 0 for t in range(len(outcomes))])
        low, high = posterior.credible_interval([0])
        widths.append(high[0] - low[0])
    assert widths == sorted(widths)
