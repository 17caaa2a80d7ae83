"""Pareto completion times: rare rounds that take almost for ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fedgc.fleets.base import Fleet
from fedgc.fleets.parameters import Parameter, Vector

#: Largest logarithm of a factor: the cap is below it, and a larger one would overflow.
_LARGEST = 600.0


class ParetoFleet(Fleet):
    """Work takes ``load x min(scale x X, cap)`` seconds with P(X > x) = x^-alpha for x >= 1, drawn once per round.

    Notes
    -----
    Up to alpha = 1 the mean of X is infinite; the cap is what a scheduler that restarts hung work would do.

    Examples
    --------
    >>> fleet = ParetoFleet(1, seed=1, alpha=1.0, scale=1.0, cap=60.0)
    >>> [fleet.straggle_prob(deadline, load=1).round(4).tolist() for deadline in (0.9, 4.0, 59.0, 60.0)]
    [[1.0], [0.25], [0.0169], [0.0]]
    """

    name: ClassVar[str] = "pareto"
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        **Fleet.PARAMETERS,
        "alpha": Parameter(1.0, low=1e-3),  # exponent of the tail
        "scale": Parameter(1.0),  # least seconds per shard
        "cap": Parameter(60.0),  # most seconds per shard
    }

    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        logarithm = np.minimum(-np.log1p(-u) / own["alpha"], _LARGEST)
        return 0.0, np.minimum(own["scale"] * np.exp(logarithm), own["cap"])

    def _kinks(self, own: Mapping[str, Any]) -> list[Vector]:
        """Return where the cap begins."""
        return [1.0 - self._tail(own, own["cap"])]

    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        per_shard = seconds / load
        within = np.where(per_shard >= own["scale"], 1.0 - self._tail(own, per_shard), 0.0)
        return np.where(per_shard >= own["cap"], 1.0, within)

    @staticmethod
    def _tail(own: Mapping[str, Any], per_shard: Vector) -> Vector:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(per_shard > own["scale"], own["scale"] / per_shard, 1.0)
        tail: Vector = ratio ** own["alpha"]
        return tail
