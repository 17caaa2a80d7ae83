"""The table of clients: one row of arrays for each client that has taken part, and the index of their node ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.reliability.counts import Counts, Index, Vector
from fedgc.reliability.shift import SHIFTS

#: Last outcome of a client that has not been seen.
NEVER = -1.0


@dataclass(frozen=True, eq=False)
class Clients:
    """What is kept of each client, in the order in which they first took part.

    Attributes
    ----------
    index : dict of int to int
        Row of each node id. Shared between states; it is replaced, never changed.
    last, before : ndarray, shape (n_clients,)
        Probability that the last outcome, and the one before it, was a miss: 0 or 1 where it was seen, NEVER where
        there is none.
    rounds : ndarray of int, shape (n_clients,)
        Rounds that the client has taken part in.
    score : ndarray, shape (n_clients,)
        The change detector's score, in nats.
    shift : ndarray, shape (n_clients, 4)
        Probability of each of :data:`fedgc.reliability.shift.SHIFTS` away from the slow counts.
    resets, changed_at : ndarray of int, shape (n_clients,)
        How often the client's behaviour has changed, and in which of its own rounds the last time; 0 for never.
    slow, fast : Counts
        Counts of its outcomes: with long memory, and of the recent rounds that may differ from it.
    """

    index: dict[int, int]
    last: Vector
    before: Vector
    rounds: NDArray[np.int64]
    score: Vector
    shift: Vector
    resets: NDArray[np.int64]
    changed_at: NDArray[np.int64]
    slow: Counts
    fast: Counts

    @classmethod
    def empty(cls) -> Clients:
        """Return the table without rows."""
        none, number = np.zeros(0), np.zeros(0, dtype=np.int64)
        shift = np.zeros((0, len(SHIFTS)))
        return cls({}, none, none, number, none, shift, number, number, Counts.empty(0), Counts.empty(0))

    def rows(self, node_ids: Iterable[int]) -> Index:
        """Return the row of each node id, -1 where it has not been seen."""
        get = self.index.get
        return np.array([get(node_id, -1) for node_id in node_ids], dtype=np.intp)

    def grow(self, node_ids: Iterable[int]) -> Clients:
        """Return the table with a row for each of the node ids."""
        new = [int(node_id) for node_id in node_ids if node_id not in self.index]
        if not new:
            return self
        size = len(self.index) + len(new)
        index = self.index | dict(zip(new, range(len(self.index), size), strict=True))
        never, zero, number = np.full(len(new), NEVER), np.zeros(len(new)), np.zeros(len(new), dtype=np.int64)
        return Clients(
            index=index,
            last=np.concatenate([self.last, never]),
            before=np.concatenate([self.before, never]),
            rounds=np.concatenate([self.rounds, number]),
            score=np.concatenate([self.score, zero]),
            shift=np.concatenate([self.shift, np.zeros((len(new), len(SHIFTS)))]),
            resets=np.concatenate([self.resets, number]),
            changed_at=np.concatenate([self.changed_at, number]),
            slow=self.slow.grow(size),
            fast=self.fast.grow(size),
        )

    def replace_rows(self, rows: Index, **values: Vector | NDArray[np.int64] | Counts) -> Clients:
        """Return the table with the given columns replaced in some rows."""
        changed: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Counts):
                changed[name] = getattr(self, name).put(rows, value)
            else:
                column = getattr(self, name).copy()
                column[rows] = value
                changed[name] = column
        return replace(self, **changed)

    def copy_row(self, old: int, new: int) -> Clients:
        """Return the table in which node `new` has what node `old` has; both have a row."""
        rows = self.rows([new, old])
        values = {
            name: (column.take(rows[1:]) if isinstance(column := getattr(self, name), Counts) else column[rows[1:]])
            for name in (field.name for field in fields(self))
            if name != "index"
        }
        return self.replace_rows(rows[:1], **values)

    def describe(self, nodes: Sequence[int], mean: Vector, low: Vector, high: Vector) -> list[ClientReliability]:
        """Return one summary per node id, given the posterior's means and the limits of its intervals."""
        unseen = {"rounds": 0, "last_outcome": outcome_name(NEVER), "resets": 0, "changed_at": None}
        return [
            ClientReliability(
                node_id=int(node),
                straggle_prob=float(mean[i]),
                low=float(low[i]),
                high=float(high[i]),
                **(self._describe_row(row) if row >= 0 else unseen),
            )
            for i, (node, row) in enumerate(zip(nodes, self.rows(nodes).tolist(), strict=True))
        ]

    def _describe_row(self, row: int) -> dict[str, Any]:
        return {
            "rounds": int(self.rounds[row]),
            "last_outcome": outcome_name(float(self.last[row])),
            "resets": int(self.resets[row]),
            "changed_at": int(self.changed_at[row]) if self.resets[row] else None,
        }


COLUMNS = tuple(column.name for column in fields(Clients))[1:-2]


@dataclass(frozen=True)
class ClientReliability:
    """What is known of one client, for people.

    Attributes
    ----------
    node_id : int
        The client.
    straggle_prob : float
        Probability to miss the coming deadline.
    low, high : float
        Limits of its credible interval.
    rounds : int
        Rounds that it has taken part in.
    last_outcome : str
        "arrived", "missed", "unseen" (the last round ended before its deadline) or "none".
    resets : int
        How often its behaviour was found to have changed.
    changed_at : int or None
        The client's own round, from 1, after which that was found the last time.
    """

    node_id: int
    straggle_prob: float
    low: float
    high: float
    rounds: int
    last_outcome: str
    resets: int
    changed_at: int | None


def outcome_name(last: float) -> str:
    """Return the last outcome in words.

    Examples
    --------
    >>> [outcome_name(last) for last in (0.0, 1.0, 0.3, NEVER)]
    ['arrived', 'missed', 'unseen', 'none']
    """
    if last == NEVER:
        return "none"
    return {0.0: "arrived", 1.0: "missed"}.get(last, "unseen")


def read_node_ids(node_ids: Iterable[int]) -> list[int]:
    """Return the node ids as a list, or raise ValueError unless all are integers."""
    nodes = list(node_ids)
    for kind in set(map(type, nodes)):
        if not issubclass(kind, Integral) or issubclass(kind, bool):
            wrong = next(node for node in nodes if type(node) is kind)
            raise ValueError(f"node_ids must be integers; got {wrong!r}")
    return nodes


def read_missed(arrived: Mapping[int, bool | float]) -> Vector:
    """Return the probability that each participant would have missed the deadline, or raise ValueError.

    Examples
    --------
    >>> read_missed({7: True, 8: False, 9: 0.75}).tolist()
    [0.0, 1.0, 0.25]
    """
    values = list(arrived.values())
    for kind in set(map(type, values)):
        if not issubclass(kind, Real | np.bool_):
            wrong = next(node for node, value in arrived.items() if type(value) is kind)
            raise ValueError(f"arrived must be True, False or a probability; got {arrived[wrong]!r} for node {wrong}")
    came = np.array(values, dtype=np.float64)
    good = (came >= 0.0) & (came <= 1.0)
    if not good.all():
        wrong = list(arrived)[int(np.argmin(good))]
        raise ValueError(f"arrived must lie in [0, 1]; got {arrived[wrong]!r} for node {wrong}")
    return 1.0 - came
