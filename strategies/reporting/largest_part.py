"""How much of the decoded aggregate one client, or one shard, can be: what noise for privacy has to hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedgc.round import RoundFold
from fedgc.round.sizes import known_or_mean
from fedgc.updates import is_statistic

if TYPE_CHECKING:
    from fedgc.strategies.reporting.report import RoundReport

#: Parts are sums of products of rounded numbers.
_ROUNDING = 1e-9


def largest_part(fold: RoundFold, shard_examples: NDArray[np.float64], names: list[str]) -> float | None:
    """Return the largest part of a round's decoded aggregate that is one client's or one shard's.

    Parameters
    ----------
    fold : RoundFold
        What has come, decoded.
    shard_examples : ndarray, shape (n_shards,)
        Number of examples of each shard in the aggregate, NaN where not known.
    names : list of str
        Names of the model's arrays.

    Returns
    -------
    float or None
        At least 0; None with a memory, by which what a client sent in past rounds counts in this one too.

    Notes
    -----
    What a client sends of row r of the encoding matrix is the mean ``s_r = sum_(j in r) a_rj N_j update_j / n_r`` over
    its ``n_r = sum_(j in r) N_j`` examples, and decoded is ``sum_r (w_r n_r / N) s_r``. If each s_r is clipped to the
    norm C, the aggregate moves by at most

        ``p C``, where ``p = sum_r |w_r| n_r / N``

    is over the rows of a client, if its updates are replaced by zero, and over all rows that count and have a shard in
    them, whoever sent them, if these are; and by 2 p C if they are replaced by whatever else. A row over several
    shards does not become zero without one of them, since the others are then clipped less: for a single shard of such
    a row only the latter holds. The largest p of all clients and shards is returned. It is of this round's arrivals,
    weights and sizes, which are taken not to depend on the updates. Running statistics are divided by the sum of the
    weights, see :func:`fedgc.updates.average_statistics`: where a model has some and the sum is less than one, so is p.
    """
    if fold.memory is not None:
        return None
    matrix, sizes = fold.plan.decoder.code.sparse_matrix, known_or_mean(shard_examples)
    if not sizes.any():
        return 0.0
    share = sizes / float(sizes.sum())
    held = sparse.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    part = np.abs(fold.weights) * (held @ share)
    of_clients = [float(part[list(rows)].sum()) for rows in fold.rows.values()]
    largest = max([float((held.T @ part).max()), *of_clients])
    if any(map(is_statistic, names)):
        total = float(fold.plan.decoder.code.coverage(fold.weights) @ share)
        largest /= min(total, 1.0) if total > 0.0 else 1.0
    return largest


def privacy_warning(report: RoundReport) -> str | None:
    """Return what the log should say, under a strategy that may add noise for a plain mean; None if that is enough.

    Parameters
    ----------
    report : RoundReport
        The round's report.
    """
    n, part = report.n_clients, report.largest_part
    if part is None:
        return (
            "with memory=True what clients sent in past rounds counts again: noise that a strategy around this one may "
            "add for differential privacy is sized for this round's replies alone"
        )
    if part * n <= 1.0 + _ROUNDING:
        return None
    return (
        f"a single client's or shard's part of the aggregate may be {part:.3g}, where it is 1/{n} in the plain mean of "
        f"{n} clients: noise that a strategy around this one may add for differential privacy is {part * n:.3g} times "
        "too small for it, see GradientCoding.deadline_grid"
    )
