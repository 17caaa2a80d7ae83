"""Shifted-exponential completion times: a fixed minimum and a memoryless delay, both per shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fedgc.fleets.base import Fleet, Parameter, Vector


class ShiftedExponentialFleet(Fleet):
    """Work takes ``load x (shift + mean x E)`` seconds with E standard exponential.

    One delay is drawn per client and round and scales with the load: what slows a device down (heat, other programs)
    lasts longer than a shard.

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
    }

    def _draw_work(self, own: Mapping[str, float], load: float, rng: np.random.Generator) -> float:
        return load * (own["shift"] + own["mean"] * float(rng.standard_exponential()))

    def _work_within(self, seconds: Vector, load: float) -> Vector:
        with np.errstate(divide="ignore", invalid="ignore"):
            spare = seconds - load * self.parameters["shift"]
            tail = np.exp(-np.maximum(spare, 0.0) / (load * self.parameters["mean"]))
        return np.where(spare < 0.0, 0.0, 1.0 - np.nan_to_num(tail))
