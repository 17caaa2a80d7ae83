"""How well a family of completion times describes what was seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedgc.completion_times.base import Estimate, FleetPrior, Nodes, TimeFamily
from fedgc.completion_times.fleet import mixture_log_density, mixture_survival
from fedgc.completion_times.never_seen import mark_gone
from fedgc.completion_times.sample import Sample, Vector


@dataclass(frozen=True)
class GoodnessOfFit:
    """How well one family describes what was seen.

    Attributes
    ----------
    family : str
        The family's name.
    mean_log_likelihood : float
        Mean over observations of the log density of the seconds per shard, or of the log probability of the silence.
    ks_distance : float
        Largest distance between the Kaplan-Meier distribution of ``presence * P(X <= x)`` at what was seen and the
        uniform distribution, over the range in which something was seen; 0 without observations.
    n_observations : int
        Number of observations that were used.
    """

    family: str
    mean_log_likelihood: float
    ks_distance: float
    n_observations: int


def log_scores(
    family: TimeFamily, prior: FleetPrior, sample: Sample, estimate: Estimate, nodes: Nodes
) -> tuple[Vector, Vector]:
    """Return the log likelihood of every entry seen and of every silent one."""
    seen, silent = sample.seen, sample.silent
    presence = estimate.presence
    arrived = mixture_log_density(family, nodes.take(seen.owner), prior, np.exp(seen.log_time))
    longer = mixture_survival(family, nodes.take(silent.owner), prior, np.exp(silent.log_time))
    quiet = silent.log_silence(presence, longer)
    quiet += np.where(silent.there, np.log(presence[silent.owner]), 0.0)
    return arrived + np.log(presence[seen.owner]), quiet


def mean_log_likelihood(family: TimeFamily, prior: FleetPrior, sample: Sample) -> tuple[float, int]:
    """Return what :func:`goodness_of_fit` says of the likelihood, without the distance, and how much was observed."""
    n_observations = sample.seen.owner.size + sample.silent.owner.size
    if n_observations == 0:
        return 0.0, 0
    return _mean(family, prior, *_fitted(family, prior, sample)), n_observations


def goodness_of_fit(family: TimeFamily, prior: FleetPrior, sample: Sample) -> GoodnessOfFit:
    """Return how well `family` describes the sample, every client with its own fit.

    Notes
    -----
    With the client absent, or slower than anyone waits for, ``presence * P(X <= x)`` is censored at the value that it
    has when the wait ends; under the model it is uniform below. The likelihood is averaged over each client's
    posterior, since at a single estimate the shifted exponential would be flattered: its least time follows the data
    as closely as they let it.
    """
    n_seen, n_silent = sample.seen.owner.size, sample.silent.owner.size
    if n_seen + n_silent == 0:
        return GoodnessOfFit(family.name, 0.0, 0.0, 0)
    sample, estimate, nodes = fitted = _fitted(family, prior, sample)
    mean = _mean(family, prior, *fitted)
    distance = 0.0
    if n_seen:
        from scipy import stats  # noqa: PLC0415 - takes half a second, and fits do without

        transforms = [
            estimate.presence[part.owner]
            * (1.0 - mixture_survival(family, nodes.take(part.owner), prior, np.exp(part.log_time)))
            for part in (sample.seen, sample.silent)
        ]
        cdf = stats.ecdf(stats.CensoredData(uncensored=transforms[0], right=transforms[1])).cdf
        within = cdf.quantiles <= transforms[0].max()
        at, after = cdf.quantiles[within], cdf.probabilities[within]
        before = np.concatenate([[0.0], after[:-1]])
        distance = float(max(np.abs(after - at).max(), np.abs(before - at).max()))
    return GoodnessOfFit(family.name, mean, distance, n_seen + n_silent)


def _fitted(family: TimeFamily, prior: FleetPrior, sample: Sample) -> tuple[Sample, Estimate, Nodes]:
    """Return the sample with those marked that have gone, and every client's own fit."""
    sample = mark_gone(family, sample, prior)
    estimate = family.estimate(sample, prior)
    return sample, estimate, family.posterior(sample, prior, estimate)


def _mean(family: TimeFamily, prior: FleetPrior, sample: Sample, estimate: Estimate, nodes: Nodes) -> float:
    arrived, quiet = log_scores(family, prior, sample, estimate, nodes)
    return float((arrived.sum() + quiet.sum()) / (arrived.size + quiet.size))
