"""Clients that each round to bits of their own: what they tell of it, what it adds to the error and to energies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedgc.round.rounding import RoundingByBits
from fedgc.round.state import CodedUpdate, RoundPlan

Vector = NDArray[np.float64]


def told_by_bits(plan: RoundPlan, replies: Mapping[int, CodedUpdate]) -> dict[int, list[float]]:
    """Return the variance factors that clients have told, by their bits."""
    assert plan.bits is not None
    told: dict[int, list[float]] = {}
    for client, reply in replies.items():
        if reply.variance_factors:
            told.setdefault(int(plan.bits[client]), []).extend(reply.variance_factors)
    return told


def own_rounding_error(plan: RoundPlan, weights: Vector, replies: Mapping[int, CodedUpdate]) -> float:
    """Return what rounding adds to the residual error of what came, given the decoding weights, (n_clients,)."""
    assert plan.variance_factors is not None
    blocks = plan.code.blocks
    assert blocks is not None
    factors = plan.variance_factors.copy()
    for client, reply in replies.items():
        if reply.variance_factors:
            factors[client] = float(np.mean(reply.variance_factors))
    ones = np.ones(plan.code.n_shards)
    energy = plan.block_energy[blocks.of_client]
    return float(weights**2 @ (factors * energy)) / plan.gram.inner(ones, ones)


def energies_before_rounding(
    plan: RoundPlan, clients: list[int], energies: list[float], sum_energy: float, known: RoundingByBits
) -> tuple[list[float], float]:
    """Return the energies of what these clients have sent as it was before they rounded it, and that of the sum.

    Rounding is unbiased and independent between clients: it adds ``omega`` times the energy of each sum to that, and to
    the energy of them all together.
    """
    assert plan.bits is not None
    omega = known.variance_factor[plan.bits[clients]]
    before = np.asarray(energies) / (1.0 + omega)
    return before.tolist(), max(sum_energy - float(omega @ before), 0.0)
