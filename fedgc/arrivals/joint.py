"""Any finite distribution: members of a block that fail together, messages that are lost one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals.base import ArrivalModel, Part, possible_part
from fedgc.validation import check_indices, check_integer, check_vector

#: How far probabilities may be from a sum of one; they are then divided by their sum.
_SUM_TOLERANCE = 1e-9


def check_distribution(name: str, value: ArrayLike, *, length: int) -> NDArray[np.float64]:
    """Return `value` as probabilities of `length` outcomes, scaled to a sum of one to the last digit.

    Raises
    ------
    ValueError
        If the length differs, an entry lies outside [0, 1], or the sum is not one to 1e-9.
    """
    probability = check_vector(name, value, length=length, low=0.0, high=1.0, who="outcome")
    total = float(probability.sum())
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1; got {total:g}")
    return probability / total


class JointArrivals(ArrivalModel):
    """Independent parts with outcomes of any kind.

    Parameters
    ----------
    n_rows : int
        Number of rows of the encoding matrix.
    parts : sequence of (rows, outcomes, probability)
        The rows of a part, (k,); which of them arrive in each of its outcomes, bool (n_outcomes, k); the outcomes'
        probabilities, (n_outcomes,). Every row belongs to exactly one part.

    Raises
    ------
    ValueError
        If rows are missing or named twice, shapes disagree, or probabilities are negative or do not sum to one.

    Examples
    --------
    Two clients behind one router, which fails in a tenth of the rounds:

    >>> model = JointArrivals(2, [([0, 1], [[False, False], [True, True]], [0.1, 0.9])])
    >>> model.row_probability.tolist()
    [0.9, 0.9]
    """

    def __init__(self, n_rows: int, parts: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]]) -> None:
        self.n_rows = check_integer("n_rows", n_rows, low=1)
        checked = []
        for index, (given_rows, given_outcomes, given_probability) in enumerate(parts):
            rows, outcomes = check_indices(f"rows of part {index}", given_rows), np.array(given_outcomes)
            if outcomes.dtype != np.bool_ or outcomes.ndim != 2 or outcomes.shape[1:] != rows.shape:
                raise ValueError(
                    f"outcomes of part {index} must be boolean of shape (n_outcomes, {rows.size}); "
                    f"got {outcomes.dtype} of shape {outcomes.shape}"
                )
            probability = check_distribution(
                f"probability of part {index}", given_probability, length=outcomes.shape[0]
            )
            checked.append(possible_part(rows, outcomes, probability))
        named = np.concatenate([part.rows for part in checked]) if checked else np.zeros(0, dtype=np.intp)
        if not np.array_equal(np.sort(named), np.arange(n_rows)):
            raise ValueError(f"parts must name every row 0 .. {n_rows - 1} once; got {np.sort(named).tolist()}")
        self._parts = tuple(checked)

    def parts(self) -> Sequence[Part]:
        """Return the parts, without outcomes of probability zero."""
        return self._parts
