"""The client's side of a coded round: the user writes the update of one shard, the rest is done here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, cast

import numpy as np
from fedgc.clients.encode import Budget, SegmentSums
from fedgc.clients.shards_at_hand import ShardsAtHand, SourceLike, StoreLike
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedgc.assignment import own_part
from fedgc.protocol import (
    BUDGET,
    BUSY_SECONDS,
    COEFFICIENTS,
    FRACTIONAL_BITS,
    IN_A_ROW,
    INTRODUCE,
    LABEL,
    NUM_EXAMPLES,
    NUM_SHARDS,
    PARTITION,
    RECORD,
    RUN_SEED,
    SEGMENTS,
    SERVER_ROUND,
    SHARD_EXAMPLES,
    SHARD_IDS,
    SHARD_SEED,
    SUM,
    VARIANCE_FACTORS,
    WORK_SECONDS,
    shard_seed,
)
from fedgc.quantisers.packed_sum import rounded_names
from fedgc.records.array_bytes import record_array, view, views
from fedgc.records.copies import checked, config_of, own_copy
from fedgc.updates import Update, difference, without_rounding
from fedgc.validation import check_integer

#: What the user may hand over as arrays: Flower's record, or names with numpy arrays or torch tensors.
ArraysLike = ArrayRecord | Mapping[str, Any]


@dataclass(frozen=True)
class ShardUpdate:
    """The result of training on one shard.

    Parameters
    ----------
    num_examples : int
        Number of training examples in the shard.
    arrays : ArrayRecord or mapping of str to array, optional
        The arrays after training, a torch ``state_dict`` for instance. Give either these or `delta`.
    delta : ArrayRecord or mapping of str to array, optional
        The change of the arrays, or minus a gradient.
    metrics : mapping of str to float
        Training metrics, one number each, averaged over the shards by number of examples: those of a shard without
        examples do not count. ``num-examples`` is not among them.
    """

    num_examples: int
    arrays: ArraysLike | None = None
    delta: ArraysLike | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


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
    :class:`fedgc.strategies.baselines.PartialFedProx` does, it is that of the shards done by then. On a work list the
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


def global_arrays(message: Message, key: str) -> ArrayRecord:
    """Return the global arrays, or raise ValueError if the message has none by that name."""
    record = message.content.get(key)
    if not isinstance(record, ArrayRecord):
        names = sorted(message.content.array_records)
        raise ValueError(f"arrayrecord_key must name a record of the message, of {names}; got {key!r}")
    return record


def introduction(context: Context, labels: Sequence[str]) -> dict[str, int | str]:
    """Return what the server may know of this node."""
    config = context.node_config
    partition = {PARTITION: int(cast(int, config["partition-id"]))} if "partition-id" in config else {}
    return partition | {f"{LABEL}{name}": str(config[name]) for name in labels if name in config}


def _own_number(context: Context, num_shards: int | None) -> dict[str, int]:
    """Return the number of shards that the client was told, if it was: the server warns if its own is another."""
    told = num_shards or context.run_config.get(NUM_SHARDS)
    return {} if told is None else {NUM_SHARDS: int(cast(int, told))}


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


def check_update(update: object, shard_id: int) -> int:
    """Return the number of examples of what a train function returns, or raise an error if it is no update."""
    if not isinstance(update, ShardUpdate):
        raise TypeError(f"shard {shard_id}: the train function must return a ShardUpdate; got {type(update).__name__}")
    if (update.arrays is None) == (update.delta is None):
        raise ValueError(f"shard {shard_id}: a ShardUpdate must hold either arrays or delta; got both or neither")
    if NUM_EXAMPLES in update.metrics:
        raise ValueError(
            f"shard {shard_id}: metrics must not hold {NUM_EXAMPLES!r}, which is the argument num_examples"
        )
    return check_integer(f"shard {shard_id}: num_examples", update.num_examples, low=0)


def add_metrics(sums: dict[str, tuple[float, int]], update: ShardUpdate, count: int, shard_id: int) -> None:
    """Add a shard's metrics, times its examples, and these: they are averaged over the shards that report them."""
    for name, value in update.metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"shard {shard_id}: metric {name!r} must be a number; got {value!r:.80}") from None
        total, examples = sums.get(name, (0.0, 0))
        # One without examples has no weight in the mean, and what it reports is a mean over nothing: NaN, often.
        sums[name] = total + (count * number if count else 0.0), examples + count


def mean_metrics(sums: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Return the means of metrics, of sums and numbers of examples."""
    return {name: value / max(examples, 1) for name, (value, examples) in sums.items()}


def delta_of(update: ShardUpdate, arrays: dict[str, NDArray[Any]], shard_id: int) -> Update:
    """Return how far an update moves the arrays, or raise ValueError if its arrays are not like these."""
    given = update.arrays if update.arrays is not None else update.delta
    values = {name: _to_numpy(value) for name, value in cast(Mapping[str, Any], given).items()}
    if values.keys() != arrays.keys():
        raise ValueError(f"shard {shard_id}: array names must be {sorted(arrays)}; got {sorted(values)}")
    for name, value in values.items():
        if value.shape != arrays[name].shape:
            raise ValueError(
                f"shard {shard_id}: array {name!r} must have shape {arrays[name].shape}; got {value.shape}"
            )
        for dtype in (value.dtype, arrays[name].dtype):
            if dtype.kind not in "biuf":
                raise ValueError(f"shard {shard_id}: array {name!r} must hold real numbers; got {dtype}")
    return difference(values, arrays) if update.arrays is not None else values


def _to_numpy(value: Any) -> NDArray[Any]:  # noqa: ANN401  (arrays of any library)
    if isinstance(value, Array):
        return view(value)
    if hasattr(value, "detach"):  # a torch tensor: torch has been imported by who made it
        from fedgc.clients.torch_state import to_numpy  # noqa: PLC0415

        return to_numpy(value)
    return np.asarray(value)
