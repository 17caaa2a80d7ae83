"""Weibull seconds per shard: the hazard grows or falls with a power of time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedgc.completion_times.base import Estimate, FleetPrior, Nodes
from fedgc.completion_times.location_scale import LogLocationScale
from fedgc.completion_times.sample import Sample, Vector

#: e^50 is beyond any likelihood worth telling apart, and its square still a float.
_LARGEST = 50.0


class WeibullTimes(LogLocationScale):
    """Seconds per shard with ``P(X > x) = exp(-(x / scale)^shape)``, first = log scale and second = 1 / shape.

    Examples
    --------
    >>> WeibullTimes().cdf([1.0, 2.0], 0.0, 0.5).round(4).tolist()
    [0.6321, 0.9817]
    """

    name: ClassVar[str] = "weibull"

    def density_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log density of e and its first two derivatives."""
        hazard = np.exp(np.minimum(z, _LARGEST))
        return z - hazard, 1.0 - hazard, -hazard

    def survival_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log survival function of e and its first two derivatives."""
        hazard = np.exp(np.minimum(z, _LARGEST))
        return -hazard, -hazard, -hazard

    def standard_survival(self, z: Vector) -> Vector:
        """Return the survival function of e."""
        return np.exp(-np.exp(np.minimum(z, _LARGEST)))

    def standard_quantile(self, probability: Vector) -> Vector:
        """Return the quantile of e."""
        with np.errstate(divide="ignore"):
            return np.log(-np.log1p(-probability))

    def posterior(self, sample: Sample, prior: FleetPrior, estimate: Estimate) -> Nodes:
        """Return nine locations for each of three scales.

        Notes
        -----
        There is no closed form as for the normal. The locations are spaced by 0.8 of their uncertainty and weighted by
        its density: Gauss-Hermite's few nodes would leave steps in the distribution of a client that is hardly known.
        """
        variance, covariance, second = estimate.covariance.T[:, :, None, None]
        node, weight = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0
        along = 0.8 * np.arange(-4.0, 5.0)
        density = np.exp(-0.5 * along**2)
        offset = np.sqrt(second) * node[:, None]
        left = np.sqrt(np.maximum(variance - covariance**2 / second, 0.0))
        location = estimate.coordinates[:, :1, None] + covariance / second * offset + left * along
        scale = np.broadcast_to(np.exp(estimate.coordinates[:, 1:, None] + offset), location.shape)
        weights = weight[:, None] * density / density.sum()
        shape = (len(location), -1)
        return Nodes(
            location.reshape(shape), scale.reshape(shape), np.broadcast_to(weights, location.shape).reshape(shape)
        )
