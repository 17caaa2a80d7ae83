"""A train message and its reply: what the client is told to do, and what it says of what it has done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fedgc.clients.encode import Budget
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from fedgc.assignment import own_part
from fedgc.protocol import (
    BUDGET,
    BUSY_SECONDS,
    COEFFICIENTS,
    IN_A_ROW,
    LABEL,
    NUM_SHARDS,
    PARTITION,
    RUN_SEED,
    SEGMENTS,
    SHARD_EXAMPLES,
    SHARD_IDS,
    WORK_SECONDS,
)
from fedgc.records.copies import checked


def global_arrays(message: Message, key: str) -> ArrayRecord:
    """Return the global arrays, or raise ValueError if the message has none by that name."""
    record = message.content.get(key)
    if not isinstance(record, ArrayRecord):
        names = sorted(message.content.array_records)
        raise ValueError(f"arrayrecord_key must name a record of the message, of {names}; got {key!r}")
    return record


def assignment_of(
    given: ConfigRecord | None, context: Context, num_shards: int | None, *, in_a_row: bool = False
) -> ConfigRecord:
    """Return what the client was given; if that has no shards, its equal part of all, until its budget ends.

    Raises
    ------
    ValueError
        If the server wants shards in a row and the train function is for shards apart, or the other way round.
    """
    if given is not None and SHARD_IDS in given:
        if given[SHARD_IDS] and (IN_A_ROW in given) != in_a_row:
            name = "gradient_coded" if in_a_row else "coded_in_a_row"
            raise ValueError(f"the train function must be under {name}, as the server's in_a_row is {not in_a_row}")
        return given
    partition = int(cast(int, context.node_config["partition-id"]))
    n_partitions = int(cast(int, context.node_config["num-partitions"]))
    total = _own_number(context, num_shards).get(NUM_SHARDS, n_partitions)
    shard_ids = list(own_part(partition, n_partitions, total))
    seed = int(cast(int, context.run_config.get("seed", 0)))
    own = ConfigRecord({SHARD_IDS: shard_ids, COEFFICIENTS: [1.0] * len(shard_ids), RUN_SEED: seed})
    if given is not None and BUDGET in given:
        own.update(given)
        own[SEGMENTS] = [len(shard_ids)]
    return own


def introduction(context: Context, labels: Sequence[str]) -> dict[str, int | str]:
    """Return what the server may know of this node."""
    config = context.node_config
    partition = {PARTITION: int(cast(int, config["partition-id"]))} if "partition-id" in config else {}
    return partition | {f"{LABEL}{name}": str(config[name]) for name in labels if name in config}


def _own_number(context: Context, num_shards: int | None) -> dict[str, int]:
    """Return the number of shards that the client was told, if it was: the server warns if its own is another."""
    told = num_shards or context.run_config.get(NUM_SHARDS)
    return {} if told is None else {NUM_SHARDS: int(cast(int, told))}


def reply_record(
    assignment: ConfigRecord, budget: Budget, examples: list[int], context: Context, num_shards: int | None
) -> ConfigRecord:
    """Return what a reply says of the shards that have been done, given their numbers of examples."""
    work, busy = budget.spent(len(examples))
    return checked(
        ConfigRecord,
        {
            SHARD_IDS: list(cast("list[int]", assignment[SHARD_IDS])[: len(examples)]),
            SHARD_EXAMPLES: examples,
            WORK_SECONDS: work,
            BUSY_SECONDS: busy,
            **_own_number(context, num_shards),
        },
    )
