"""How far a mean over rounds may be from what was predicted: standard errors from what was seen and from the plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code, mean_over_places
from fedgc.decoders import CalibratedDecoder

Vector = NDArray[np.float64]


def batch_standard_error(values: Vector, batches: int = 20) -> float:
    """Return the standard error of a mean of correlated values, from the means of consecutive batches."""
    means = np.array([part.mean() for part in np.array_split(values, batches)])
    return float(means.std(ddof=1) / np.sqrt(batches))


def plan_moments(decoder: CalibratedDecoder, arrivals: ArrivalModel) -> tuple[float, float]:
    """Return mean and variance of a round's residual error ``|v - 1|^2 / n_shards`` under the plan's own arrivals.

    Parameters
    ----------
    decoder : CalibratedDecoder
        With fixed weights, or one that is optimal for incoherent updates and recovers single shards or whole blocks.
    arrivals : ArrivalModel
        What it was calibrated for.

    Notes
    -----
    Both are exact, so that losses count that are too rare to be seen in the rounds that are played, or in any number of
    random rounds that one would care to draw. With fixed weights ``v - 1 = sum_i y_i a_i`` over independent clients,
    ``y_i = w_i (1{i came} - q_i)``, so that with ``K = A A' / n``

        E = sum_i K_ii var_i,    Var = sum_i K_ii^2 var(y_i^2) + 2 sum_{i != k} K_ik^2 var_i var_k.

    The optimal decoder has ``v_j = 1{j came} / c_j``, with P_j the probability that the shard in place j is lost and
    c_j the mean of ``1 - P_j`` over the places that shards change. Its square distance from one is
    ``a_j = (1 / c_j - 1)^2`` if j came, else 1, and with P_jk for the loss of both

        E = mean of P_j + (1 - P_j) a_j,    Var = sum_jk (1 - a_j) (1 - a_k) (P_jk - P_j P_k) / n^2.
    """
    code, n = decoder.code, decoder.code.n_shards
    if not decoder.ends_early:
        q = arrivals.row_probability
        weight = decoder.decode(np.ones(code.n_rows, dtype=np.bool_)).decoding_weights
        matrix = code.encoding_matrix
        gram = matrix @ matrix.T / n
        variance = weight**2 * q * (1.0 - q)
        of_square = variance * weight**2 * (1.0 - 2.0 * q) ** 2
        own = np.diag(gram)
        mixed = gram**2 - np.diag(own**2)
        return float(own @ variance), float(own**2 @ of_square + 2.0 * variance @ mixed @ variance)
    both = lost_together(code, arrivals)
    lost = np.diag(both)
    came = mean_over_places(1.0 - lost, code.interchangeable)
    if_there = (1.0 / came - 1.0) ** 2
    gain = 1.0 - if_there
    mean = float(np.mean(lost + (1.0 - lost) * if_there))
    return mean, float(gain @ (both - np.outer(lost, lost)) @ gain) / n**2


def lost_together(code: Code, arrivals: ArrivalModel) -> Vector:
    """Return the probability that neither of two shards is in anything that arrives, (n_shards, n_shards)."""
    both = np.ones((code.n_shards, code.n_shards))
    holds = code.sparse_matrix != 0
    for part in arrivals.parts():
        misses = (part.outcomes.astype(np.float64) @ holds[part.rows].toarray() == 0).astype(np.float64)
        both *= misses.T @ (part.probability[:, None] * misses)
    return both
