"""When a client's answer comes, and with how much work: one rule, for one client and for many at once.

What Flower's messages get in virtual time (:mod:`fedgc.simulation`), what is played without them, and what a client
waits for in real time all go by it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fedgc.fleets.parameters import Vector

#: Rounding of a product of two times must not cost the last shard.
_ROUNDING = 1e-9


class WorkDraw(NamedTuple):
    """What one client makes of one message: shard k is done after ``fixed + k x per_shard`` seconds.

    Attributes
    ----------
    fixed : float
        Seconds before the first shard is begun.
    per_shard : float
        Seconds per shard.
    leaves_after : float
        Seconds until the client goes away: 0 if it is not there at all, infinite if it stays.
    """

    fixed: float
    per_shard: float
    leaves_after: float

    def completion_time(self, load: float) -> float:
        """Return the seconds from message to reply with so many shards, infinite if the client goes before that."""
        return self.reply_time(self.fixed + load * self.per_shard if load > 0 else self.fixed)

    def reply_time(self, seconds: float) -> float:
        """Return the seconds to a reply that is ready after so many, infinite if the client has gone by then.

        Examples
        --------
        >>> WorkDraw(1.0, 2.0, leaves_after=5.0).reply_time(5.0), WorkDraw(0.0, 0.0, leaves_after=0.0).reply_time(0.0)
        (5.0, inf)
        """
        return seconds if self.leaves_after > 0.0 and seconds <= self.leaves_after else float("inf")

    def work_done(self, load: float, budget: float) -> tuple[float, float]:
        """Return what :func:`work_done` does, to the last bit, for one client: there arrays take longer than numbers.

        Examples
        --------
        >>> WorkDraw(1.0, 2.0, np.inf).work_done(3, 6.0)
        (6.0, 2.0)
        """
        seconds = self.fixed + load * self.per_shard
        if not seconds > budget:
            return seconds, load
        possible = max(0.0, budget - self.fixed) / self.per_shard + _ROUNDING if self.per_shard > 0.0 else 0.0
        return max(budget, self.fixed), float(math.floor(min(load, possible)))

    def share_done(self, load: float, budget: float) -> float:
        """Return the share of so many shards' work that is done when a budget of seconds ends, 1 if all is.

        Examples
        --------
        >>> WorkDraw(1.0, 2.0, np.inf).share_done(4, 4.0)
        0.375
        """
        work = load * self.per_shard
        if not self.fixed + work > budget:
            return 1.0
        return max(0.0, budget - self.fixed) / work if work > 0.0 else 0.0


def work_done(fixed: ArrayLike, per_shard: ArrayLike, load: ArrayLike, budget: ArrayLike) -> tuple[Vector, Vector]:
    """Return the seconds to the reply of clients that work down a list until their budget ends, and the shards done.

    Parameters
    ----------
    fixed, per_shard : array_like
        Seconds before the first shard and per shard, of each client.
    load : array_like
        Shards on each list.
    budget : array_like
        Seconds that each may work; infinite to do all.

    Examples
    --------
    >>> seconds, done = work_done([1.0, 1.0, 9.0], [2.0, 2.0, 2.0], 3, [7.0, 6.0, 6.0])
    >>> seconds.tolist(), done.tolist()
    ([7.0, 6.0, 9.0], [3.0, 2.0, 0.0])
    """
    fixed, per_shard, load, budget = np.broadcast_arrays(
        *(np.asarray(v, float) for v in (fixed, per_shard, load, budget))
    )
    seconds = fixed + load * per_shard
    late = seconds > budget
    with np.errstate(divide="ignore", invalid="ignore"):
        possible = np.where(per_shard > 0.0, np.floor(np.maximum(0.0, budget - fixed) / per_shard + _ROUNDING), 0.0)
    return np.where(late, np.maximum(budget, fixed), seconds), np.where(late, np.minimum(load, possible), load)


def answers(drawn: Vector, load: Vector, overhead: Vector, budget: float = np.inf) -> tuple[Vector, Vector]:
    """Return the seconds to the answer of each client, infinite where none comes, and the shards that are in it.

    Parameters
    ----------
    drawn : ndarray, shape (3, n_clients)
        What each client makes of its message, as a :class:`WorkDraw` each.
    load : ndarray, shape (n_clients,)
        Shards asked for. Without any, a client needs the overhead only.
    overhead : ndarray, shape (n_clients,)
        Seconds that a message without work takes: the fleet's parameter of that name.
    budget : float
        Seconds after which clients answer with what is done by then; infinite if all is to be done.

    Examples
    --------
    >>> drawn = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [np.inf, np.inf, 4.0]])
    >>> seconds, done = answers(drawn, np.array([2.0, 0.0, 2.0]), np.array([0.5, 0.5, 0.5]))
    >>> seconds.tolist(), done.tolist()
    ([5.0, 0.5, inf], [2.0, 0.0, 2.0])
    """
    fixed, per_shard, leaves_after = drawn
    works = load > 0.0
    seconds, done = work_done(np.where(works, fixed, overhead), np.where(works, per_shard, 0.0), load, budget)
    return np.where((leaves_after > 0.0) & (seconds <= leaves_after), seconds, np.inf), done
