"""Bits of their own for the clients of a round, out of a budget: who is worth them, and what they are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import IndependentArrivals
from fedgc.codes import FractionalRepetition
from fedgc.decoders import Decoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.quantisers import allocate_bits_to_blocks
from fedgc.round.rounding import RoundingByBits
from fedgc.round.state import RoundPlan

Vector = NDArray[np.float64]


def with_bit_budget(plan: RoundPlan, budget: int, known: RoundingByBits, decoder: Decoder) -> RoundPlan:
    """Return the plan in which each client has bits of its own, and those with none are not asked.

    Parameters
    ----------
    plan : RoundPlan
        The plan of whole blocks whose clients come independently.
    budget : int
        Bits per entry over all clients, see :func:`fedgc.quantisers.allocate_bits_to_blocks`.
    known : RoundingByBits
        What is known of the rounding.
    decoder : Decoder
        The rule for the weights, which is told of each client's rounding.

    Raises
    ------
    ValueError
        If the budget is too small for the blocks, or a block has too many states for the rule.
    """
    blocks = plan.code.blocks
    assert blocks is not None  # other plans are refused before
    factors = known.variance_factor
    bits = allocate_bits_to_blocks(
        np.minimum(plan.straggle_prob, 1.0 - 1e-12),
        factors,
        budget,
        block_of_client=blocks.of_client,
        energy=plan.block_energy,
    )
    return divided(plan, bits, factors[bits], decoder)


def divided(plan: RoundPlan, bits: NDArray[np.intp], variance_factors: Vector, decoder: Decoder) -> RoundPlan:
    """Return the plan for clients with these bits and variance factors, (n_clients,) each."""
    blocks = plan.code.blocks
    assert blocks is not None
    asked = np.flatnonzero(bits)
    code = FractionalRepetition(blocks.of_client[asked], blocks.of_shard)
    prob, factors = plan.straggle_prob[asked], variance_factors[asked]
    arrivals = IndependentArrivals(prob)
    try:
        calibrated = decoder.for_own_rounding(factors).calibrate(code, arrivals, plan.gram)
    except NoUnbiasedDecoderError:
        raise
    except ValueError as error:
        # Where all come to be in one block and their bits differ, the optimal rule has more states than it can list.
        raise ValueError(
            f"bit_budget must go with decoder 'fixed' or a smaller load where blocks are so large: {error}"
        ) from None
    return replace(
        plan,
        node_ids=tuple(plan.node_ids[client] for client in asked),
        code=code,
        straggle_prob=prob,
        arrivals=arrivals,
        decoder=calibrated,
        bits=bits[asked],
        variance_factors=factors,
        undivided=plan,
    )
