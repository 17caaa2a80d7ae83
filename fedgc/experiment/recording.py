"""Which rounds of a run are kept as rows, and when a run ends before its last round."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.row import Row

#: A run whose loss has grown to so many times what it was at the start has diverged.
DIVERGED = 50.0


class RunEnded(Exception):  # noqa: N818  (no error: it ends Flower's loop, which nothing else does from inside)
    """A run is over: it has reached its target or its time limit, or its loss has diverged."""


class KeptRows:
    """Keep round 0, every n-th round, the first one at the target and the last one, and end a run that is over.

    Parameters
    ----------
    config : ExperimentConfig
        Says what is kept, and whether a run ends at its target.
    keep : callable
        Called with every row that is kept, in order.
    time_limit : float
        Seconds after which a run ends with the round that is under way.
    """

    def __init__(self, config: ExperimentConfig, keep: Callable[[Row], None], *, time_limit: float = math.inf) -> None:
        self._config = config
        self._keep = keep
        self._time_limit = time_limit
        self._reached = False
        self._first_loss = math.nan
        self._left_out: Callable[[], Row] | None = None

    def add(self, server_round: int, accuracy: float, loss: float, seconds: float, row: Callable[[], Row]) -> None:
        """Take note of a round; its row is asked for only if it is kept, since measuring a round takes time.

        Raises
        ------
        RunEnded
            If the run is over and need not go on.
        """
        if server_round == 0:
            self._first_loss = loss
        first = not self._reached and self._config.target.reached(accuracy=accuracy, loss=loss)
        self._reached |= first
        over = self._config.stop_at_target and (first or self._has_diverged(loss))
        over |= seconds >= self._time_limit
        if first or over or server_round % self._config.record_every == 0 or server_round == self._config.rounds:
            self._left_out = None
            self._keep(row())
        else:
            self._left_out = row
        if over:
            raise RunEnded

    def close(self) -> None:
        """Keep the last round as well, if the run has ended before the one that should have been."""
        if self._left_out is not None:
            self._keep(self._left_out())
            self._left_out = None

    def _has_diverged(self, loss: float) -> bool:
        return not math.isfinite(loss) or loss > DIVERGED * self._first_loss
