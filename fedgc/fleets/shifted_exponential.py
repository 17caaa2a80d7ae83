"""Shifted-exponential completion times: a fixed minimum and a memoryless delay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fedgc.fleets.base import Fleet
from fedgc.fleets.parameters import Parameter, Vector


class ShiftedExponentialFleet(Fleet):
    """Work takes ``load x shift + (load x mean + delay) x E`` seconds with E standard exponential.

    One E is drawn per client and round: what slows a device down (heat, other programs) lasts longer than a shard, and
    also holds up its start. Two independent delays would make a completion time without a closed-form quantile.

    References
    ----------
    K. Lee et al., "Speeding Up Distributed Machine Learning Using Codes", IEEE Trans. Inf. Theory 64(3), 2018.

    Examples
    --------
    >>> fleet = ShiftedExponentialFleet(2, seed=1, shift=[1.0, 4.0], mean=0.5)
    >>> fleet.straggle_prob(deadline=3.0, load=1).round(4).tolist()
    [0.0183, 1.0]
    """

    name: ClassVar[str] = "shifted-exponential"
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        **Fleet.PARAMETERS,
        "shift": Parameter(1.0),  # least seconds per shard
        "mean": Parameter(0.5),  # mean of the random part, seconds per shard
        "delay": Parameter(0.0),  # mean seconds of a random delay that does not grow with the load
    }

    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        exponential = -np.log1p(-u)
        return own["delay"] * exponential, own["shift"] + own["mean"] * exponential

    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        spare = seconds - load * own["shift"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            tail = np.exp(-np.maximum(spare, 0.0) / (load * own["mean"] + own["delay"]))
        # Nothing random and time that just suffices is 0/0.
        return np.where(spare < 0.0, 0.0, 1.0 - np.nan_to_num(tail))
