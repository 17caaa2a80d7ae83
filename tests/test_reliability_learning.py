"""What the posterior is made of: discounted counts, the fleet prior, persistence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import betabinom

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.counts import AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN, Counts, effective
from fedgc.reliability.fleet_prior import BetaPrior, fit_beta_prior
from fedgc.reliability.persistence import Borrowing, evidence, log_odds_ratio, transition_pairs
from fedgc.scoring import log_score

#: A posterior whose learnt parts are still: fixed prior, one model.
from tests.reliability_worlds import (
    alike,
    histories,
    one_odds_ratio,
    paper,
    persistent,
    persistent_alike,
    uniform,
)

# --- counts ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=30), forgetting=st.floats(0.5, 1.0))
def test_counts_are_the_discounted_sums(outcomes: list[bool], forgetting: float) -> None:
    missed = np.array(outcomes, dtype=float)
    counts = histories(missed[None], forgetting)
    weight = forgetting ** np.arange(missed.size)[::-1]
    previous = np.concatenate([[-1.0], missed[:-1]])
    for column, value in ((AFTER_ARRIVAL, 0.0), (AFTER_MISS, 1.0), (AFTER_UNKNOWN, -1.0)):
        here = weight * (previous == value)
        assert counts.rounds[0, column] == pytest.approx(here.sum(), rel=1e-12)
        assert counts.squares[0, column] == pytest.approx((here**2).sum(), rel=1e-12)
        assert counts.misses[0, column] == pytest.approx(here @ missed, rel=1e-12)
    triples = (missed[2:] == missed[:-2]) & (missed[1:-1] != missed[2:])
    assert counts.alternations[0] == pytest.approx((weight[2:] * weight[1:-1])[triples].sum(), rel=1e-12)


def test_evidence_is_worth_what_the_variance_of_a_discounted_mean_says() -> None:
    """Enumerated: the variance of the discounted mean of T outcomes equals p (1 - p) / n."""
    p, f, rounds = 0.3, 0.8, 8
    outcomes = (np.arange(2**rounds)[:, None] >> np.arange(rounds)) & 1
    probability = np.prod(np.where(outcomes == 1, p, 1 - p), axis=1)
    counts = histories(outcomes.astype(float), f)
    mean = counts.misses.sum(axis=1) / counts.rounds.sum(axis=1)
    variance = probability @ mean**2 - (probability @ mean) ** 2
    n, k = effective(counts.rounds.sum(axis=1), counts.squares.sum(axis=1), counts.misses.sum(axis=1))
    np.testing.assert_allclose(n, p * (1 - p) / variance, rtol=1e-12)
    np.testing.assert_allclose(k / n, mean, atol=1e-12)


def test_ages_of_forgetting_do_not_spoil_the_counts() -> None:
    """Rounds after a miss lie 10,000 rounds back, where their squared weights underflow."""
    counts = histories(np.array([[1.0, 1.0] + [0.0] * 10_000]), 0.9)
    assert counts.rounds[0, AFTER_MISS] == counts.squares[0, AFTER_MISS] == counts.misses[0, AFTER_MISS] == 0.0
    assert counts.rounds[0, AFTER_ARRIVAL] == pytest.approx(10.0)


# --- fleet prior ----------------------------------------------------------------------------------------------------


def marginal(point: np.ndarray, n: np.ndarray, k: np.ndarray) -> float:
    """The regularised marginal likelihood with scipy's Beta-binomial, negative, over log b and log a."""
    b, a = np.exp(point)
    penalty = (np.log(b / a) ** 2 + np.log((a + b) / 7.0) ** 2) / (2 * 1.5**2)
    return float(penalty - betabinom.logpmf(k, n, b, a).sum())


@pytest.mark.parametrize(("b", "a", "clients", "rounds"), [(2.0, 5.0, 200, 20), (0.5, 0.5, 40, 9), (9.0, 81.0, 300, 4)])
def test_the_fleet_prior_is_the_maximum_of_the_marginal_likelihood(
    b: float, a: float, clients: int, rounds: int
) -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, rounds + 1, clients)
    k = rng.binomial(n, rng.beta(b, a, clients))
    found = fit_beta_prior(n.astype(float), k.astype(float))
    oracle = minimize(marginal, np.zeros(2), (n, k), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10}).x
    # L-BFGS-B stops at a relative change of 2e-9 of a loss of some hundred nats.
    np.testing.assert_allclose([found.misses, found.arrivals], np.exp(oracle), rtol=2e-3)
    assert marginal(np.log([found.misses, found.arrivals]), n, k) <= marginal(oracle, n, k) + 1e-5


def test_small_fleets_get_a_weak_prior() -> None:
    assert fit_beta_prior(np.zeros(3), np.zeros(3)) == BetaPrior(3.5, 3.5, doubt=1.5)
    assert fit_beta_prior(np.zeros(0), np.zeros(0), likely_mean=0.2).mean == pytest.approx(0.2)
    for k in (0.0, 3.0):
        one = fit_beta_prior(np.array([3.0]), np.array([k]))
        assert 0.2 < one.mean < 0.8
        assert 4.0 < one.strength < 10.0
        assert 2.0 <= one.cautious_strength < one.strength


def test_one_round_each_says_nothing_about_the_strength() -> None:
    k = (np.arange(900) < 300).astype(float)
    prior = fit_beta_prior(np.ones(900), k)
    assert prior.mean == pytest.approx(1 / 3, abs=0.01)
    assert prior.strength == pytest.approx(7.0, rel=1e-3)
    assert prior.doubt == pytest.approx(1.5, rel=1e-2)


def test_what_has_not_been_seen_after_an_outcome_is_thought_to_be_like_the_rest() -> None:
    """After one round nothing has followed any outcome: all models say what the unconditional one says."""
    arrived = {node: node % 10 == 0 for node in range(200)}
    both = [ReliabilityPosterior(conditional=conditional).update(arrived) for conditional in (True, False)]
    told = [posterior.straggle_prob(range(200)) for posterior in both]
    np.testing.assert_allclose(told[0], told[1], rtol=1e-3)
    assert told[0].mean() == pytest.approx(0.9, abs=0.02)


def test_a_fleet_of_like_clients_gets_a_strong_prior() -> None:
    prior = fit_beta_prior(np.full(100, 50.0), np.full(100, 5.0))
    assert prior.mean == pytest.approx(0.1, abs=0.01)
    assert prior.strength > 300


def test_large_fleets_are_represented_by_a_part_of_them() -> None:
    rng = np.random.default_rng(1)
    n = np.full(20_000, 30.0)
    k = rng.binomial(30, rng.beta(3.0, 9.0, n.size)).astype(float)
    prior = fit_beta_prior(n, k)
    assert prior == fit_beta_prior(n, k)
    # z = 4: the doubt for the strength; for the mean sqrt(p q / 13 + p q / 30) per client.
    assert abs(np.log(prior.strength / 12.0)) < 4 * prior.doubt
    assert prior.mean == pytest.approx(0.25, abs=4 * np.sqrt(0.1875 * (1 / 13 + 1 / 30) / 1000))


# --- persistence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgetting", [1.0, 0.8])
@pytest.mark.parametrize("rounds", [3, 4, 7, 10])
def test_histories_without_persistence_balance_whatever_their_length(rounds: int, forgetting: float) -> None:
    """Enumerated over all outcomes, for exchangeable clients: a mixture of two probabilities."""
    outcomes = (np.arange(2**rounds)[:, None] >> np.arange(rounds)) & 1
    probability = 0.5 * sum(np.prod(np.where(outcomes == 1, p, 1 - p), axis=1) for p in (0.1, 0.6))
    counts = histories(outcomes.astype(float), forgetting)
    same, turns = transition_pairs(counts)
    assert probability @ same == pytest.approx(probability @ turns, abs=1e-14)
    # Without the correction it would not.
    assert probability @ (turns + counts.alternations) > 1.05 * (probability @ same)


def test_the_odds_ratio_is_found_in_spite_of_unlike_clients() -> None:
    rng = np.random.default_rng(2)
    for make, truth in ((one_odds_ratio, 2.0), (uniform, 0.0)):
        world = make(rng, 4000)
        counts = histories(np.array([list(world.step().values()) for _ in range(40)]).T == 0, 1.0)
        # Oracle for the spread: the estimates of 20 parts of the fleet; z = 4.
        parts = [log_odds_ratio(counts.take(np.arange(i, 4000, 20))) for i in range(20)]
        assert log_odds_ratio(counts) == pytest.approx(truth, abs=4 * np.std(parts) / np.sqrt(20) + 0.05)


def test_little_data_says_little_about_persistence() -> None:
    assert log_odds_ratio(Counts.empty(3)) == 0.0
    assert abs(log_odds_ratio(histories(np.array([[1.0, 1.0, 0.0, 0.0]]), 1.0))) < 0.5
    always = histories(np.ones((50, 50)), 1.0)
    assert log_odds_ratio(always) == 0.0
    sessions = histories(np.tile(np.repeat([0.0, 1.0], 20), (10_000, 1)), 1.0)
    assert log_odds_ratio(sessions) == 6.0


def test_full_borrowing_without_a_shift_is_unconditional() -> None:
    rng = np.random.default_rng(3)
    counts = histories((rng.random((30, 12)) < 0.4).astype(float), 0.9)
    outcome = rng.integers(0, 2, 30)
    priors = (BetaPrior(1.0, 8.0), BetaPrior(4.0, 2.0), BetaPrior(2.0, 5.0))
    whole = counts.rounds.sum(axis=1), counts.squares.sum(axis=1), counts.misses.sum(axis=1)
    for model, theta in ((Borrowing(1.0, shifted=False, prior_weight=1.0), 3.0), (Borrowing(1.0, True, 1.0), 0.0)):
        for found, expected in zip(evidence(counts, outcome, model, theta, priors), whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_borrowed_misses_move_with_the_odds_ratio() -> None:
    counts = Counts(
        np.array([[10.0, 0.0, 0.0]]), np.array([[10.0, 0.0, 0.0]]), np.array([[2.0, 0.0, 0.0]]), np.zeros(1)
    )
    prior = BetaPrior(1e-9, 4e-9)
    model = Borrowing(0.3, shifted=True, prior_weight=1.0)
    rounds, squares, misses = evidence(counts, np.array([AFTER_MISS]), model, np.log(4.0), (prior, prior, prior))
    # Odds 1 : 4 times 4 are odds 1 : 1.
    assert (rounds[0], squares[0], misses[0]) == pytest.approx((3.0, 3.0, 1.5))
    n, k = effective(rounds, squares, misses)
    assert (n[0], k[0]) == pytest.approx((3.0, 1.5))
    _, _, none = evidence(counts, np.array([AFTER_ARRIVAL]), replace(model, weight=0.0), 2.0, (prior, prior, prior))
    assert none[0] == pytest.approx(2.0)


def test_the_conditional_model_wins_where_stragglers_persist_and_costs_next_to_nothing_elsewhere() -> None:
    for seed, (make, n) in enumerate(
        [
            *((persistent, 200), (persistent_alike, 200), (one_odds_ratio, 200), (persistent_alike, 20)),
            *((uniform, 200), (paper, 200), (alike, 200), (uniform, 20)),
        ]
    ):
        both = []
        for conditional in (True, False):
            world = make(np.random.default_rng(seed), n)
            posterior = ReliabilityPosterior(conditional=conditional)
            told, missed = [], []
            for _ in range(50):
                told.append(posterior.straggle_prob(range(n)))
                posterior = posterior.update(world.step())
                missed.append(world.last)
            both.append(log_score(np.concatenate(told), np.concatenate(missed)))
        conditional_score, unconditional_score = both
        if (world.after_arrival != world.after_miss).any():
            assert conditional_score > 0.97 * unconditional_score, make
        else:
            assert conditional_score > 1.01 * unconditional_score, make
