"""How far a client gets with a message in virtual time, and when it replies."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from flwr.app import Message
from numpy.typing import ArrayLike, NDArray

from fedgc.fleets.base import WorkDraw
from fedgc.protocol import BUDGET, BUSY_SECONDS, DEADLINE, RECORD, SEGMENTS, SIMULATED_PROGRESS, WORK_SECONDS
from fedgc.records.copies import config_of

#: Rounding of a product of two times must not cost the last shard.
_ROUNDING = 1e-9


def work_done(
    fixed: ArrayLike, per_shard: ArrayLike, load: ArrayLike, budget: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def answer_time(message: Message, draw: WorkDraw, load: float) -> float:
    """Return the seconds from message to reply, infinite if none comes, and tell the client how far it gets.

    Parameters
    ----------
    message : Message
        The message as the client will get it. If it carries an assignment, the times that the client would measure, and
        on a work list its progress, are written into it: no time passes in this runtime while a client runs.
    draw : WorkDraw
        The client's pace in this round.
    load : float
        Shards asked for.

    Notes
    -----
    With a work list the client works until its budget ends, or the reply would come after the deadline, and then
    replies with what is finished, or as soon as all is. A client that goes away before its reply loses what it has
    done.
    """
    record = config_of(message.content, RECORD)
    if record is None or load <= 0:
        return draw.completion_time(load)
    partial = SEGMENTS in record
    deadline, told = (float(cast(float, record.get(name, np.inf))) for name in (DEADLINE, BUDGET))
    budget = min(deadline, draw.fixed + told) if partial else np.inf
    seconds, done = _work_done_by_one(draw, load, budget)
    if partial:
        record[SIMULATED_PROGRESS] = int(done)
    record[WORK_SECONDS] = done * draw.per_shard
    record[BUSY_SECONDS] = max(seconds - draw.fixed, done * draw.per_shard)
    return seconds if draw.leaves_after > 0.0 and seconds <= draw.leaves_after else float("inf")


def _work_done_by_one(draw: WorkDraw, load: float, budget: float) -> tuple[float, float]:
    """Return what :func:`work_done` does, to the last bit, for one client: there arrays take longer than numbers."""
    seconds = draw.fixed + load * draw.per_shard
    if not seconds > budget:
        return seconds, load
    possible = max(0.0, budget - draw.fixed) / draw.per_shard + _ROUNDING if draw.per_shard > 0.0 else 0.0
    return max(budget, draw.fixed), float(math.floor(min(load, possible)))
