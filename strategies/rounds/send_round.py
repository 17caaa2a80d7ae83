"""The beginning of a round: what each client is told to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from fedgc.strategies.rounds.expected_sizes import expected_sizes
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.secure_round import SecureRound
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.rounds.size_claims import SizeClaims
from fedgc.strategies.rounds.tasks import ClientTask
from fedgc.strategies.shard_push import PushedShards
from flwr.app import ArrayRecord, Message
from numpy.typing import NDArray

from fedgc.completion_times import Overheads
from fedgc.moments import SecondMoment
from fedgc.protocol import BITS, DEADLINE, QUANTISER, RECORD, ROUNDER, RUN_SEED, SERVER_ROUND
from fedgc.quantisers import Quantiser
from fedgc.round import RoundPlan, RoundState
from fedgc.round.state import time_to_reconsider

logger = logging.getLogger("flwr.fedgc")


def send_round(
    server_round: int,
    plan: RoundPlan,
    state: RoundState,
    arrays: ArrayRecord,
    inner: Mapping[int, Message],
    *,
    deadline: float,
    seed: int,
    known_sizes: NDArray[np.float64],
    known_times: bool,
    configrecord_key: str,
    secret: int = 0,
    secure_sum: SecureSum | None = None,
    shards: PushedShards | None = None,
    quantiser: Quantiser | None = None,
    second_moment: SecondMoment | None = None,
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
    deadline : float
        Seconds that the round may last.
    seed : int
        Seed of the run, which clients are told.
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    known_times : bool
        Whether the clients' times are known, and with them when each has to stop.
    configrecord_key : str
        Name of the record that takes the round's number.
    secret : int
        Seed of the entries by which copies are compared.
    secure_sum : SecureSum, optional
        How sums are made, if the server is to have nothing else.
    shards : PushedShards, optional
        The shards' data, if clients have it from the server.
    quantiser : Quantiser, optional
        What clients are to round their sums by; to bits of their own, if the plan has some.
    second_moment : SecondMoment, optional
        How the inner strategy wants the square of the exact update estimated, if it does.

    Raises
    ------
    ValueError
        If there is no such estimate for the plan's code and decoder.
    """
    n_clients, tasks = len(plan.node_ids), tasks_of(plan, known_sizes, secure_sum)
    told = {SERVER_ROUND: server_round, RUN_SEED: seed, DEADLINE: deadline}
    allowance = [0.0] * n_clients if known_times else state.overheads.allowance(plan.node_ids, deadline)
    if state.rounds and time_to_reconsider(state.rounds):
        warn_of_overheads(state.overheads, plan.node_ids, deadline, server_round)
    messages = [
        task.message(
            inner[node_id],
            told,
            configrecord_key,
            allowance=float(left),
            expected=expected_sizes(state, known_sizes, task.shards, node_id) if task.partial else None,
        )
        for node_id, task, left in zip(plan.node_ids, tasks, allowance, strict=True)
    ]
    if quantiser is not None:
        for client, message in enumerate(messages):
            told_bits = {BITS: quantiser.bits} if plan.bits is None else {BITS: int(plan.bits[client]), ROUNDER: client}
            message.content.config_records[RECORD].update({**told_bits, QUANTISER: quantiser.name})
    if shards is not None:
        shards.attach(messages)
    sizes = SizeClaims(state, plan.decoder.code, given=bool(np.isfinite(known_sizes).all()))
    sent = OpenRound(
        server_round,
        plan,
        tasks,
        arrays,
        messages,
        deadline,
        known_sizes,
        state,
        sizes,
        secret,
        quantiser=quantiser,
        run_seed=seed,
        second_moment=second_moment,
    )
    if secure_sum is None:
        if second_moment is not None:
            _ = sent.fold  # refuses what it cannot estimate, before anyone works
        return sent
    return SecureRound(**vars(sent), secure_sum=secure_sum)


def tasks_of(
    plan: RoundPlan, known_sizes: NDArray[np.float64], secure_sum: SecureSum | None = None
) -> list[ClientTask]:
    """Return what each client is to do, see :func:`send_round`."""
    if secure_sum is not None:
        return secure_sum.tasks(plan, float(known_sizes.sum()))
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
