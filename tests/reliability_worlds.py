"""Clients with known probabilities, for tests of what is learnt of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedgc.reliability import ReliabilityPosterior
from fedgc.reliability.clients import NEVER
from fedgc.reliability.counts import Counts

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


def without_shifts(posterior: ReliabilityPosterior) -> ReliabilityPosterior:
    """What the long memory says alone: no client is suspected to have shifted."""
    none = np.zeros_like(posterior.clients.shift)
    return replace(posterior, clients=replace(posterior.clients, shift=none))
