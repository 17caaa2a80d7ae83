"""How far a client gets with a message in virtual time, and when it replies."""

from __future__ import annotations

from typing import cast

from flwr.app import Message

from fedgc.fleets.base import WorkDraw
from fedgc.protocol import BUSY_SECONDS, DEADLINE, RECORD, SEGMENTS, SIMULATED_PROGRESS, WORK_SECONDS

#: Rounding of a product of two times must not cost the last shard.
_ROUNDING = 1e-9


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
    With a work list the client works until the deadline and then replies with what is finished, or as soon as all is. A
    client that goes away before its reply loses what it has done.
    """
    record = message.content.config_records.get(RECORD)
    if record is None or load <= 0:
        return draw.completion_time(load)
    seconds, done = draw.fixed + load * draw.per_shard, int(load)
    if SEGMENTS in record:
        budget = float(cast(float, record[DEADLINE]))
        if seconds > budget:
            spare = max(0.0, budget - draw.fixed)
            done = min(done, int(spare / draw.per_shard + _ROUNDING)) if draw.per_shard > 0.0 else 0
            seconds = max(budget, draw.fixed)
        record[SIMULATED_PROGRESS] = done
    record[WORK_SECONDS] = done * draw.per_shard
    record[BUSY_SECONDS] = max(seconds - draw.fixed, done * draw.per_shard)
    return seconds if draw.leaves_after > 0.0 and seconds <= draw.leaves_after else float("inf")
