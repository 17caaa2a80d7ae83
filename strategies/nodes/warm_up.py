"""Warm-up: before the first round every node answers a message without work, which starts it and introduces it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from fedgc.strategies.messages.reply_limits import check_small, one_line
from fedgc.strategies.rounds.clock_claims import could_be_busy
from fedgc.strategies.rounds.deadline_grid import DeadlineGrid
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedgc.errors import ReplyTooLargeError
from fedgc.protocol import (
    BUSY_SECONDS,
    COEFFICIENTS,
    DEADLINE,
    INTRODUCE,
    LABEL,
    PARTITION,
    RECORD,
    RUN_SEED,
    SERVER_ROUND,
    SHARD_IDS,
)

logger = logging.getLogger("flwr.fedgc")

#: Seconds that nodes get by default where they run on real clocks.
START_TIMEOUT = 120.0
#: The second message gets this much longer than the slowest answer to the first one took, and a second.
_LONGER = 1.5


@dataclass(frozen=True)
class NodeFacts:
    """What a node has told of itself.

    Attributes
    ----------
    overhead : float
        Seconds from sending a message without work to its reply, less those in which the client was busy.
    partition : int or None
        Its ``partition-id``, if it has one.
    labels : mapping of str to str
        Further entries of its node config, those that :func:`fedgc.clients.gradient_coded` was told to name.
    """

    overhead: float
    partition: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def start_seconds(grid: DeadlineGrid, timeout: float | None) -> float:
    """Return the seconds that nodes get to start and introduce themselves: :data:`START_TIMEOUT` by default.

    And 0 by default in the embedded runtime, where nothing has to start.
    """
    if timeout is None:
        return START_TIMEOUT if grid.one_at_a_time else 0.0
    return timeout


def warm_up(
    grid: DeadlineGrid,
    arrays: ArrayRecord,
    *,
    n_nodes: int,
    timeout: float | None = None,
    deadline: float = float("inf"),
    but: Collection[int] = (),
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
) -> dict[int, NodeFacts]:
    """Wait for nodes, send each a message without work, and return what those that answer say of themselves.

    Parameters
    ----------
    grid : DeadlineGrid
        The grid.
    arrays : ArrayRecord
        The global arrays: they are sent there and back, as in a round.
    n_nodes : int
        Nodes that must be there before anything is sent.
    timeout : float, optional
        Seconds for all of it; it is over as soon as all nodes have answered. See :func:`start_seconds`; with 0 nothing
        is sent.
    deadline : float
        Seconds that the first rounds last: that no node can answer in them is told now.
    but : collection of int
        Nodes that are left in peace, as they have introduced themselves.
    arrayrecord_key, configrecord_key : str
        Names of the records.

    Returns
    -------
    dict of int to NodeFacts
        By node id.

    Notes
    -----
    Runtimes start processes, and clients load their libraries, when the first message comes. What that takes is not
    part of a round, so the overheads are those of a second message to the nodes that have answered the first.
    """
    timeout = start_seconds(grid, timeout)
    if timeout == 0.0:
        return {}
    clock, began = grid.clock, grid.clock.now()
    while len(nodes := sorted(grid.get_node_ids())) < n_nodes and clock.now() < began + timeout:
        clock.wait(began + timeout)
    nodes = [node for node in nodes if node not in but]
    if but and not nodes:
        return {}

    def ask(asked: Sequence[int], seconds: float) -> dict[int, tuple[Message, float]]:
        keys = {"arrayrecord_key": arrayrecord_key, "configrecord_key": configrecord_key}
        batch = [introduction(node, arrays, seconds=seconds, server_round=0, **keys) for node in asked]
        collected = grid.collect(batch, seconds, arrays=False)
        node_of = {message.metadata.message_id: message.metadata.dst_node_id for message in batch}
        return {
            node_of[reply.metadata.reply_to_message_id]: (reply, after)
            for reply, after in zip(collected.replies, collected.seconds, strict=True)
            if reply.metadata.reply_to_message_id in node_of and _introduces(reply)
        }

    first = ask(nodes, max(began + timeout - clock.now(), 1.0))
    if not first:
        logger.warning("start: none of %d nodes answered within %g s", len(nodes), timeout)
        return {}
    slowest = max(after for _, after in first.values())
    heard = first | ask(sorted(first), _LONGER * slowest + 1.0)
    facts = {node: facts_of(node, reply, after) for node, (reply, after) in heard.items()}
    overheads = np.array([fact.overhead for fact in facts.values()])
    logger.info(
        "start: %d of %d nodes answered, with an overhead of %.3g s in the median, %.3g s at most",
        len(facts), len(nodes), float(np.median(overheads)), float(overheads.max()),
    )  # fmt: skip
    if float(overheads.min()) >= deadline:
        logger.warning(
            "start: no node can answer within the deadline of %g s, since even without work it takes them %.3g s",
            deadline,
            float(overheads.min()),
        )
    return facts


def introduction(
    node: int, arrays: ArrayRecord, *, seconds: float, server_round: int, arrayrecord_key: str, configrecord_key: str
) -> Message:
    """Return a message without work that asks a node to tell of itself within so many seconds."""
    config = ConfigRecord({SERVER_ROUND: server_round})
    content = RecordDict({arrayrecord_key: arrays, configrecord_key: config})
    content[RECORD] = ConfigRecord({SHARD_IDS: [], COEFFICIENTS: [], RUN_SEED: 0, DEADLINE: seconds, INTRODUCE: True})
    return Message(content, dst_node_id=node, message_type="train", ttl=2.0 * seconds, group_id=str(server_round))


def facts_of(node: int, reply: Message, after: float) -> NodeFacts:
    """Return what a node's reply to an introduction tells that came after so many seconds: of an error only these."""
    if not _introduces(reply):
        return NodeFacts(after)
    return _facts(node, reply.content.config_records[RECORD], after)


def _introduces(reply: Message) -> bool:
    """Return whether a reply says something of its node, and no more than is worth keeping."""
    said = None if reply.has_error() else reply.content.get(RECORD)
    if not isinstance(said, ConfigRecord):
        return False
    try:
        check_small(RECORD, said)
    except ReplyTooLargeError as reason:
        logger.warning("start: node %d is not heard: %s", reply.metadata.src_node_id, one_line(reason))
        return False
    return True


def _facts(node: int, said: ConfigRecord, after: float) -> NodeFacts:
    busy, partition = said.get(BUSY_SECONDS), said.get(PARTITION)
    spent = float(busy) if isinstance(busy, (int, float)) and 0.0 <= busy <= after else 0.0
    if busy is not None and not (isinstance(busy, (int, float)) and could_be_busy(busy, after)):
        logger.warning(
            "start: node %d's own times are not used: it says that it was busy for %.40r s of the %.3g s to its reply",
            node, busy, after,
        )  # fmt: skip
    labels = {name.removeprefix(LABEL): one_line(value) for name, value in said.items() if name.startswith(LABEL)}
    return NodeFacts(after - spent, partition if type(partition) is int else None, labels)
