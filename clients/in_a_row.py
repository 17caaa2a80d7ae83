"""Shards in a row: a client trains on from shard to shard until the deadline, and replies with what it ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import cast

import numpy as np
from fedgc.clients.encode import Budget
from fedgc.clients.shards import (
    ShardUpdate,
    TrainFunction,
    assignment_of,
    check_update,
    delta_of,
    global_arrays,
    introduction,
    reply_record,
)
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import ArrayLike, NDArray

from fedgc.protocol import (
    INTRODUCE,
    NUM_EXAMPLES,
    RECORD,
    RUN_SEED,
    SERVER_ROUND,
    SHARD_IDS,
    SHARD_SEED,
    shard_seed,
)
from fedgc.records.array_bytes import record_array, views
from fedgc.records.copies import checked, config_of, own_copy
from fedgc.updates import apply_update
from fedgc.validation import check_integer


class RowOfShards:
    """The pieces of shards that a client is to train on, one after another, until there is no time for more.

    Parameters
    ----------
    piece_ids : sequence of int
        The pieces, in order: piece ``j * pieces + k`` is the k-th part of shard j.
    pieces : int
        Into how many each shard is divided.
    budget : Budget
        Tells whether there is time for another.
    seed_of : callable
        The seed of a shard's order in this round.
    """

    def __init__(self, piece_ids: Sequence[int], pieces: int, budget: Budget, seed_of: Callable[[int], int]) -> None:
        self._piece_ids, self._pieces = piece_ids, pieces
        self._budget, self._seed_of = budget, seed_of
        self.examples: list[int] = []

    @property
    def num_examples(self) -> int:
        """Number of examples of the pieces that have been begun so far."""
        return sum(self.examples)

    def batches(
        self, examples_of: Callable[[int], ArrayLike], *, size: int, epochs: int = 1
    ) -> Iterator[NDArray[np.int64]]:
        """Yield batches of examples until the work or the time is over.

        Parameters
        ----------
        examples_of : callable
            The numbers of a shard's examples, for one of the shards.
        size : int
            Examples in a batch.
        epochs : int
            How often each example of a piece counts.

        Yields
        ------
        ndarray of int
            Numbers of examples. All batches but the last are of `size`, and run across the borders of pieces, so that
            small shards make no small steps; the last should move the model by as much less as it is smaller. A
            shard's examples come in a random order, which depends on the run's seed, the round and the shard, and
            anew for each epoch; its pieces divide that order, so that whoever does which of them, no example is done
            more often than the others.

        Examples
        --------
        >>> row = RowOfShards([2, 3, 0], 2, Budget(ConfigRecord()), seed_of=lambda shard_id: 7)
        >>> [batch.size for batch in row.batches(lambda shard_id: np.arange(5) + 5 * shard_id, size=3)]
        [3, 3, 2]
        >>> row.examples
        [3, 2, 3]
        """
        check_integer("size", size, low=1)
        check_integer("epochs", epochs, low=1)
        left = np.empty(0, dtype=np.int64)
        orders: dict[int, NDArray[np.int64]] = {}
        for piece_id in self._piece_ids:
            if not self._budget.has_time_for(len(self.examples)):
                break
            shard_id, part = divmod(piece_id, self._pieces)
            if shard_id not in orders:
                rng = np.random.default_rng(self._seed_of(shard_id))
                own = np.asarray(examples_of(shard_id), dtype=np.int64)
                orders[shard_id] = np.concatenate([rng.permutation(own) for _ in range(epochs)])
            order = orders[shard_id]
            sizes = piece_sizes(order.size // epochs, self._pieces)
            start = epochs * sum(sizes[:part])
            left = np.append(left, order[start : start + epochs * sizes[part]])
            while left.size >= size:
                yield left[:size]
                left = left[size:]
            self.examples.append(sizes[part])
            self._budget.shard_done(sizes[part])
        if left.size:
            yield left
            self._budget.shard_done(0)


def piece_sizes(examples: int, pieces: int) -> list[int]:
    """Return the numbers of examples of the pieces of a shard.

    Examples
    --------
    >>> piece_sizes(8, 3)
    [3, 3, 2]
    """
    return [examples // pieces + (part < examples % pieces) for part in range(pieces)]


#: The user's function: (row, arrays, config) to ShardUpdate.
RowTrainer = Callable[[RowOfShards, ArrayRecord, ConfigRecord], ShardUpdate]


def coded_in_a_row(
    *,
    num_shards: int | None = None,
    pieces: int = 1,
    labels: Sequence[str] = (),
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
) -> Callable[[RowTrainer], TrainFunction]:
    """Turn training on a row of shards into a train function for ``GradientCoding(in_a_row=True)``.

    The decorated function receives a :class:`RowOfShards`, ``arrays`` (ArrayRecord, the global arrays) and ``config``
    (ConfigRecord, as sent by the server, plus ``"shard-seed"``). It trains on the row's batches, one after another, and
    returns a :class:`ShardUpdate` with the row's ``num_examples`` and the arrays that it ends with.

    Parameters
    ----------
    num_shards : int, optional
        Number of shards of the data, for servers that assign none; see :func:`fedgc.clients.gradient_coded`.
    pieces : int
        Into how many pieces each shard is divided. The server assigns pieces: its strategy's ``num_shards`` is
        `num_shards` times `pieces`. What is done of a piece when the deadline comes is lost, so there should be one for
        every step or two.
    labels : sequence of str
        Entries of the node's config that the server may know beside the partition id.
    arrayrecord_key, configrecord_key : str
        Names of the records in the messages, as in the server's strategy.

    Returns
    -------
    callable
        A decorator for use under ``@app.train()``.

    Notes
    -----
    The reply carries the arrays that training ends with, and ``num-examples``, as any FedAvg client's would.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.train()
    ... @coded_in_a_row(num_shards=40, pieces=6)
    ... def train(row, arrays, config):
    ...     model = {name: array.numpy().copy() for name, array in arrays.items()}
    ...     for batch in row.batches(lambda shard_id: range(10 * shard_id, 10 * shard_id + 10), size=4):
    ...         model["w"] -= 0.1 * batch.size / 4  # a step as long as the batch is large
    ...     return ShardUpdate(row.num_examples, model)
    """
    if num_shards is not None:
        check_integer("num_shards", num_shards, low=1)
    check_integer("pieces", pieces, low=1)
    total = None if num_shards is None else num_shards * pieces

    def decorate(trainer: RowTrainer) -> TrainFunction:
        @wraps(trainer)
        def train(message: Message, context: Context) -> Message:
            record = global_arrays(message, arrayrecord_key)
            sent = config_of(message.content, configrecord_key) or ConfigRecord()
            assignment = assignment_of(config_of(message.content, RECORD), context, total, in_a_row=True)
            piece_ids = cast("list[int]", assignment[SHARD_IDS])
            run_seed, server_round = cast(int, assignment[RUN_SEED]), cast(int, sent.get(SERVER_ROUND, 0))
            budget = Budget(assignment)
            row = RowOfShards(piece_ids, pieces, budget, lambda shard: shard_seed(run_seed, server_round, shard))
            reply = checked(RecordDict, {})
            if piece_ids:
                config = own_copy(sent)
                config[SHARD_SEED] = shard_seed(run_seed, server_round, piece_ids[0])
                update = trainer(row, own_copy(record), config)
                if check_update(update, piece_ids[0]) != row.num_examples:
                    raise ValueError(
                        f"num_examples of the ShardUpdate must be the row's, {row.num_examples}; "
                        f"got {update.num_examples}"
                    )
                arrays = views(record)
                moved = apply_update(arrays, delta_of(update, arrays, piece_ids[0])) if row.num_examples else arrays
                means = update.metrics if row.num_examples else {}
            else:
                moved, means = views(record), {}
            done = reply_record(assignment, budget, row.examples, context, total)
            if INTRODUCE in assignment:
                done.update(introduction(context, labels))
            reply["metrics"] = checked(MetricRecord, {NUM_EXAMPLES: row.num_examples, **means})
            reply[RECORD] = done
            reply[arrayrecord_key] = checked(ArrayRecord, {key: record_array(value) for key, value in moved.items()})
            return Message(reply, reply_to=message)

        return train

    return decorate
