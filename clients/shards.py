"""The client's side of a coded round: the user writes the update of one shard, the rest is done here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, cast

from fedgc.clients.encode import Budget, SegmentSums
from fedgc.clients.shard_update import ShardUpdate, add_metrics, check_update, delta_of, mean_metrics
from fedgc.clients.shards_at_hand import ShardsAtHand, SourceLike, StoreLike
from fedgc.clients.train_message import assignment_of, global_arrays, introduction, reply_record
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedgc.protocol import (
    COEFFICIENTS,
    FRACTIONAL_BITS,
    INTRODUCE,
    NUM_EXAMPLES,
    RECORD,
    RUN_SEED,
    SEGMENTS,
    SERVER_ROUND,
    SHARD_IDS,
    SHARD_SEED,
    SUM,
    VARIANCE_FACTORS,
    shard_seed,
)
from fedgc.quantisers.packed_sum import rounded_names
from fedgc.records.array_bytes import record_array, views
from fedgc.records.copies import checked, config_of, own_copy
from fedgc.updates import without_rounding
from fedgc.validation import check_integer

#: The user's function: (shard_id, arrays, config), and context= if it has that parameter, to ShardUpdate.
ShardTrainer = Callable[..., ShardUpdate]
TrainFunction = Callable[[Message, Context], Message]
#: A Flower mod: what it does around a train function, or around the next mod.
Mod = Callable[[Message, Context, TrainFunction], Message]


def gradient_coded(
    *,
    num_shards: int | None = None,
    source: SourceLike | None = None,
    store: StoreLike | None = None,
    labels: Sequence[str] = (),
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
) -> Callable[[ShardTrainer], TrainFunction]:
    """Turn the update of one shard into a train function of a Flower ClientApp.

    The decorated function receives ``shard_id`` (int), ``arrays`` (ArrayRecord, the global arrays), ``config``
    (ConfigRecord, as sent by the server, plus ``"shard-seed"``) and, if it has a parameter of that name, Flower's
    ``context``. With a `source` or a `store` it has a parameter ``shard`` that receives the shard's data, from a store
    a mapping of names to arrays. It returns a :class:`ShardUpdate`. For all holders of a shard to compute the same
    update, its randomness should come from ``config["shard-seed"]``, which depends on run, round and shard but not on
    the client.

    Parameters
    ----------
    num_shards : int, optional
        Number of shards, for servers that assign none (plain FedAvg, say): the client then works through its own part,
        shards ``partition_id * num_shards / num_partitions`` and following. If not given, ``num-shards`` of the run
        config is used, and failing that one shard per partition. A server that does assign shards warns of clients
        that were told another number than it was.
    source : ShardSource, or callable that makes one from the context, optional
        Where the client has its shards from; see :mod:`fedgc.clients.shard_sources`.
    store : ShardStore, or callable that makes one from the context, optional
        Where shards are kept that the server pushes. If it pushes none, they come from `source`.
    labels : sequence of str
        Entries of the node's config that the server may know beside the partition id: its site, say. The client tells
        them before the first round.
    arrayrecord_key, configrecord_key : str
        Names of the records in the messages, as in the server's strategy.

    Returns
    -------
    callable
        A decorator for use under ``@app.train()``.

    Notes
    -----
    The reply carries ``global + sum_j a_j N_j update_j / sum_j N_j`` and ``num-examples`` = ``sum_j N_j``, with the
    assigned coefficients a_j and numbers of examples N_j. Without an assignment all a_j are one, and the reply is what
    any FedAvg client would send; where the server sends a budget alone, as
    :class:`fedgc.strategies.rivals.PartialFedProx` does, it is that of the shards done by then. On a work list the
    client stops before a shard that would end after the deadline, by its seconds per example so far where the server
    says how many the next one has, and sends such a sum for every segment that it has begun. A shard whose data is
    missing ends a work list as the deadline does; on the full schedule the server leaves the reply out. For a server
    that wants secure sums the reply carries ``sum_j a_j N_j update_j`` as fixed-point numbers, and no metrics; see
    :class:`fedgc.strategies.SecureSum`. For one that asks for so many bits per entry, ``GradientCoding(bits=8)``, it
    carries ``sum_j a_j N_j update_j / sum_j N_j`` without the global arrays, rounded and packed into an array of bytes.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.train()
    ... @gradient_coded(num_shards=40)
    ... def train(shard_id, arrays, config):
    ...     return ShardUpdate(num_examples=10, delta={name: 0 * a.numpy() for name, a in arrays.items()})
    """
    if num_shards is not None:
        check_integer("num_shards", num_shards, low=1)

    def decorate(trainer: ShardTrainer) -> TrainFunction:
        wants_context = "context" in inspect.signature(trainer).parameters
        wants_shard = "shard" in inspect.signature(trainer).parameters
        if wants_shard != (source is not None or store is not None):
            raise ValueError(f"source or store must be given exactly if the function takes shard; got {trainer!r:.80}")

        @wraps(trainer)
        def train(message: Message, context: Context) -> Message:
            record = global_arrays(message, arrayrecord_key)
            sent = config_of(message.content, configrecord_key) or ConfigRecord()
            given_record = config_of(message.content, RECORD)
            assignment = assignment_of(given_record, context, num_shards)
            shard_ids = cast(list[int], assignment[SHARD_IDS])
            coefficients = cast(list[float], assignment[COEFFICIENTS])
            arrays = views(record)

            run_seed, server_round = cast(int, assignment[RUN_SEED]), cast(int, sent.get(SERVER_ROUND, 0))
            at_hand = ShardsAtHand(message.content, assignment, context, source, store)
            budget = Budget(at_hand.assignment)
            lengths = cast(list[int], assignment.get(SEGMENTS, [len(shard_ids)]))
            # Counters that were rounded here would be off by a half, times this reply's weight when it is decoded.
            sums = SegmentSums(without_rounding(arrays) if assignment is given_record else arrays, lengths)
            examples: list[int] = []
            metric_sums: dict[str, tuple[float, int]] = {}
            for shard_id, coefficient in zip(shard_ids, coefficients, strict=True):
                if not (at_hand.ready and budget.has_time_for(len(examples))):
                    break
                # Records of its own for each shard: what a trainer writes into them must not reach the next one.
                config, given = own_copy(sent), own_copy(record)
                config[SHARD_SEED] = shard_seed(run_seed, server_round, shard_id)
                data = at_hand.argument(shard_id)
                if data is None:
                    break
                extra: dict[str, Any] = {"context": context, **data} if wants_context else data
                update = trainer(shard_id, given, config, **extra)
                count = check_update(update, shard_id)
                sums.add(coefficient, count, delta_of(update, arrays, shard_id))
                examples.append(count)
                budget.shard_done(count)
                add_metrics(metric_sums, update, count, shard_id)

            # Metrics go in the clear, and would say of a single client what only the sum of all is to say.
            means = {} if FRACTIONAL_BITS in assignment else mean_metrics(metric_sums)
            done = reply_record(assignment, budget, examples, context, num_shards)
            done.update(at_hand.report())
            if INTRODUCE in assignment:
                done.update(introduction(context, labels))
            metrics = checked(MetricRecord, {NUM_EXAMPLES: sum(examples), **means})
            reply = checked(RecordDict, {"metrics": metrics, RECORD: done})
            factors: list[float] = []
            for segment, coded in enumerate(sums.encoded(assignment, server_round, rounded_names(arrays), factors)):
                name = arrayrecord_key if segment == 0 else SUM.format(segment)
                reply[name] = checked(ArrayRecord, {key: record_array(value) for key, value in coded.items()})
            if factors:
                done[VARIANCE_FACTORS] = factors
            return Message(reply, reply_to=message)

        return train

    return decorate
