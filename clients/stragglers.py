"""Make real clients straggle: a Flower mod that delays replies as a fleet would."""

from __future__ import annotations

import time
from typing import cast

from fedgc.clients.shards import Mod, TrainFunction
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from fedgc.assignment import own_part
from fedgc.fleets import Fleet, WorkDraw
from fedgc.protocol import DEADLINE, INTRODUCE, RECORD, SERVER_ROUND, SHARD_IDS
from fedgc.simulation.work import answer_time


def simulated_straggling(
    fleet: Fleet, *, seconds_per_second: float = 1.0, num_shards: int | None = None, configrecord_key: str = "config"
) -> Mod:
    """Return a mod for train functions that takes as long as the fleet says, in real time.

    For demonstrations in Flower's own runtimes, where nothing else slows a client down; the embedded runtime needs no
    mod. On a work list the client gets as far as the fleet says. One that would come too late, or not at all, is silent
    up to the deadline and then drops the message with an error reply: sleeping on would only keep others from the
    simulation's processes. At the start of a run everyone is there.

    Parameters
    ----------
    fleet : Fleet
        The client's index in the fleet is its ``partition-id``.
    seconds_per_second : float
        Real seconds that pass for each second of the fleet; 0.1 replays a fleet ten times faster.
    num_shards : int, optional
        Number of shards that clients divide among themselves when the server assigns none; one each by default.
    configrecord_key : str
        Name of the record that holds the round number.

    Examples
    --------
    >>> from fedgc.fleets import build_fleet
    >>> mod = simulated_straggling(build_fleet({"preset": "phones", "clients": 4}, seed=1), seconds_per_second=0.1)
    """

    def mod(message: Message, context: Context, call_next: TrainFunction) -> Message:
        start = time.monotonic()
        configs = message.content.config_records
        client = int(cast(int, context.node_config["partition-id"]))
        server_round = (
            int(cast(int, configs[configrecord_key].get(SERVER_ROUND, 0))) if configrecord_key in configs else 0
        )
        assignment = configs.get(RECORD)
        if assignment is not None and SHARD_IDS in assignment:
            load = len(cast(list[int], assignment[SHARD_IDS]))
        else:
            load = len(own_part(client, fleet.n_clients, fleet.n_clients if num_shards is None else num_shards))
        # Clients run in processes that share no clock but the day's; sessions and outages need nothing else in common.
        now = time.time() % 86_400.0 / seconds_per_second
        drawn = fleet.draw(client, server_round, now=now, training=load > 0)
        draw = WorkDraw(*(seconds_per_second * seconds for seconds in drawn))
        introduces = assignment is not None and INTRODUCE in assignment
        seconds = draw.fixed if introduces else answer_time(message, draw, load)
        limit = message.metadata.ttl if assignment is None else float(cast(float, assignment[DEADLINE]))
        if seconds > limit:
            time.sleep(limit)
            too_late = Error(code=ErrorCode.UNKNOWN, reason=f"would take {seconds:.3g} s in round {server_round}")
            return Message(too_late, reply_to=message)
        reply = call_next(message, context)
        time.sleep(max(0.0, seconds - (time.monotonic() - start)))
        return reply

    return mod
