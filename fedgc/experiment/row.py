"""One line of an experiment's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The residual error that the updates of all shards, which an experiment has, show the round to have had: squared
#: distance of the aggregate from the one of all shards, relative to the latter's square. What a strategy calls observed
#: is what a server can know of it: who came, while the updates are taken to be as alike as in the past.
MEASURED = "fedgc-error-measured"


@dataclass(frozen=True)
class Row:
    """One line of the results: the state after a round (round 0: before the first).

    Attributes
    ----------
    strategy : str
        The strategy's label.
    seed, round : int
        Seed and round number.
    seconds : float
        Virtual seconds since the start.
    accuracy : float
        On the test set.
    loss : float
        On what the task measures it, see :mod:`fedgc.tasks`: the test set, or all training examples.
    metrics : mapping of str to float
        What the strategy reports of the round, see :attr:`fedgc.strategies.RoundReport.metrics`; of other strategies
        the clients that were asked and that came. After each round :data:`MEASURED` as well.
    settings : mapping of str to value
        Of a sweep the keys that are varied, and the value that each has here.
    """

    strategy: str
    seed: int
    round: int
    seconds: float
    accuracy: float
    loss: float
    metrics: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
