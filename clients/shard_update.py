"""What a user's train function returns: the update of a shard, or of a row of them, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedgc.protocol import NUM_EXAMPLES
from fedgc.records.array_bytes import view
from fedgc.updates import Update, difference
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
