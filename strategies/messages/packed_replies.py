"""Read sums that clients have rounded to a few bits, as far as the server trusts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fedgc.strategies.messages.arrays import bound
from fedgc.strategies.messages.replies import check_entries, check_weighted, read_sum
from fedgc.strategies.messages.reply_limits import brief_names
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fedgc.errors import ReplyRejectedError
from fedgc.protocol import EXACT, PACKED
from fedgc.quantisers import Quantiser
from fedgc.quantisers.packed_sum import PackedSum, rounded_names, unpack_exact
from fedgc.records.array_bytes import view
from fedgc.updates import Arrays


def read_packed_sum(
    record: ArrayRecord,
    arrays: Arrays,
    n_examples: float,
    *,
    quantiser: Quantiser,
    seed: int,
    bounds: Mapping[str, float] | None,
) -> Arrays:
    """Return a sum that was rounded to a few bits.

    Parameters
    ----------
    record : ArrayRecord
        What was sent: the rounded arrays under one name, and those that are not rounded under another.
    arrays : mapping of str to ndarray
        The global arrays.
    n_examples : float
        Number of examples in the sum.
    quantiser : Quantiser
        What the client was told to round by.
    seed : int
        The seed of the rounding.
    bounds : mapping of str to float or None
        The bound of each global array. If None, nothing is unpacked before it is added, and that it is finite is for
        the caller to find.

    Raises
    ------
    ReplyRejectedError
        If an array is missing or misshapen, or, with bounds, has entries that are not finite or absurd.
    """
    names = rounded_names(arrays)
    others = {name: value for name, value in arrays.items() if name not in set(names)}
    wanted = dict.fromkeys((PACKED, EXACT) if others else (PACKED,))
    if set(record) != set(wanted):
        raise ReplyRejectedError(f"array names must be {brief_names(wanted)}; got {brief_names(record)}")
    data: dict[str, NDArray[Any]] = {}
    for name in wanted:
        try:
            data[name] = view(record[name])
        except Exception as error:
            raise ReplyRejectedError(f"array {name!r} cannot be read: {error}") from None
    exact: Arrays = {}
    try:
        if others:
            sent = unpack_exact(data[EXACT], others)
            exact = read_sum(sent, others, n_examples, bounds, read=np.asarray)
        total = PackedSum(data[PACKED], arrays, exact, quantiser, seed=seed, scale=n_examples)
    except ValueError as error:
        raise ReplyRejectedError(str(error)) from None
    if bounds is None:
        return total
    # Unpacked once, since it is looked at here, sampled and then added.
    read = {name: total[name] for name in arrays}
    for name in names:
        largest = bound(read[name])
        if not np.isfinite(largest):
            raise ReplyRejectedError(f"array {name!r} must be finite in {arrays[name].dtype}; got too much")
        check_entries(name, largest / max(n_examples, 1.0), bounds[name])
        check_weighted(name, largest, arrays[name], n_examples)
    return read
