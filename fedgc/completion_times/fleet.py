"""The fleet: mean and spread of its clients' parameters, presence and slow rounds, by empirical Bayes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times.base import LEAST_SLOW, ODD_SHARE, Estimate, FleetPrior, Nodes, TimeFamily
from fedgc.completion_times.never_seen import mark_gone
from fedgc.completion_times.sample import Sample, Vector
from fedgc.short_rows import row_sums

#: Pseudo-clients behind mean and spread, and the spread that they have, for (typical time, relative spread).
_MEAN_CLIENTS = (0.1, 0.5)
_SPREAD_CLIENTS = (0.5, 4.0)
_SPREAD = (0.7, 0.2)
#: Pseudo-rounds of presence: usually there.
_PRESENT, _ABSENT = 2.0, 0.2
#: The presence of a client rests on at least and at most so many pseudo-rounds of the fleet.
_PRESENCE_ROUNDS = (1.0, 100.0)
#: Pseudo-rounds without a slow one, the share of slow ones at most, and their least factor.
_USUAL_ROUNDS, _MOST_SLOW, _LEAST_FACTOR, _LARGEST_FACTOR = 20.0, 0.4, 2.0, 1e4
#: Share of slow rounds to begin with.
_FIRST_SLOW = 0.02
#: Who seems to have gone is thought over every so many iterations.
_MARK_EVERY = 4
#: Enough once no parameter of the fleet moves more than this.
_TOLERANCE = 3e-3


def first_prior(sample: Sample, family: TimeFamily, *, slow_rounds: bool) -> FleetPrior:
    """Return the prior to begin with: the median time, or the longest silence if nothing else was seen."""
    seen, silent = sample.seen, sample.silent
    center = 0.0
    if seen.log_time.size:
        center = float(np.median(seen.log_time))
    elif silent.log_time.size:
        center = float(silent.log_time.max())
    count = seen.sum(seen.weight)
    mean = seen.sum(seen.weight * seen.log_time) / np.maximum(count, 1e-300)
    spread = float(np.std(mean[count > 0.0])) if (count > 0.0).any() else 0.0
    return FleetPrior(
        mean=(center, float(np.log(family.default_spread))),
        spread=(max(spread, _SPREAD[0]), 0.5),
        present=_PRESENT,
        absent=_ABSENT,
        slow_prob=_FIRST_SLOW if slow_rounds else 0.0,
    )


def fit_fleet(
    family: TimeFamily, sample: Sample, start: FleetPrior | None, *, slow_rounds: bool, max_rounds: int = 60
) -> FleetPrior:
    """Return the fleet that makes the sample likeliest, by expectation and maximisation.

    Parameters
    ----------
    family : TimeFamily
        The clients' family.
    sample : Sample
        What was seen of some clients.
    start : FleetPrior, optional
        The fleet so far; a few more observations then take a few iterations.
    slow_rounds : bool
        Whether rounds that take a multiple of the time are looked for.
    max_rounds : int
        Number of iterations at most; 60 from scratch, fewer suffice after few new observations.

    Notes
    -----
    Mean and variance over clients are those of the clients' posterior means, plus their mean posterior variance, plus
    a few pseudo-clients that keep them finite. Moments over clients with enough data, the alternative, have to say what
    is enough, and leave a fleet unlearnt in which everyone has been seen twice. The share of slow rounds and their
    factor belong to the fleet, since one client shows too few.
    """
    center = first_prior(sample, family, slow_rounds=slow_rounds)
    prior, estimate = start or center, None
    if slow_rounds and prior.slow_prob < LEAST_SLOW:
        # Slow rounds that were ruled out may begin one day.
        prior = replace(prior, slow_prob=LEAST_SLOW, slow_factor=center.slow_factor)
    for k in range(max_rounds):
        steps = 8 if estimate is None else 1
        if k % _MARK_EVERY == 0:
            sample = mark_gone(family, sample, prior)
        estimate = family.estimate(sample, prior, start=estimate, max_steps=steps, find_slow=True)
        last, prior = prior, _maximise(prior, center, sample, estimate)
        if _distance(last, prior) < _TOLERANCE:
            break
    return prior


def _maximise(prior: FleetPrior, center: FleetPrior, sample: Sample, estimate: Estimate) -> FleetPrior:
    rounds = sample.seen.sum(sample.seen.weight) + sample.silent.sum(sample.silent.weight)
    used = rounds > 0.0
    n_used = float(used.sum())
    if not n_used:
        return prior
    mean, spread = [], []
    usual = prior.location(estimate.coordinates[used, 0]).usual, np.ones(int(n_used))
    for i, variance in enumerate((estimate.covariance[used, 0], estimate.covariance[used, 2])):
        value, count = estimate.coordinates[used, i], float(usual[i].sum())
        middle = (usual[i] @ value + _MEAN_CLIENTS[i] * center.mean[i]) / (count + _MEAN_CLIENTS[i])
        # The wait for a client that was never seen says little: its variance is the prior's, no more.
        squares = usual[i] @ ((value - middle) ** 2 + np.minimum(variance, prior.spread[i] ** 2))
        scatter = (squares + _SPREAD_CLIENTS[i] * _SPREAD[i] ** 2) / (count + _SPREAD_CLIENTS[i])
        mean.append(float(np.clip(middle, *_range(sample)) if i == 0 else middle))
        # A new client is uncertain about the fleet's mean as well.
        spread.append(float(np.clip(np.sqrt(scatter * (1.0 + 1.0 / n_used)), 0.02, 50.0)))
    present, absent = presence_prior(estimate.present_weight[used], rounds[used], sample.gone[used])
    total = float(estimate.present_weight[used].sum())
    slow, factor = prior.slow_prob, prior.slow_factor
    if slow > 0.0:
        slow = float(np.clip((estimate.slow_weight + 0.02) / (total + _USUAL_ROUNDS), 1e-6, _MOST_SLOW))
        factor = float(np.clip(factor * np.exp(estimate.log_factor_step), _LEAST_FACTOR, _LARGEST_FACTOR))
    return replace(
        prior,
        mean=(mean[0], mean[1]),
        spread=(spread[0], spread[1]),
        present=present,
        absent=absent,
        slow_prob=slow,
        slow_factor=factor,
    )


def _range(sample: Sample) -> tuple[float, float]:
    """Return bounds of the fleet's log time: where nobody answers, the likeliest fleet would take for ever."""
    waits = [part.log_time for part in (sample.seen, sample.silent) if part.log_time.size]
    return float(min(wait.min() for wait in waits)) - 1.0, float(max(wait.max() for wait in waits)) + 1.0


def presence_prior(present: Vector, rounds: Vector, gone: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the Beta prior of presence by moments over clients, with a pseudo-client.

    As many clients that have gone as a fleet may have are left out; more of them are part of what it is like.
    """
    left_out = max(1.0, ODD_SHARE * gone.size) / max(float(gone.sum()), 1.0)
    counts = np.where(gone, max(1.0 - left_out, 0.0), 1.0)
    n_clients, present, rounds = float(counts.sum()), present[counts > 0.0], rounds[counts > 0.0]
    if not n_clients:
        return _PRESENT, _ABSENT
    present, rounds = (counts[counts > 0.0] * part for part in (present, rounds))
    mean = float((present.sum() + _PRESENT) / (rounds.sum() + _PRESENT + _ABSENT))
    # Kleinman, J. Am. Stat. Assoc. 68(341), 1973: the weighted variance of shares, less what chance explains.
    share, total = present / rounds, rounds.sum()
    variance = float(rounds @ (share - mean) ** 2 / total)
    chance = mean * (1.0 - mean) * n_clients / total
    beyond = mean * (1.0 - mean) * (1.0 - n_clients / total)
    correlation = (variance - chance) / beyond if beyond > 1e-12 else 0.0
    low, high = _PRESENCE_ROUNDS
    pseudo = float(np.clip(1.0 / max(correlation, 1.0 / (high + 1.0)) - 1.0, low, high))
    # One client, or clients seen once, cannot tell how alike clients are.
    pseudo = min(pseudo, max(n_clients, 2.0))
    return pseudo * mean, pseudo * (1.0 - mean)


def _distance(one: FleetPrior, other: FleetPrior) -> float:
    def numbers(prior: FleetPrior) -> Vector:
        presence = prior.present / (prior.present + prior.absent)
        slow = [prior.slow_prob, np.log(prior.slow_factor) * min(20.0 * prior.slow_prob, 1.0)]
        return np.array([*prior.mean, *np.log(prior.spread), presence, *slow])

    return float(np.abs(numbers(one) - numbers(other)).max())


def mixture_survival(family: TimeFamily, nodes: Nodes, prior: FleetPrior, x: Vector) -> Vector:
    """Return P(X > x) of each client, averaged over its nodes and over usual and slow rounds, (n_clients,)."""
    longer = np.zeros(x.shape)
    for log_prob, log_factor in prior.shifts:
        at = np.exp(-log_factor) * x[:, None]
        share = np.exp(log_prob)
        longer += share * row_sums(nodes.weight * family.survival(at, nodes.first, nodes.second))
    return np.clip(longer, 0.0, 1.0)


def mixture_log_density(family: TimeFamily, nodes: Nodes, prior: FleetPrior, x: Vector) -> Vector:
    """Return the log density at x of each client, averaged as in :func:`mixture_survival`."""
    total = np.full(x.shape, -np.inf)
    with np.errstate(divide="ignore"):
        log_weight = np.log(nodes.weight)
    for log_prob, log_factor in prior.shifts:
        at = np.exp(-log_factor) * x[:, None]
        terms = log_weight + family.log_density(at, nodes.first, nodes.second) + log_prob - log_factor
        total = np.logaddexp(total, np.logaddexp.reduce(terms, axis=1))
    return total
