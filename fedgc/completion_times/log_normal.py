"""Log-normal seconds per shard: delays that multiply."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from fedgc.completion_times.base import Estimate, FleetPrior, Nodes
from fedgc.completion_times.location_scale import LogLocationScale
from fedgc.completion_times.sample import Sample, Vector

_LOG_ROOT_TWO_PI = 0.5 * np.log(2.0 * np.pi)


class LogNormalTimes(LogLocationScale):
    """Seconds per shard with ``log x = first + second * e``, e standard normal.

    Examples
    --------
    >>> family = LogNormalTimes()
    >>> family.cdf([1.0, 2.0], 0.0, 0.5).round(4).tolist()
    [0.5, 0.9172]
    >>> family.quantile(0.5, 0.0, 0.5).tolist()
    1.0
    """

    name: ClassVar[str] = "log-normal"

    def density_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log density of e and its first two derivatives."""
        return -0.5 * z**2 - _LOG_ROOT_TWO_PI, -z, np.full_like(z, -1.0)

    def survival_terms(self, z: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log survival function of e and its first two derivatives."""
        value = log_ndtr(-z)
        hazard = np.exp(-0.5 * z**2 - _LOG_ROOT_TWO_PI - value)
        return value, -hazard, -hazard * (hazard - z)

    def standard_survival(self, z: Vector) -> Vector:
        """Return the survival function of e."""
        return np.asarray(ndtr(-z))

    def standard_quantile(self, probability: Vector) -> Vector:
        """Return the quantile of e."""
        return np.asarray(ndtri(probability))

    def posterior(self, sample: Sample, prior: FleetPrior, estimate: Estimate) -> Nodes:
        """Return three scales, each widened by what is uncertain about the location.

        Notes
        -----
        A normal location under a normal error is a normal of the summed variances, so only the scale needs nodes:
        Gauss-Hermite's three for the logarithm of the scale, with the location's conditional mean.
        """
        variance, covariance, second = estimate.covariance.T[:, :, None]
        node, weight = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0
        offset = np.sqrt(second) * node
        scale = np.exp(estimate.coordinates[:, 1:] + offset)
        location = estimate.coordinates[:, :1] + covariance / second * offset
        left = np.maximum(variance - covariance**2 / second, 0.0)
        return Nodes(location, np.sqrt(scale**2 + left), np.broadcast_to(weight, location.shape))
