"""Partial work: every client gets some way down its work list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals.base import ArrivalModel, Part, possible_part
from fedgc.arrivals.joint import check_distribution
from fedgc.codes.work_lists import WorkLists


class ProgressArrivals(ArrivalModel):
    """Client i has done the first k shards of its work list by the deadline with probability ``progress_prob[i][k]``.

    Parameters
    ----------
    code : WorkLists
        The work lists.
    progress_prob : sequence of array_like
        For each client, the probabilities of having done 0, 1, ..., all shards of its list; they sum to one. A zero is
        a progress that cannot be, such as ending between two shards that are done together.

    Attributes
    ----------
    progress_prob : tuple of ndarray
        The same, as given.

    Raises
    ------
    ValueError
        If a client's probabilities are too many or too few, negative, or do not sum to one.

    Examples
    --------
    >>> from fedgc.codes import WorkLists
    >>> code = WorkLists([[0, 1], [1, 0]], n_shards=2)
    >>> model = ProgressArrivals(code, [[0.2, 0.3, 0.5], [0.1, 0.9, 0.0]])
    >>> model.row_probability.tolist(), model.n_sets
    ([0.3, 0.5, 0.9, 0.0], 6)
    """

    def __init__(self, code: WorkLists, progress_prob: Sequence[ArrayLike]) -> None:
        if not isinstance(code, WorkLists):
            raise ValueError(f"code must be WorkLists; got {type(code).__name__}")
        self.n_rows = code.n_rows
        if len(progress_prob) != code.n_clients:
            raise ValueError(
                f"progress_prob must have one entry per client, {code.n_clients}; got {len(progress_prob)}"
            )
        parts = []
        # Most lists are divided alike: their outcomes are the same, and are made once.
        outcomes_of: dict[tuple[int, ...], NDArray[np.bool_]] = {}
        for client, given in enumerate(progress_prob):
            segments = code.segment_sizes_of(client)
            outcomes = outcomes_of.get(segments)
            if outcomes is None:
                outcomes = outcomes_of[segments] = code.progress_outcomes(client)
            probability = check_distribution(f"progress_prob of client {client}", given, length=outcomes.shape[0])
            parts.append(possible_part(code.rows_of(client), outcomes, probability))
        self.progress_prob = tuple(np.array(given, dtype=np.float64) for given in progress_prob)
        self._parts = tuple(parts)

    @property
    def mean_progress(self) -> NDArray[np.float64]:
        """Mean number of shards that each client has done, (n_clients,)."""
        return np.array([own @ np.arange(own.size) for own in self.progress_prob], dtype=np.float64)

    def parts(self) -> Sequence[Part]:
        """Return a part for every client, with an outcome for every progress that can be."""
        return self._parts
