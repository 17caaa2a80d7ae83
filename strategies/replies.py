"""Check each reply on its own, so that one bad client costs its own contribution and nothing else."""

from __future__ import annotations

from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedgc.encoding import Arrays, all_finite, difference, scaled
from fedgc.errors import ReplyRejectedError
from fedgc.protocol import NUM_EXAMPLES, RECORD, SHARD_EXAMPLES, SHARD_IDS
from fedgc.round import CodedUpdate


def read_reply(
    reply: Message, arrays: Arrays, assigned: NDArray[np.intp], known_sizes: NDArray[np.float64]
) -> tuple[CodedUpdate, MetricRecord]:
    """Turn a client's reply into its coded update and its metrics.

    Parameters
    ----------
    reply : Message
        The reply.
    arrays : mapping of str to ndarray
        The global arrays that the client was sent.
    assigned : ndarray of int, shape (n_assigned,)
        The shards that the client was told to compute.
    known_sizes : ndarray, shape (n_assigned,)
        Number of examples of each of them, NaN where the server was not told.

    Raises
    ------
    ReplyRejectedError
        If the reply is an error, or anything in it is missing, misshapen, not finite, or about other shards.

    Notes
    -----
    The reply's arrays are ``global + coded update / number of examples``, so that wrappers and mods which expect a
    model find one; the coded update is recovered from the difference.
    """
    if reply.has_error():
        raise ReplyRejectedError(f"error {reply.error.code}: {reply.error.reason}")
    content = reply.content
    if len(content.array_records) != 1 or len(content.metric_records) != 1 or RECORD not in content.config_records:
        raise ReplyRejectedError(
            f"a reply must hold one ArrayRecord, one MetricRecord and the ConfigRecord {RECORD!r}; "
            f"got {sorted(content.keys())} (is the train function decorated with gradient_coded?)"
        )
    shard_examples = _shard_examples(content.config_records[RECORD], assigned, known_sizes)
    metrics = next(iter(content.metric_records.values()))
    n_examples = float(shard_examples.sum())
    if metrics.get(NUM_EXAMPLES) != n_examples:
        raise ReplyRejectedError(f"{NUM_EXAMPLES} must be {n_examples:g}; got {metrics.get(NUM_EXAMPLES)!r}")
    _check_metrics(metrics)

    record = next(iter(content.array_records.values()))
    if set(record) != set(arrays):
        raise ReplyRejectedError(f"array names must be {sorted(arrays)}; got {sorted(record)}")
    received: dict[str, NDArray[np.generic]] = {}
    for name, value in arrays.items():
        try:
            array = record[name].numpy()
        except Exception as error:
            raise ReplyRejectedError(f"array {name!r} cannot be read: {error}") from None
        if array.shape != value.shape:
            raise ReplyRejectedError(f"array {name!r} must have shape {value.shape}; got {array.shape}")
        if array.dtype.kind not in "biuf":
            raise ReplyRejectedError(f"array {name!r} must hold real numbers; got {array.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):
            fits = bool(np.isfinite(array).all() and np.isfinite(array.astype(value.dtype)).all())
        if not fits:
            raise ReplyRejectedError(f"array {name!r} must be finite in {value.dtype}; got NaN, infinity or too much")
        received[name] = array
    with np.errstate(over="ignore"):
        total = scaled(difference(received, arrays), n_examples)
    if not all_finite(total):
        raise ReplyRejectedError("arrays must be finite when weighted by their examples; got values too large")
    return CodedUpdate(total, shard_examples), metrics


def _check_metrics(metrics: MetricRecord) -> None:
    for name, metric in metrics.items():
        try:
            finite = bool(np.isfinite(np.asarray(metric, dtype=np.float64)).all())
        except OverflowError:
            finite = False
        if not finite:
            raise ReplyRejectedError(f"metric {name!r} must be finite; got {repr(metric)[:80]}")


def _shard_examples(
    record: ConfigRecord, assigned: NDArray[np.intp], known_sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    shard_ids, examples = record.get(SHARD_IDS), record.get(SHARD_EXAMPLES)
    if not isinstance(shard_ids, list) or shard_ids != assigned.tolist():
        raise ReplyRejectedError(f"{SHARD_IDS} must be {assigned.tolist()}; got {shard_ids!r}")
    if (
        not isinstance(examples, list)
        or len(examples) != len(shard_ids)
        or not all(type(count) is int and 0 <= count < 2**53 for count in examples)
    ):
        raise ReplyRejectedError(
            f"{SHARD_EXAMPLES} must be {len(shard_ids)} integers of at least 0; got {repr(examples)[:80]}"
        )
    counts = np.array(cast(list[int], examples), dtype=np.float64)
    if (np.isfinite(known_sizes) & (counts != known_sizes)).any():
        raise ReplyRejectedError(
            f"{SHARD_EXAMPLES} must be {known_sizes.tolist()} as the server knows; got {examples!r}"
        )
    return counts
