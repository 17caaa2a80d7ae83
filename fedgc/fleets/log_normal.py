"""Log-normal completion times: delays that multiply, with a heavy tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy.special import ndtr

from fedgc.fleets.base import Fleet, Parameter, Vector


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

    def _draw_work(self, own: Mapping[str, float], load: float, rng: np.random.Generator) -> float:
        return load * own["median"] * float(np.exp(own["sigma"] * rng.standard_normal()))

    def _work_within(self, seconds: Vector, load: float) -> Vector:
        work = load * self.parameters["median"]
        # 0 work takes 0 seconds; sigma = 0 turns the quotient into +-inf, or 0/0 where time just suffices.
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.log(np.maximum(seconds, 0.0) / work) / self.parameters["sigma"]
        within: Vector = ndtr(np.where(np.isnan(z), np.inf, z))
        return np.where(seconds < 0.0, 0.0, within)
