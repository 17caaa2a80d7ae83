"""The client of a method that does not code: it trains on its own data as one, as the papers of such methods say."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedgc.assignment import own_part
from fedgc.clients import gradient_coded
from fedgc.experiment.audit import UnionTrainer, shard_trainer, trained_arrays
from fedgc.protocol import (
    BUSY_SECONDS,
    INTRODUCE,
    NUM_EXAMPLES,
    RECORD,
    RUN_SEED,
    SERVER_ROUND,
    SHARD_EXAMPLES,
    SHARD_IDS,
    SHARD_SEED,
    SIMULATED_SHARE,
    WORK_SECONDS,
    shard_seed,
)
from fedgc.records.copies import config_of, own_copy


def own_data(trainer: UnionTrainer, shard_examples: list[int], n_clients: int) -> Callable[[Message, Context], Message]:
    """Return a Flower train function that goes through all examples of a client's shards in one run of steps.

    Coding needs the update of each shard by itself, from the global model. FedAvg and its relatives do not: a client of
    theirs takes as many steps in a row as it has data for, which counts for more. Where a message names shards, it
    trains on these, each counting once, as uncoded strategies ask for; else on its own part. Where there is a budget
    only, it stops at the step at which that ends.

    Parameters
    ----------
    trainer : callable
        The update of all examples of some shards.
    shard_examples : list of int
        Number of examples of each shard.
    n_clients : int
        Number of clients.
    """
    n_shards = len(shard_examples)
    coded = gradient_coded(num_shards=n_shards)(shard_trainer(trainer))

    def train(message: Message, context: Context) -> Message:
        assignment = config_of(message.content, RECORD) or ConfigRecord()
        if INTRODUCE in assignment:
            return coded(message, context)
        client = int(cast(int, context.node_config["partition-id"]))
        given = cast("list[int]", assignment.get(SHARD_IDS, []))
        shard_ids = tuple(sorted(given)) or tuple(own_part(client, n_clients, n_shards))
        config = own_copy(config_of(message.content, "config") or ConfigRecord())
        run_seed = int(cast(int, assignment.get(RUN_SEED, context.run_config.get("seed", 0))))
        config[SHARD_SEED] = shard_seed(run_seed, cast(int, config.get(SERVER_ROUND, 0)), shard_ids[0])
        share = float(cast(float, assignment.get(SIMULATED_SHARE, 1.0)))
        update = trainer(shard_ids, cast(ArrayRecord, message.content["arrays"]), config, share)
        said = {
            SHARD_IDS: list(given or shard_ids),
            SHARD_EXAMPLES: [shard_examples[shard_id] for shard_id in given or shard_ids],
            **{name: assignment[name] for name in (WORK_SECONDS, BUSY_SECONDS) if name in assignment},
        }
        metrics = MetricRecord({NUM_EXAMPLES: update.num_examples, **update.metrics})
        arrays = ArrayRecord({name: Array(value) for name, value in trained_arrays(update).items()})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics, RECORD: ConfigRecord(said)}), reply_to=message)

    return train
