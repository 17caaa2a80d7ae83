"""What a run learns about its clients: who misses the next deadline, and how sure that is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import beta, betabinom

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.change import ALARM, cusum
from fedgc.reliability.clients import NEVER
from fedgc.reliability.counts import AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN, Counts, effective
from fedgc.reliability.fleet_prior import BetaPrior, fit_beta_prior
from fedgc.reliability.persistence import Borrowing, evidence, log_odds_ratio, transition_pairs
from fedgc.scoring import log_score

FLAT = {"prior_arrivals": 1.0, "prior_misses": 1.0}
#: A posterior whose learnt parts are still: fixed prior, one model.
PLAIN = ReliabilityPosterior(**FLAT, conditional=False)


class World:
    """Clients with probability p_a to miss after an arrival and p_m after a miss, started in equilibrium."""

    def __init__(self, after_arrival: np.ndarray, after_miss: np.ndarray, rng: np.random.Generator) -> None:
        self.after_arrival, self.after_miss, self.rng = after_arrival, after_miss, rng
        self.n = after_arrival.size
        self.last = rng.random(self.n) < after_arrival / (after_arrival + 1.0 - after_miss)

    @property
    def straggle_prob(self) -> np.ndarray:
        return np.where(self.last, self.after_miss, self.after_arrival)

    def step(self) -> dict[int, bool | float]:
        self.last = self.rng.random(self.n) < self.straggle_prob
        return dict(enumerate((~self.last).tolist()))


def uniform(rng: np.random.Generator, n: int) -> World:
    p = rng.uniform(0.05, 0.5, n)
    return World(p, p, rng)


def paper(rng: np.random.Generator, n: int) -> World:
    p = np.exp(-0.5 * rng.uniform(0.1, 2.0, n))
    return World(p, p, rng)


def alike(rng: np.random.Generator, n: int) -> World:
    return World(np.full(n, 0.1), np.full(n, 0.1), rng)


def persistent(rng: np.random.Generator, n: int) -> World:
    return World(rng.uniform(0.02, 0.2, n), rng.uniform(0.3, 0.95, n), rng)


def persistent_alike(rng: np.random.Generator, n: int) -> World:
    return World(np.full(n, 0.1), np.full(n, 0.6), rng)


def one_odds_ratio(rng: np.random.Generator, n: int) -> World:
    p = rng.uniform(0.02, 0.2, n)
    odds = np.exp(2.0) * p / (1.0 - p)
    return World(p, odds / (1.0 + odds), rng)


def long_sessions(rng: np.random.Generator, n: int) -> World:
    return World(np.full(n, 0.05), np.full(n, 0.95), rng)


def histories(outcomes: np.ndarray, forgetting: float) -> Counts:
    """The counts of clients with these outcomes, shape (n_clients, n_rounds), 1 for a miss."""
    n, rounds = outcomes.shape
    counts, never = Counts.empty(n), np.full(n, NEVER)
    columns = [never, never, *outcomes.T]
    for t in range(rounds):
        counts = counts.observe(columns[t + 1], columns[t], columns[t + 2], forgetting)
    return counts


def after(posterior: ReliabilityPosterior, outcomes: Sequence[bool | float], node: int = 0) -> ReliabilityPosterior:
    for came in outcomes:
        posterior = posterior.update({node: came})
    return posterior


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
    penalty = (np.log(b / a) ** 2 + np.log((a + b) / 2.0) ** 2) / (2 * 1.5**2)
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


def test_small_fleets_get_a_prior_near_the_uniform_one() -> None:
    assert fit_beta_prior(np.zeros(3), np.zeros(3)) == BetaPrior(1.0, 1.0)
    for k in (0.0, 3.0):
        one = fit_beta_prior(np.array([3.0]), np.array([k]))
        assert 0.25 < one.mean < 0.75
        assert 1.0 < one.strength < 4.0


def test_one_round_each_says_nothing_about_the_strength() -> None:
    k = (np.arange(900) < 300).astype(float)
    prior = fit_beta_prior(np.ones(900), k)
    assert prior.mean == pytest.approx(1 / 3, abs=0.01)
    assert prior.strength == pytest.approx(2.0, rel=1e-3)
    assert prior.doubt == pytest.approx(1.5, rel=1e-2)


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


# --- posterior ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=6), forgetting=st.floats(0.5, 1.0))
def test_posterior_is_the_closed_form_with_forgetting(outcomes: list[bool], forgetting: float) -> None:
    posterior = after(ReliabilityPosterior(2.0, 3.0, forgetting, conditional=False), outcomes, node=5)
    if posterior.clients.resets.any():
        return
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
    # False alarms, which cost a client its past, are expected for a fifth of the clients.
    steady = np.flatnonzero(posterior.clients.resets == 0)
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
    posterior = after(replace(PLAIN, forgetting=1.0), [True, 0.75, False])
    assert posterior.straggle_prob([0])[0] == pytest.approx((1.0 + 0.25 + 1.0) / (2.0 + 3.0), rel=1e-12)


def test_after_an_unseen_outcome_both_states_are_mixed() -> None:
    rng = np.random.default_rng(6)
    world, posterior = persistent_alike(rng, 300), ReliabilityPosterior()
    for _ in range(40):
        posterior = posterior.update(world.step())
    table = posterior.clients
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


# --- changes --------------------------------------------------------------------------------------------------------


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


# --- storage, summaries, input --------------------------------------------------------------------------------------


@cache
def some_posterior(**options: Any) -> ReliabilityPosterior:
    rng = np.random.default_rng(12)
    posterior = ReliabilityPosterior(**options)
    for t in range(60):
        asked = rng.choice(12, 9, replace=False)
        arrived = {2**63 + int(i): bool(rng.random() < (0.99 if t < 45 or i % 3 else 0.01)) for i in asked}
        posterior = posterior.update(arrived | {7: 0.25 + 0.5 * (t % 2)})
    return posterior


@pytest.mark.parametrize("options", [{}, FLAT, {"conditional": False, "forgetting": 0.9}])
def test_the_round_trip_through_json_is_exact(options: dict[str, Any]) -> None:
    posterior = some_posterior(**options)
    # With a weak prior after a miss, a client that starts to miss is predicted at once: nothing need be reset.
    assert posterior.clients.resets.any() or options == FLAT
    again = ReliabilityPosterior.from_data(json.loads(json.dumps(posterior.to_data(), allow_nan=False)))
    assert again.to_data() == posterior.to_data()
    nodes = [*posterior.clients.index, 99]
    arrived = dict.fromkeys(nodes, False)
    for one, other in ((again, posterior), (again.update(arrived), posterior.update(arrived))):
        np.testing.assert_array_equal(one.straggle_prob(nodes), other.straggle_prob(nodes))
        assert one.describe(nodes) == other.describe(nodes)
        assert one.to_data() == other.to_data()
    start = ReliabilityPosterior(**options)
    assert ReliabilityPosterior.from_data(start.to_data()).to_data() == start.to_data()


def put(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        data = data[key]
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("more", 1, r"^data must have no key but format, .*; got 'more'$"),
        ("clients.more", 1, r"^clients must have no key but node_ids, .*; got 'more'$"),
        ("format", "other", r"^format must be 'fedgc-reliability-1'; got 'other'$"),
        ("forgetting", 0.0, r"^forgetting must lie in \(0, 1\]; got 0.0$"),
        ("forgetting", None, r"^forgetting must lie in \(0, 1\]; got None$"),
        ("conditional", 1, r"^conditional must be True or False; got 1$"),
        ("prior_misses", 1.0, r"^prior_arrivals and prior_misses must be given together; got None and 1.0$"),
        ("clients", [], r"^clients must be a mapping; got list$"),
        ("clients.node_ids", [1, 2], r"^last must have shape \(2,\); got shape \(13,\)$"),
        ("clients.node_ids", [1] * 13, r"^node_ids must be distinct; got 13 of which 1 differ$"),
        ("clients.node_ids", [1.5] * 13, r"^node_ids must be a list of integers$"),
        ("clients.node_ids", [True] * 13, r"^node_ids must be a list of integers$"),
        ("clients.last", [0.5] * 12, r"^last must have shape \(13,\); got shape \(12,\)$"),
        ("clients.last", [-0.5] * 13, r"^last must hold probabilities, or -1 for none; got -0.5$"),
        ("clients.before", [1.5] * 13, r"^before must be finite and lie in \[-1, 1\]; got 1.5$"),
        ("clients.score", [np.nan] * 13, r"^score must be finite and lie in \[0, inf\]; got nan$"),
        ("clients.score", ["1"] * 13, r"^score must be a list of numbers$"),
        ("clients.score", [[1.0], 2.0], r"^score must be a list of numbers$"),
        ("clients.score", None, r"^score must be a list of numbers$"),
        ("clients.rounds", [0.5] * 13, r"^rounds must be a list of integers from 0 to 2\^53$"),
        ("clients.resets", [-1] * 13, r"^resets must be finite and lie in \[0, inf\]; got -1$"),
        ("clients.slow.rounds", [[-1.0] * 3] * 13, r"^slow rounds must be finite and lie in \[0, inf\]; got -1$"),
        ("clients.slow.misses", [[99.0] * 3] * 13, r"^slow misses must be at most slow rounds$"),
        ("clients.fast.squares", [[99.0] * 3] * 13, r"^fast squares must be at most fast rounds$"),
        ("clients.fast.alternations", [np.inf] * 13, r"^fast alternations must be finite and lie in .*; got inf$"),
        ("fleet.log_scores", [0.0], r"^log_scores must have shape \(\d,\); got shape \(1,\)$"),
        ("fleet.priors", [[0.0, 1.0, 0.0]] * 3, r"^priors must have pseudo-counts above 0; got 0$"),
        ("fleet.updates", -1, r"^updates must be an integer of at least 0; got -1$"),
        ("fleet.fitted_at", 1000, r"^fitted_at must be an integer from 0 to 60; got 1000$"),
    ],
)
def test_stored_data_that_is_off_is_refused(path: str, value: Any, message: str) -> None:
    data = copy.deepcopy(some_posterior().to_data())
    put(data, path, value)
    with pytest.raises(ValueError, match=message):
        ReliabilityPosterior.from_data(data)


@pytest.mark.parametrize("path", ["forgetting", "clients.slow", "clients.slow.rounds", "fleet.priors"])
def test_missing_keys_are_refused(path: str) -> None:
    data = copy.deepcopy(some_posterior().to_data())
    *parents, last = path.split(".")
    holder = data
    for key in parents:
        holder = holder[key]
    del holder[last]
    with pytest.raises(ValueError, match=rf"must have the key '{last}'"):
        ReliabilityPosterior.from_data(data)


def test_summaries_say_what_happened() -> None:
    posterior = after(after(ReliabilityPosterior(), [True, False], node=1), [0.5], node=2).update({3: True})
    summaries = posterior.describe([1, 2, 3, 4])
    assert [summary.node_id for summary in summaries] == [1, 2, 3, 4]
    assert [summary.rounds for summary in summaries] == [2, 1, 1, 0]
    assert [summary.last_outcome for summary in summaries] == ["missed", "unseen", "arrived", "none"]
    assert [summary.changed_at for summary in summaries] == [None] * 4
    assert [summary.straggle_prob for summary in summaries] == posterior.straggle_prob([1, 2, 3, 4]).tolist()
    low, high = posterior.credible_interval([1, 2, 3, 4], 0.9)
    assert [(summary.low, summary.high) for summary in summaries] == list(zip(low.tolist(), high.tolist(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forgetting": 0.0}, r"forgetting must lie in \(0, 1\]; got 0.0"),
        ({"forgetting": 1.1}, r"forgetting must lie in \(0, 1\]; got 1.1"),
        ({"forgetting": np.nan}, r"forgetting must lie in \(0, 1\]; got nan"),
        ({"prior_misses": 1.0}, r"prior_arrivals and prior_misses must be given together; got None and 1.0"),
        ({"prior_arrivals": 0.0, "prior_misses": 1.0}, r"prior_arrivals must be a finite number above 0; got 0.0"),
        ({"conditional": "yes"}, r"conditional must be True or False; got 'yes'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReliabilityPosterior(**options)


@pytest.mark.parametrize(
    ("arrived", "message"),
    [
        ({1: True, 2: 1.5}, r"arrived must lie in \[0, 1\]; got 1.5 for node 2"),
        ({1: True, 2: np.nan}, r"arrived must lie in \[0, 1\]; got nan for node 2"),
        ({1: True, 2: None}, r"arrived must be True, False or a probability; got None for node 2"),
        ({1: True, 2: "0.5"}, r"arrived must be True, False or a probability; got '0.5' for node 2"),
        ({1: True, "2": True}, r"node_ids must be integers; got '2'"),
        ({5: True, False: True}, r"node_ids must be integers; got False"),
    ],
)
def test_bad_outcomes_are_refused_and_change_nothing(arrived: Any, message: str) -> None:
    posterior = after(ReliabilityPosterior(), [True, False], node=1)
    before = json.dumps(posterior.to_data())
    with pytest.raises(ValueError, match=message):
        posterior.update(arrived)
    assert json.dumps(posterior.to_data()) == before


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, np.nan, True, "0.9"])
def test_levels_lie_between_zero_and_one(level: Any) -> None:
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        PLAIN.credible_interval([1], level)


def test_numpy_types_are_welcome() -> None:
    ids = np.array([3, 4])
    posterior = PLAIN.update(dict(zip(ids, np.array([True, False]), strict=True)))
    assert posterior.straggle_prob(ids).round(3).tolist() == [0.333, 0.667]
    assert posterior.straggle_prob([3, 3, 4]).round(3).tolist() == [0.333, 0.333, 0.667]
    assert posterior.straggle_prob([]).shape == (0,)
    json.dumps(posterior.to_data())
