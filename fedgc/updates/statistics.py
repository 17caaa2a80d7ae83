"""Running statistics of a model: measured, not trained, and so averaged and not summed."""

from __future__ import annotations

from fedgc.updates.number_types import Update
from fedgc.updates.sums import scaled

#: How torch and Keras name them.
_STATISTICS = {"running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance"}


def is_statistic(name: str) -> bool:
    """Return whether an array is a running statistic, by the last part of its name."""
    return name.replace("/", ".").split(".")[-1] in _STATISTICS


def average_statistics(update: Update, total_weight: float) -> Update:
    """Return the update with running statistics as a weighted mean instead of a weighted sum.

    Parameters
    ----------
    update : dict of str to ndarray
        The decoded update.
    total_weight : float
        Sum over the shards of how often each counts in it, times its share of the examples. If it is not above zero,
        the statistics stay as they are.

    Notes
    -----
    The weights of a round sum to one only on average. Along a gradient that is a longer or shorter step. A running
    variance that falls from 1 to 0.1 on every shard, with weights that sum to 1.2, would become ``1 - 1.2 x 0.9``,
    which is negative, and a network in evaluation mode would answer NaN. Divided by the sum, statistics lie between
    those of the clients as long as no weight is negative, at a bias of the order of the weights' variance. What is a
    running statistic is told by the last part of its name, as torch and Keras name them.

    Examples
    --------
    >>> import numpy as np
    >>> average_statistics({"bn.running_var": np.array([-1.08]), "w": np.array([-1.08])}, 1.2)
    {'bn.running_var': array([-0.9]), 'w': array([-1.08])}
    """
    scale = 1.0 / total_weight if total_weight > 0.0 else 0.0
    return {name: scaled({name: value}, scale)[name] if is_statistic(name) else value for name, value in update.items()}
