"""How far a client gets with a message in virtual time, and when it replies."""

from __future__ import annotations

from typing import cast

import numpy as np
from flwr.app import Message

from fedgc.fleets import WorkDraw
from fedgc.protocol import (
    BUDGET,
    BUSY_SECONDS,
    DEADLINE,
    RECORD,
    SEGMENTS,
    SHARD_IDS,
    SIMULATED_PROGRESS,
    SIMULATED_SHARE,
    WORK_SECONDS,
)
from fedgc.records.copies import config_of


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
    With a work list, or with a budget for its own data, the client works until the budget ends, or the reply would come
    after the deadline, and then replies with what is finished, or as soon as all is. A client that goes away before its
    reply loses what it has done.
    """
    record = config_of(message.content, RECORD)
    if record is None or load <= 0:
        return draw.completion_time(load)
    own_part = SHARD_IDS not in record
    partial = own_part or SEGMENTS in record
    deadline, told = (float(cast(float, record.get(name, np.inf))) for name in (DEADLINE, BUDGET))
    budget = min(deadline, draw.fixed + told) if partial else np.inf
    seconds, done = draw.work_done(load, budget)
    if own_part:
        # Whole shards are what a list is divided into; a client that works on its own data may stop at any step.
        record[SIMULATED_SHARE] = share = draw.share_done(load, budget)
        done = share * load
    elif partial:
        record[SIMULATED_PROGRESS] = int(done)
    record[WORK_SECONDS] = done * draw.per_shard
    record[BUSY_SECONDS] = max(seconds - draw.fixed, done * draw.per_shard)
    return draw.reply_time(seconds)
