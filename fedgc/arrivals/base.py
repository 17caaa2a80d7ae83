"""What an arrival model is: independent parts, each with a finite number of outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_integer

#: Sets of arrivals are made this many at a time.
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Part:
    """Coded updates whose arrivals depend on each other: usually those of one client.

    Attributes
    ----------
    rows : ndarray of int, shape (k,)
        The rows of the encoding matrix that the part is about.
    outcomes : ndarray of bool, shape (n_outcomes, k)
        Which of these rows have arrived in each outcome.
    probability : ndarray, shape (n_outcomes,)
        Probability of each outcome; they sum to one.
    """

    rows: NDArray[np.intp]
    outcomes: NDArray[np.bool_]
    probability: NDArray[np.float64]


def possible_part(rows: NDArray[np.intp], outcomes: NDArray[np.bool_], probability: NDArray[np.float64]) -> Part:
    """Return the part without outcomes of probability zero, which would only multiply the number of sets."""
    possible = probability > 0.0
    if possible.all():
        return Part(rows, outcomes, probability)
    return Part(rows, outcomes[possible], probability[possible])


class ArrivalModel(ABC):
    """Distribution of the set of coded updates that arrive by the deadline.

    To add a model, subclass this in a file of its own and export it in ``fedgc/arrivals/__init__.py``.

    Attributes
    ----------
    n_rows : int
        Number of rows of the encoding matrix, one for every coded update that may be sent.
    """

    n_rows: int

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """Return the independent parts; together they have every row once."""

    @property
    def row_probability(self) -> NDArray[np.float64]:
        """Probability that each row arrives, shape (n_rows,)."""
        probability = np.zeros(self.n_rows)
        for part in self.parts():
            probability[part.rows] = part.probability @ part.outcomes
        return probability

    @property
    def n_sets(self) -> int:
        """Number of possible sets of arrivals."""
        total = 1
        for part in self.parts():
            total *= part.probability.size
        return total

    def log_silence(self, group_of_row: NDArray[np.intp], n_groups: int) -> NDArray[np.float64] | None:
        """Return the log probability that nothing of each group of rows arrives, None if groups depend on each other.

        Parameters
        ----------
        group_of_row : ndarray of int, shape (n_rows,)
            The group of each row, 0 .. n_groups - 1.
        n_groups : int
            Number of groups.
        """
        silent = np.zeros(n_groups)
        for part in self.parts():
            groups = group_of_row[part.rows]
            if (groups != groups[0]).any():
                return None
            nothing = float(part.probability[~part.outcomes.any(axis=1)].sum())
            silent[groups[0]] += np.log(nothing) if nothing > 0.0 else -np.inf
        return silent

    def draw(self, n_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return `n_draws` random sets of arrivals, shape (n_draws, n_rows)."""
        check_integer("n_draws", n_draws, low=1)
        arrived = np.zeros((n_draws, self.n_rows), dtype=np.bool_)
        for part in self.parts():
            outcome = rng.choice(part.probability.size, size=n_draws, p=part.probability / part.probability.sum())
            arrived[:, part.rows] = part.outcomes[outcome]
        return arrived

    def sets(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
        """Yield all sets of arrivals in chunks, (k, n_rows), with their probabilities, (k,)."""
        parts, n_sets = self.parts(), self.n_sets
        for start in range(0, n_sets, _CHUNK):
            number = np.arange(start, min(start + _CHUNK, n_sets))
            arrived = np.zeros((number.size, self.n_rows), dtype=np.bool_)
            probability = np.ones(number.size)
            for part in parts:
                number, outcome = np.divmod(number, part.probability.size)
                arrived[:, part.rows] = part.outcomes[outcome]
                probability *= part.probability[outcome]
            yield arrived, probability


def as_arrival_model(arrivals: ArrivalModel | ArrayLike, n_rows: int) -> ArrivalModel:
    """Return `arrivals` itself, or :class:`IndependentArrivals` with these straggle probabilities.

    Raises
    ------
    ValueError
        If it is a model of another number of rows, or probabilities that are out of range.
    """
    from fedgc.arrivals.independent import IndependentArrivals  # noqa: PLC0415 - a subclass of what this file defines

    if not isinstance(arrivals, ArrivalModel):
        if np.shape(arrivals) != (n_rows,):
            raise ValueError(f"straggle_prob must have shape ({n_rows},); got shape {np.shape(arrivals)}")
        return IndependentArrivals(arrivals)
    if arrivals.n_rows != n_rows:
        raise ValueError(f"arrivals must be about n_rows = {n_rows} coded updates; got {arrivals.n_rows}")
    return arrivals
