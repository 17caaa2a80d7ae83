"""The rows of results: one for the state after a round, and which rounds have one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedgc.experiment.config import ExperimentConfig

#: The residual error that the updates of all shards, which an experiment has, show the round to have had: squared
#: distance of the aggregate from the one of all shards, relative to the latter's square. What a strategy calls observed
#: is what a server can know of it: who came, while the updates are taken to be as alike as in the past.
MEASURED = "fedgc-error-measured"

#: A loss that has grown to so many times the first one does not come back.
_DIVERGED = 50.0


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
    accuracy, loss : float
        On the test set; the loss of some tasks is that of the training examples.
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


class RowKeeper:
    """Keeps the rows of a run that its configuration asks for, and knows when the run may end.

    Parameters
    ----------
    config : ExperimentConfig
        The experiment.
    keep : callable
        Called with every row that is kept.

    Notes
    -----
    Kept are round 0, every ``record_every``-th, the first at the target and the last.
    """

    def __init__(self, config: ExperimentConfig, keep: Callable[[Row], None]) -> None:
        self._config, self._keep = config, keep
        self._first_loss = math.inf
        self._reached = False
        self._waiting: Row | None = None

    def wanted(self, server_round: int, loss: float) -> bool:
        """Return whether a row of this round may be kept, so that its accuracy is needed."""
        config = self._config
        regular = server_round % config.record_every == 0 or server_round == config.rounds
        return regular or config.target_loss is None or self._ends_at(loss)

    def add(self, row: Row) -> bool:
        """Take a round's row, and return whether the run may end with it."""
        if row.round == 0:
            self._first_loss = row.loss
        first = not self._reached and self._config.target.reached(accuracy=row.accuracy, loss=row.loss)
        self._reached |= first
        if first or row.round % self._config.record_every == 0:
            self._waiting = None
            self._keep(row)
        else:
            self._waiting = row
        return self._config.stop_at_target and (self._reached or self._diverged(row.loss))

    def end(self) -> None:
        """Keep the last row, if it has not been."""
        if self._waiting is not None:
            self._keep(self._waiting)
            self._waiting = None

    def _ends_at(self, loss: float) -> bool:
        return loss <= (self._config.target_loss or 0.0) or self._diverged(loss)

    def _diverged(self, loss: float) -> bool:
        return not math.isfinite(loss) or loss > _DIVERGED * self._first_loss
