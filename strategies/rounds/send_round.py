"""The beginning of a round: what each client is told to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from fedgc.strategies.messages.client_task import ClientTask
from fedgc.strategies.rounds.expected_sizes import expected_sizes
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.round_settings import RoundSettings
from fedgc.strategies.rounds.secure_round import SecureRound
from fedgc.strategies.rounds.size_claims import SizeClaims
from flwr.app import ArrayRecord, Message

from fedgc.completion_times import Overheads
from fedgc.protocol import BITS, DEADLINE, QUANTISER, RECORD, ROUNDER, RUN_SEED, SERVER_ROUND
from fedgc.round import RoundPlan, RoundState
from fedgc.round.state import time_to_reconsider

logger = logging.getLogger("flwr.fedgc")


def send_round(  # noqa: PLR0917  (what makes a round)
    server_round: int,
    plan: RoundPlan,
    state: RoundState,
    arrays: ArrayRecord,
    inner: Mapping[int, Message],
    settings: RoundSettings,
    *,
    deadline: float,
    secret: int = 0,
) -> OpenRound:
    """Return a round whose messages are ready to be sent.

    Parameters
    ----------
    server_round : int
        The round's number.
    plan : RoundPlan
        Its plan.
    state : RoundState
        What the plan was made from.
    arrays : ArrayRecord
        The global arrays.
    inner : mapping of int to Message
        What the inner strategy sends to each node.
    settings : RoundSettings
        What is the same in all rounds.
    deadline : float
        Seconds that the round may last.
    secret : int
        Seed of the entries by which copies are compared.

    Raises
    ------
    ValueError
        If the second moment that the inner strategy wants cannot be estimated for the plan's code and decoder.
    """
    tasks = tasks_of(plan, settings)
    told = {SERVER_ROUND: server_round, RUN_SEED: settings.seed, DEADLINE: deadline}
    allowance = [0.0] * len(tasks) if settings.stop_in_time else state.overheads.allowance(plan.node_ids, deadline)
    if state.rounds and time_to_reconsider(state.rounds):
        warn_of_overheads(state.overheads, plan.node_ids, deadline, server_round)
    messages = [
        task.message(
            inner[node_id],
            told,
            settings.configrecord_key,
            allowance=float(left),
            expected=expected_sizes(state, settings.known_sizes, task.shards, node_id) if task.partial else None,
        )
        for node_id, task, left in zip(plan.node_ids, tasks, allowance, strict=True)
    ]
    if (quantiser := settings.quantiser) is not None:
        for client, message in enumerate(messages):
            told_bits = {BITS: quantiser.bits} if plan.bits is None else {BITS: int(plan.bits[client]), ROUNDER: client}
            message.content.config_records[RECORD].update({**told_bits, QUANTISER: quantiser.name})
    if settings.shards is not None:
        settings.shards.attach(messages)
    sizes = SizeClaims(state, plan.decoder.code, given=settings.sizes_given)
    kind = OpenRound if settings.secure_sum is None else SecureRound
    sent = kind(server_round, plan, tasks, arrays, messages, deadline, settings, state, sizes, secret)
    if settings.second_moment is not None:
        _ = sent.fold  # refuses what it cannot estimate, before anyone works
    return sent


def tasks_of(plan: RoundPlan, settings: RoundSettings) -> list[ClientTask]:
    """Return what each client is to do, see :func:`send_round`."""
    if settings.secure_sum is not None:
        return settings.secure_sum.tasks(plan, float(settings.known_sizes.sum()))
    return [ClientTask.of(plan.decoder.code, client, in_a_row=plan.in_a_row) for client in range(len(plan.node_ids))]


def warn_of_overheads(overheads: Overheads, node_ids: Sequence[int], deadline: float, server_round: int) -> None:
    """Say so if half of the nodes that were heard of mostly take as long as the deadline besides their work."""
    typical = [float(np.median(overheads.seconds[node])) for node in node_ids if overheads.seconds.get(node)]
    late = sum(seconds >= deadline for seconds in typical)
    if typical and 2 * late >= len(typical):
        logger.warning(
            "round %d: %d of %d nodes mostly need the deadline of %g s or longer besides their work, as where messages "
            "wait: the Simulation Runtime must have as many actors as nodes are asked",
            server_round, late, len(typical), deadline,
        )  # fmt: skip
