"""Which strategies the curves of a report show in colour, where there are more than a panel can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedgc.report.conditions import by_condition, strategies_of
from fedgc.report.tables import Entry

#: Lines in colour in a panel at most.
MOST = 8


def shown(found: Sequence[Entry], reference: str | None = None) -> list[str]:
    """Return the labels of the strategies that are shown in colour, the same under all conditions.

    All of them if they are few, else the reference, whoever is the soonest under one of the conditions, and then those
    that are the soonest over all: by the mean of their ranks. Ranks go by the mean way to the target, then by the seeds
    that reached it, then by the final loss. They are in the order in which they first appear.
    """
    labels = strategies_of(found)
    if len(labels) <= MOST:
        return labels
    groups = by_condition(found).values()
    orders = [[entry.strategy for entry in sorted(group, key=_rank_by)] for group in groups]
    ranks = {
        label: float(np.mean([order.index(label) if label in order else len(labels) for order in orders]))
        for label in labels
    }
    soonest = {order[0] for order in orders}
    first = sorted(labels, key=lambda label: (label != reference, label not in soonest, ranks[label]))[:MOST]
    return [label for label in labels if label in first]


def _rank_by(entry: Entry) -> tuple[float, int, float]:
    loss = float(np.mean([run.loss[-1] for run in entry.runs]))
    return entry.mean, -entry.n_reached, loss if np.isfinite(loss) else np.inf
