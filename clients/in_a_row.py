"""Shards in a row: a client trains on from shard to shard until the deadline, and replies with what it ends with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import cast

import numpy as np
from fedgc.clients.encode import Budget
from fedgc.clients.shard_update import ShardUpdate, add_metrics, check_update, delta_of, mean_metrics
from fedgc.clients.shards import TrainFunction
from fedgc.clients.train_message import assignment_of, global_arrays, introduction, reply_record
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
from fedgc.updates import apply_update, without_rounding
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
        self._begun = False

    @property
    def num_examples(self) -> int:
        """Number of examples of the pieces so far, all of which are done once the batches are over."""
        return sum(self.examples)

    def batches(
        self, examples_of: Callable[[int], ArrayLike], *, size: int, epochs: int = 1
    ) -> Iterator[NDArray[np.int64]]:
        """Yield batches of examples until the work or the time is over; to be called once.

        Parameters
        ----------
        examples_of : callable
            The numbers of a shard's examples, for one of the shards.
        size : int
            Examples in a batch.
        epochs : int
            How often each example of a shard counts, if all of its pieces are done.

        Yields
        ------
        ndarray of int
            Numbers of examples. All batches but the last are of `size`, and run across the borders of pieces, so that
            small shards make no small steps; the last should move the model by as much less as it is smaller. A
            shard's examples come in a random order, which depends on the run's seed, the round and the shard, and
            anew for each epoch; its pieces divide that order, whoever does which of them.

        Raises
        ------
        ValueError
            If a number is out of range, the examples are no numbers, or the batches have been asked for before.

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
        if self._begun:
            raise ValueError("batches must be asked for once, with epochs= for more than one pass; got a second call")
        self._begun = True
        left = np.empty(0, dtype=np.int64)
        orders: dict[int, NDArray[np.int64]] = {}
        for piece_id in self._piece_ids:
            shard_id, part = divmod(piece_id, self._pieces)
            if shard_id not in orders:
                orders[shard_id] = self._order(shard_id, examples_of(shard_id), epochs)
            order = orders[shard_id]
            sizes = piece_sizes(order.size // epochs, self._pieces)
            # What waits for its batch has to be done too.
            if not self._budget.has_time_for_examples(left.size + epochs * sizes[part], len(self.examples)):
                break
            self.examples.append(sizes[part])
            start = epochs * sum(sizes[:part])
            left = np.append(left, order[start : start + epochs * sizes[part]])
            while left.size >= size:
                yield left[:size]
                self._budget.shard_done(size)
                left = left[size:]
        if left.size:
            yield left
            self._budget.shard_done(left.size)

    def _order(self, shard_id: int, examples: ArrayLike, epochs: int) -> NDArray[np.int64]:
        own = np.asarray(examples)
        if own.ndim != 1 or (own.size and own.dtype.kind not in "iu"):
            raise ValueError(f"examples_of({shard_id}) must be a row of whole numbers; got {own.dtype} of {own.shape}")
        rng = np.random.default_rng(self._seed_of(shard_id))
        return np.concatenate([rng.permutation(own) for _ in range(epochs)]).astype(np.int64)


def piece_sizes(examples: int, pieces: int) -> list[int]:
    """Return the numbers of examples of the pieces of a shard.

    Examples
    --------
    >>> piece_sizes(8, 3)
    [3, 3, 2]
    """
    return [examples // pieces + (part < examples % pieces) for part in range(pieces)]


#: The user's function: (row, arrays, config), and context= if it has that parameter, to ShardUpdate.
RowTrainer = Callable[..., ShardUpdate]


def coded_in_a_row(
    *,
    num_shards: int,
    pieces: int = 1,
    labels: Sequence[str] = (),
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
) -> Callable[[RowTrainer], TrainFunction]:
    """Turn training on a row of shards into a train function for ``GradientCoding(in_a_row=True)``.

    The decorated function receives a :class:`RowOfShards`, ``arrays`` (ArrayRecord, the global arrays) and ``config``
    (ConfigRecord, as sent by the server, plus ``"shard-seed"``), and if it has a parameter of that name Flower's
    ``context``. It trains on the row's batches, one after another, and returns a :class:`ShardUpdate` with the row's
    ``num_examples`` and the arrays that it ends with.

    Parameters
    ----------
    num_shards : int
        Number of shards of the data. Of servers that assign none, plain FedAvg say, the client works on its own part.
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
    total = check_integer("num_shards", num_shards, low=1) * check_integer("pieces", pieces, low=1)

    def decorate(trainer: RowTrainer) -> TrainFunction:
        wants_context = "context" in inspect.signature(trainer).parameters

        @wraps(trainer)
        def train(message: Message, context: Context) -> Message:
            record = global_arrays(message, arrayrecord_key)
            sent = config_of(message.content, configrecord_key) or ConfigRecord()
            given = config_of(message.content, RECORD)
            assignment = assignment_of(given, context, total, in_a_row=True)
            piece_ids = cast("list[int]", assignment[SHARD_IDS])
            run_seed, server_round = cast(int, assignment[RUN_SEED]), cast(int, sent.get(SERVER_ROUND, 0))
            budget, arrays = Budget(assignment), views(record)
            row = RowOfShards(piece_ids, pieces, budget, lambda shard: shard_seed(run_seed, server_round, shard))
            metric_sums: dict[str, tuple[float, int]] = {}
            moved = arrays
            if piece_ids:
                config = own_copy(sent)
                config[SHARD_SEED] = shard_seed(run_seed, server_round, piece_ids[0])
                update = trainer(row, own_copy(record), config, **({"context": context} if wants_context else {}))
                count = check_update(update, piece_ids[0])
                if count != row.num_examples:
                    raise ValueError(
                        f"num_examples of the ShardUpdate must be the row's, {row.num_examples}; got {count}"
                    )
                add_metrics(metric_sums, update, count, piece_ids[0])
                if count:
                    # The server sums counters as they are: rounded here they would be off by a half.
                    base = without_rounding(arrays) if assignment is given else arrays
                    moved = apply_update(base, delta_of(update, arrays, piece_ids[0]))
            done = reply_record(assignment, budget, row.examples, context, total)
            if INTRODUCE in assignment:
                done.update(introduction(context, labels))
            metrics = checked(MetricRecord, {NUM_EXAMPLES: row.num_examples, **mean_metrics(metric_sums)})
            reply = checked(RecordDict, {"metrics": metrics, RECORD: done})
            reply[arrayrecord_key] = checked(ArrayRecord, {key: record_array(value) for key, value in moved.items()})
            return Message(reply, reply_to=message)

        return train

    return decorate
