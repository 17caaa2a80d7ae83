"""What was seen of every client, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.history import COLUMNS, History, as_ids
from fedgc.completion_times.observation import TimeObservation
from fedgc.completion_times.sample import Sample, Vector

#: No time per shard is taken for shorter than this share of the whole round's time per shard.
_LEAST_SHARE = 1e-9
#: Times per shard beyond e^100 seconds, or below e^-100, are taken for these: their squares still fit a float.
_LARGEST_LOG = 100.0
_FLAGS = ("censored", "there")
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Seconds per shard of every client in the rounds that are remembered.

    Attributes
    ----------
    log_time : ndarray, shape (n_clients, window)
        Natural logarithm of the seconds per shard, or of those waited for in vain.
    weight : ndarray, shape (n_clients, window)
        Weight of each round, 0 for unused cells, which come last.
    censored, there : ndarray of bool, shape (n_clients, window)
        See :class:`TimeObservation`.
    """

    log_time: Vector
    weight: Vector
    censored: NDArray[np.bool_]
    there: NDArray[np.bool_]

    @classmethod
    def of(
        cls, history: History, weight: Vector, fixed_seconds: Vector, rows: NDArray[np.intp] | None = None
    ) -> Timeline:
        """Return that of all clients or some `rows`, less each round's own or the client's fixed part.

        Parameters
        ----------
        history : History
            What was seen.
        weight : ndarray, shape (n_clients, window)
            Weight of each observation, 0 for unused cells.
        fixed_seconds : ndarray, shape (n_clients,)
            Fixed part of the rounds that told none.
        rows : ndarray of int, optional
            Some of the clients.
        """
        index = np.arange(history.n_clients) if rows is None else rows
        # A full ring's oldest cell is the one that is written next.
        count, window = history.count[index], history.window
        oldest = np.where(count >= window, count % window, 0)
        cells = (oldest[:, None] + np.arange(window)) % window

        def in_order(table: NDArray[_T]) -> NDArray[_T]:
            return np.take_along_axis(table[index], cells, axis=1)

        log_time = _log_seconds_per_shard(
            in_order(history.seconds),
            in_order(history.shards),
            in_order(history.fixed_seconds),
            fixed_seconds[index, None],
        )
        return cls(log_time, in_order(weight), in_order(history.censored), in_order(history.there))

    @property
    def used(self) -> NDArray[np.bool_]:
        """The cells in use."""
        return self.weight > 0.0

    @property
    def unsure(self) -> NDArray[np.bool_]:
        """The rounds that the client was silent in and may have been absent from."""
        return self.used & self.censored & ~self.there

    def asked(self, rows: NDArray[np.intp]) -> Vector:
        """Return the log seconds per shard for which clients in `rows` were waited for in vain."""
        return self.log_time[rows][(self.used & self.censored)[rows]]

    def sample(self) -> Sample:
        """Return what the clients are fitted to."""
        return Sample.build(self.log_time, self.weight, self.censored, self.there)

    def with_unknown(self) -> Timeline:
        """Return the timeline with one more client, of which nothing was seen."""

        def longer(table: NDArray[_T], fill: float | bool) -> NDArray[_T]:
            return np.append(table, np.full((1, table.shape[1]), fill, dtype=table.dtype), axis=0)

        return Timeline(
            longer(self.log_time, 0.0), longer(self.weight, 0.0), longer(self.censored, False), longer(self.there, True)
        )


@dataclass(frozen=True, eq=False)
class RoundSeen:
    """What one round has shown of some clients, each of them once.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        The clients.
    log_time : ndarray, shape (n,)
        Logarithm of the seconds per shard that they took, or were waited for in vain.
    censored, there : ndarray of bool, shape (n,)
        See :class:`TimeObservation`.
    """

    rows: NDArray[np.intp]
    log_time: Vector
    censored: NDArray[np.bool_]
    there: NDArray[np.bool_]

    def take(self, keep: NDArray[np.bool_]) -> RoundSeen:
        """Return what it has shown of some of them."""
        return RoundSeen(self.rows[keep], self.log_time[keep], self.censored[keep], self.there[keep])


def read_rounds(observations: Sequence[TimeObservation], history: History, fixed_seconds: Vector) -> list[RoundSeen]:
    """Return the observations of clients that are known, as rounds of which each has a client's next one.

    Parameters
    ----------
    observations : sequence of TimeObservation
        The oldest first.
    history : History
        The clients that are known.
    fixed_seconds : ndarray, shape (n_clients + 1,)
        Fixed part of the rounds that told none; the last is not used.
    """
    rows = history.rows(as_ids([seen.node_id for seen in observations]))
    shards, seconds, told = (np.array([getattr(o, name) for o in observations], dtype=np.float64) for name in COLUMNS)
    censored, there = (np.array([getattr(o, name) for o in observations], dtype=np.bool_) for name in _FLAGS)
    log_time = _log_seconds_per_shard(seconds, shards, told, fixed_seconds[rows])
    every = RoundSeen(rows, log_time, censored, there)
    order = np.argsort(rows, kind="stable")
    turn = np.empty(rows.size, dtype=np.intp)
    turn[order] = np.arange(rows.size) - np.searchsorted(rows[order], rows[order])
    known = rows < history.n_clients
    return [every.take(known & (turn == k)) for k in range(int(turn[known].max(initial=-1)) + 1)]


def _log_seconds_per_shard(seconds: Vector, shards: Vector, told: Vector, fixed: ArrayLike) -> Vector:
    """Return the logarithm of the seconds per shard, less the fixed part as told or, where that is NaN, as learnt."""
    work = np.maximum(seconds - np.where(np.isfinite(told), told, fixed), _LEAST_SHARE * seconds)
    log_time: Vector = np.clip(np.log(work) - np.log(shards), -_LARGEST_LOG, _LARGEST_LOG)
    return log_time
