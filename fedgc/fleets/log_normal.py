"""Log-normal completion times: delays that multiply, with a heavy tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from fedgc.fleets.base import Fleet
from fedgc.fleets.parameters import Parameter, Vector

#: Largest logarithm of a factor: as good as never, and a larger one would overflow.
_LARGEST = 600.0


class LogNormalFleet(Fleet):
    """Work takes ``load x median x exp(sigma Z)`` seconds with Z standard normal, drawn once per client and round.

    Examples
    --------
    >>> LogNormalFleet(2, seed=1, median=[1.0, 2.0], sigma=0.6).straggle_prob(deadline=2.0, load=1).round(4).tolist()
    [0.124, 0.5]
    """

    name: ClassVar[str] = "log-normal"
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        **Fleet.PARAMETERS,
        "median": Parameter(1.0),  # seconds per shard
        "sigma": Parameter(0.6),  # standard deviation of the logarithm
    }

    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        return 0.0, own["median"] * np.exp(np.minimum(own["sigma"] * ndtri(u), _LARGEST))

    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        # 0 work takes 0 seconds; sigma = 0 turns the quotient into +-inf, or 0/0 where time just suffices.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            z = np.log(seconds / (load * own["median"])) / own["sigma"]
        within: Vector = ndtr(np.where(np.isnan(z), np.inf, z))
        return within
