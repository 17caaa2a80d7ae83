"""The families by name, and how each of them sees a fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedgc.completion_times.base import FleetPrior, TimeFamily
from fedgc.completion_times.fleet import fit_fleet
from fedgc.completion_times.goodness_of_fit import mean_log_likelihood
from fedgc.completion_times.log_normal import LogNormalTimes
from fedgc.completion_times.sample import Sample
from fedgc.completion_times.shifted_exponential import ShiftedExponentialTimes
from fedgc.completion_times.weibull import WeibullTimes

#: Families by name.
FAMILIES: Mapping[str, TimeFamily] = {
    family.name: family for family in (LogNormalTimes(), ShiftedExponentialTimes(), WeibullTimes())
}
#: Until clients have been seen this often on average, the family to begin with is used.
_SEEN_OFTEN, _FIRST = 4.0, "log-normal"
#: The fleet is fitted by at most so many iterations if all observations are new, and by at least so many otherwise.
_MOST_ROUNDS, _FEWEST_ROUNDS = 60, 4


def fit_fleets(
    names: Sequence[str], sample: Sample, starts: Mapping[str, FleetPrior], *, slow_rounds: bool, new: float
) -> tuple[dict[str, FleetPrior], dict[str, float]]:
    """Return the fleet as each named family sees it, and the family's score: its mean log likelihood on it.

    `starts` are the priors so far, and `new` is the share of the observations that they have not seen.

    Notes
    -----
    The likelihood decides between families. All have two parameters per client and are shrunk alike, and it is
    averaged over the posterior, so that none has an advantage by flexibility, once clients have been seen a few times:
    of fewer, the least time of a shifted exponential follows the data most closely, and it would win whatever the fleet
    (and predict worse: on every preset). Until then there is one score only, of the log-normal.

    A family that makes use of slow rounds has two numbers more and pays log n / 2 for each, as in Schwarz's criterion;
    else slow rounds would lend one family the tail of another. A prequential score, of each round's predictions before
    it is seen, would need all clients' fits of every family in every round, and says little after a batch of rounds
    that came at once.
    """
    n_seen = sample.seen.owner.size
    candidates = names if n_seen >= _SEEN_OFTEN * sample.n_clients or _FIRST not in names else [_FIRST]
    max_rounds = int(np.clip(_MOST_ROUNDS * new, _FEWEST_ROUNDS, _MOST_ROUNDS))
    priors, scores = {}, {}
    for name in names:
        family = FAMILIES[name]
        priors[name] = fit_fleet(family, sample, starts.get(name), slow_rounds=slow_rounds, max_rounds=max_rounds)
        if name not in candidates:
            continue
        scores[name], n_observations = mean_log_likelihood(family, priors[name], sample)
        if len(priors[name].shifts) > 1:
            scores[name] -= float(np.log(n_observations)) / n_observations
    return priors, scores
