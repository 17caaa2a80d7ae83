"""Check each reply on its own, so that one bad client costs its own contribution and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from fedgc.strategies.messages.arrays import bound
from fedgc.strategies.messages.client_task import ClientTask
from fedgc.strategies.messages.reply_limits import brief, brief_names, check_limits, one_line
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.constant import ErrorCode
from numpy.typing import NDArray

from fedgc.errors import NothingToReadError, ReplyRejectedError
from fedgc.protocol import (
    BUSY_SECONDS,
    LACKING_SHARDS,
    NUM_EXAMPLES,
    RECORD,
    SHARD_EXAMPLES,
    SHARD_IDS,
    SUM,
    VARIANCE_FACTORS,
    WORK_SECONDS,
)
from fedgc.records.array_bytes import view
from fedgc.round import CodedUpdate
from fedgc.updates import Arrays, ScaledDifference, sum_dtype

#: Flower's codes for what never reached the client, or the server: message, reply or node unavailable.
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

#: What a sum must stay below, in single and in double precision: one that is just finite would take the decoded update
#: out of range, and cost the round. This leaves room for weights of a hundred million, and for a billion squares.
_MOST = {4: 1e30, 8: 1e140}

#: Entries this many times as large as the model's largest, and as one, are absurd: nothing trains with them.
_ABSURD = 1e12


def read_reply(
    reply: Message,
    arrays: Arrays,
    task: ClientTask,
    known_sizes: NDArray[np.float64],
    seconds: float | None = None,
    *,
    read_other: Callable[[ArrayRecord, Arrays, float, NDArray[np.intp]], Arrays] | None = None,
    bounds: Mapping[str, float] | None = None,
) -> tuple[CodedUpdate, MetricRecord]:
    """Turn a client's reply into its coded update and its metrics.

    Parameters
    ----------
    reply : Message
        The reply.
    arrays : mapping of str to ndarray
        The global arrays that the client was sent.
    task : ClientTask
        What the client was told to do.
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    seconds : float, optional
        Seconds from the message to the reply.
    read_other : callable, optional
        What makes a sum of an ArrayRecord, the global arrays, a number of examples and the shards that it is over; by
        default as below.
    bounds : mapping of str to float, optional
        The :func:`bound` of each global array. If None, that arrays of a type in which they are summed are finite, when
        weighted too, is for the caller to find.

    Raises
    ------
    ReplyRejectedError
        If the reply is an error, or anything in it is missing, misshapen, not finite, or about other shards; a
        :class:`fedgc.errors.ReplyTooLargeError` if it holds more than it may, see
        :mod:`fedgc.strategies.messages.reply_limits`.

    Notes
    -----
    The reply's arrays are ``global + coded update / number of examples``, so that wrappers and mods which expect a
    model find one; the coded update is recovered from the difference. On a work list there is one such record for each
    segment of the list that the client has begun. Of shards in a row there is one record, ``global + coded update``,
    and each shard's part of the update is that of its examples.
    """
    if reply.has_error():
        kind = NothingToReadError if reply.error.code in _LOST else ReplyRejectedError
        raise kind(f"error {reply.error.code}: {one_line(reply.error.reason)}")
    # Once, by hand: Flower's own views by kind are made anew, and checked, whenever they are asked for.
    content = dict(reply.content.items())
    check_limits(content, arrays, task.most_sums, task.shards.size)
    array_records = {name: record for name, record in content.items() if isinstance(record, ArrayRecord)}
    metric_records = [record for record in content.values() if isinstance(record, MetricRecord)]
    said = content.get(RECORD)
    if not array_records or len(metric_records) != 1 or not isinstance(said, ConfigRecord):
        raise ReplyRejectedError(
            f"a reply must hold one ArrayRecord, one MetricRecord and the ConfigRecord {RECORD!r}; "
            f"got {brief_names(content)} (is the train function decorated with gradient_coded, or coded_in_a_row?)"
        )
    shards, shard_examples = _shard_examples(said, task, known_sizes)
    if _ended_for_want_of_data(said, task, shards.size):
        seconds = None  # the time that it took says nothing about the client's pace
    metrics = metric_records[0]
    n_examples = float(shard_examples.sum())
    if metrics.get(NUM_EXAMPLES) != n_examples:
        raise ReplyRejectedError(f"{NUM_EXAMPLES} must be {n_examples:g}; got {brief(metrics.get(NUM_EXAMPLES))}")
    check_metrics(metrics)

    rows = task.rows_after(shards.size)
    if task.in_a_row:
        (record,) = _in_order(array_records, 1)
        # The arrays have moved by the sum of all of it already, example by example, and not by a mean.
        whole = read_sum(record, arrays, 1.0, bounds)
        parts = shard_examples / n_examples if n_examples else shard_examples
        shares: dict[int, Arrays] = {
            row: ScaledDifference(whole.new, whole.old, part)
            for (row, _), part in zip(rows, parts.tolist(), strict=True)
        }
        return CodedUpdate(shares, shards, shard_examples, seconds, *_own_times(said)), metrics
    records = _in_order(array_records, max(len(rows), 1))
    sums: dict[int, Arrays] = {}
    start = 0
    for record, (row, length) in zip(records, rows or [(-1, 0)], strict=True):
        count = float(shard_examples[start : start + length].sum())
        if read_other is not None:
            sums[row] = read_other(record, arrays, count, shards[start : start + length])
        else:
            sums[row] = read_sum(record, arrays, count, bounds)
        start += length
    sums.pop(-1, None)  # nothing was done: the record is checked, and holds no sum
    work, busy = _own_times(said)
    factors = _factors(said.get(VARIANCE_FACTORS), len(sums))
    return CodedUpdate(sums, shards, shard_examples, seconds, work, busy, factors), metrics


def _in_order(records: Mapping[str, ArrayRecord], wanted: int) -> list[ArrayRecord]:
    """Return the ArrayRecords of the sums in order: the one with the user's name for it first."""
    later = [SUM.format(segment) for segment in range(1, wanted)]
    first = [name for name in records if name not in later]
    if len(first) != 1 or len(records) != wanted:
        one = "one ArrayRecord" if wanted == 1 else f"{wanted} ArrayRecords, with {', '.join(later)} among them"
        raise ReplyRejectedError(f"a reply must hold {one}; got {brief_names(records)}")
    return [records[name] for name in first + later]


def read_sum(
    record: Mapping[str, Any],
    arrays: Arrays,
    n_examples: float,
    bounds: Mapping[str, float] | None,
    *,
    read: Callable[[Any], NDArray[Any]] = view,
) -> ScaledDifference:
    """Return a sum that was sent as a model, see :func:`read_reply`; `read` makes a numpy array of each array sent."""
    if set(record) != set(arrays):
        raise ReplyRejectedError(f"array names must be {brief_names(arrays)}; got {brief_names(record)}")
    received: dict[str, NDArray[np.generic]] = {}
    stays = True
    for name, value in arrays.items():
        try:
            array = read(record[name])
        except Exception as error:
            raise ReplyRejectedError(f"array {name!r} cannot be read: {error}") from None
        if array.shape != value.shape:
            raise ReplyRejectedError(f"array {name!r} must have shape {value.shape}; got {array.shape}")
        if array.dtype.kind not in "biuf":
            raise ReplyRejectedError(f"array {name!r} must hold real numbers; got {array.dtype}")
        received[name] = array
        if bounds is None and array.dtype == value.dtype == sum_dtype(value.dtype):
            continue
        largest = bound(array)
        with np.errstate(over="ignore", invalid="ignore"):
            fits = array.dtype == value.dtype or bool(np.isfinite(array.astype(value.dtype)).all())
        if not (fits and np.isfinite(largest)):
            raise ReplyRejectedError(f"array {name!r} must be finite in {value.dtype}; got NaN, infinity or too much")
        of_global = bound(value) if bounds is None else bounds[name]
        check_entries(name, largest, of_global)
        stays = stays and (largest + of_global) * max(n_examples, 1.0) < _most(value)
    total = ScaledDifference(received, arrays, n_examples)
    # Large values that do not move are no reason: masks, say.
    for name, value in () if stays else arrays.items():
        check_weighted(name, bound(total[name]), value, n_examples)
    return total


def check_entries(name: str, largest: float, of_global: float) -> None:
    """Raise ReplyRejectedError if entries of an array are absurd beside the global one's."""
    if largest > _ABSURD * (1.0 + of_global):
        raise ReplyRejectedError(
            f"array {name!r} must have entries of at most {_ABSURD:g} times the model's largest, or one; "
            f"got {largest:.3g}"
        )


def check_weighted(name: str, largest: float, value: NDArray[np.generic], n_examples: float) -> None:
    """Raise ReplyRejectedError if entries of a sum are so large that the decoded one may be out of range."""
    if not largest < _most(value):
        raise ReplyRejectedError(
            f"update of array {name!r} must stay below {_most(value):g} when weighted by {n_examples:g} examples; "
            f"got {largest:.3g}"
        )


def _most(array: NDArray[np.generic]) -> float:
    """Return what the entries of a sum of such arrays must stay below."""
    return _MOST[min(sum_dtype(array.dtype).itemsize, 8)]


def _own_times(said: ConfigRecord) -> tuple[float | None, float | None]:
    return _seconds(said.get(WORK_SECONDS)), _seconds(said.get(BUSY_SECONDS))


def _seconds(value: object) -> float | None:
    """Return a client's own time, or None if it makes no sense: it is not worth losing the update for."""
    return float(value) if isinstance(value, (int, float)) and 0.0 <= float(value) < 1e12 else None


def _factors(value: object, n_sums: int) -> tuple[float, ...]:
    """Return the variance factors that a client tells, or none if they make no sense.

    They are reported, and of a known coherence weights go by the median of what all tell: no update is lost for them.
    """
    given = value if isinstance(value, list) and len(value) == n_sums else []
    good = all(isinstance(factor, float) and 0.0 <= factor < 1e12 for factor in given)
    return tuple(given) if good else ()


def _ended_for_want_of_data(said: ConfigRecord, task: ClientTask, done: int) -> bool:
    lacking = said.get(LACKING_SHARDS)
    return isinstance(lacking, list) and done < task.shards.size and int(task.shards[done]) in lacking


def check_metrics(metrics: MetricRecord) -> None:
    """Raise ReplyRejectedError if a metric is not finite."""
    for name, metric in metrics.items():
        try:
            numbers = metric if isinstance(metric, list) else [metric]
            finite = all(map(math.isfinite, numbers))
        except OverflowError:
            finite = False
        if not finite:
            raise ReplyRejectedError(f"metric {name!r} must be finite; got {brief(metric)}")


def _shard_examples(
    record: ConfigRecord, task: ClientTask, known_sizes: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    shard_ids, examples = record.get(SHARD_IDS), record.get(SHARD_EXAMPLES)
    assigned = task.shards.tolist()
    if not task.partial and shard_ids != assigned and LACKING_SHARDS in record:
        raise NothingToReadError(f"it lacks the data of shards {brief(record[LACKING_SHARDS])}")
    if not isinstance(shard_ids, list) or shard_ids != (assigned[: len(shard_ids)] if task.partial else assigned):
        beginning = "the beginning of " if task.partial else ""
        raise ReplyRejectedError(f"{SHARD_IDS} must be {beginning}{assigned}; got {brief(shard_ids)}")
    if (
        not isinstance(examples, list)
        or len(examples) != len(shard_ids)
        or not all(type(count) is int and 0 <= count < 2**53 for count in examples)
    ):
        raise ReplyRejectedError(
            f"{SHARD_EXAMPLES} must be {len(shard_ids)} integers of at least 0; got {brief(examples)}"
        )
    shards = task.shards[: len(shard_ids)]
    counts, known = np.array(cast(list[int], examples), dtype=np.float64), known_sizes[shards]
    if (np.isfinite(known) & (counts != known)).any():
        told = f"{known.tolist()} as the server knows; got {brief(examples)}"
        raise ReplyRejectedError(f"{SHARD_EXAMPLES} must be {told}")
    return shards, counts
