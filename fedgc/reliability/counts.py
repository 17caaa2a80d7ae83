"""Discounted counts of what each client did, by what it had done the round before."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Index = NDArray[np.intp]

#: Columns of the counts: rounds that followed an arrival, a miss, and a round whose outcome is not known.
AFTER_ARRIVAL, AFTER_MISS, AFTER_UNKNOWN = 0, 1, 2

#: Weights whose squares sum to less than this are forgotten: their ratios would no longer be exact.
_FORGOTTEN = 1e-250


@dataclass(frozen=True, eq=False)
class Counts:
    """Discounted counts per client (rows) and outcome of the client's previous round (columns, see the constants).

    Attributes
    ----------
    rounds : ndarray, shape (n_clients, 3)
        Sum of the weights ``w_t = f^age`` of the rounds, where age counts the client's own rounds since.
    squares : ndarray, shape (n_clients, 3)
        Sum of the squared weights.
    misses : ndarray, shape (n_clients, 3)
        Sum of ``w_t v_t``, where v_t is 1 for a miss, 0 for an arrival, and in between where it was not seen.
    alternations : ndarray, shape (n_clients,)
        Sum of ``w_t w_(t-1)`` over the outcomes miss-arrival-miss and arrival-miss-arrival, which
        :func:`fedgc.reliability.persistence.log_odds_ratio` needs.

    Notes
    -----
    A discounted mean of outcomes of probability p has variance ``p (1 - p) sum w^2 / (sum w)^2``. Its evidence is
    therefore worth ``(sum w)^2 / sum w^2`` rounds, up to ``(1 + f) / (1 - f)``, about twice the sum of the weights:
    taking the sum for it makes intervals 1.4 times too wide.
    """

    rounds: Vector
    squares: Vector
    misses: Vector
    alternations: Vector

    @classmethod
    def empty(cls, n_clients: int) -> Counts:
        """Return the counts of clients that nothing is known of."""
        table = (n_clients, 3)
        return cls(np.zeros(table), np.zeros(table), np.zeros(table), np.zeros(n_clients))

    def take(self, rows: Index) -> Counts:
        """Return the counts of some clients; row -1 is a client that has not been seen."""
        seen = rows >= 0
        if seen.all():
            return Counts(*(getattr(self, column.name)[rows] for column in fields(self)))
        taken = Counts.empty(rows.size)
        return taken.put(np.flatnonzero(seen), self.take(rows[seen]))

    def put(self, rows: Index, values: Counts) -> Counts:
        """Return the counts with some rows replaced."""
        changed = []
        for column in fields(self):
            array = getattr(self, column.name).copy()
            array[rows] = getattr(values, column.name)
            changed.append(array)
        return Counts(*changed)

    def grow(self, n_clients: int) -> Counts:
        """Return the counts with empty rows for further clients at the end."""
        more = n_clients - self.alternations.size
        if more == 0:
            return self
        added = Counts.empty(more)
        return Counts(*(np.concatenate([getattr(self, c.name), getattr(added, c.name)]) for c in fields(self)))

    def observe(self, previous: Vector, before: Vector, missed: Vector, forgetting: float) -> Counts:
        """Return the counts after each client's next round.

        Parameters
        ----------
        previous, before : ndarray, shape (n_clients,)
            The client's last outcome and the one before: 1 for a miss, 0 for an arrival, anything else is not known.
        missed : ndarray, shape (n_clients,)
            The new outcome, in [0, 1].
        forgetting : float
            Factor f by which older rounds fade.
        """
        rounds, squares, misses = forgetting * self.rounds, forgetting**2 * self.squares, forgetting * self.misses
        forgotten = squares < _FORGOTTEN
        for array in (rounds, squares, misses):
            array[forgotten] = 0.0
        every = np.arange(missed.size)
        column = column_of(previous)
        rounds[every, column] += 1.0
        squares[every, column] += 1.0
        misses[every, column] += missed
        turned = (column != AFTER_UNKNOWN) & (column_of(before) == 1 - column)
        back = np.where(column == AFTER_ARRIVAL, missed, 1.0 - missed)
        alternations = forgetting**2 * self.alternations + forgetting * turned * back
        return Counts(rounds, squares, misses, alternations)


def column_of(outcome: Vector) -> Index:
    """Return the column of rounds that follow these outcomes."""
    return np.where(outcome == 0.0, AFTER_ARRIVAL, np.where(outcome == 1.0, AFTER_MISS, AFTER_UNKNOWN)).astype(np.intp)


def effective(rounds: Vector, squares: Vector, misses: Vector) -> tuple[Vector, Vector]:
    """Return how many rounds the evidence is worth, and how many of these are misses.

    Examples
    --------
    >>> n, k = effective(np.array([4.0, 0.0]), np.array([2.0, 0.0]), np.array([1.0, 0.0]))
    >>> n.tolist(), k.tolist()
    ([8.0, 0.0], [2.0, 0.0])
    """
    some = squares > 0.0
    per_round = np.divide(rounds, squares, out=np.zeros_like(rounds), where=some)
    return rounds * per_round, misses * per_round
