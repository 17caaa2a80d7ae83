"""Hand reports to the log and to all that want them, whatever goes wrong there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from fedgc.strategies.reporting.base import RoundReporter
from fedgc.strategies.reporting.log import round_line, run_lines
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import RunStatus

logger = logging.getLogger("flwr.fedgc")


class Reporting:
    """The reporters of a strategy, none of which can end training.

    Parameters
    ----------
    reporters : sequence of RoundReporter
        Where reports go.

    Raises
    ------
    ValueError
        If one of them is something else.

    Notes
    -----
    A disk that is full, or a folder that has been removed, costs the rounds that could not be written and no more: the
    first failure of each reporter is logged, the others are not, and it is called again in the next round.

    Examples
    --------
    >>> Reporting(["results.csv"])
    Traceback (most recent call last):
    ...
    ValueError: reporters must be RoundReporter objects; got 'results.csv'
    """

    def __init__(self, reporters: Sequence[RoundReporter] = ()) -> None:
        self.reporters = tuple(reporters)
        for reporter in self.reporters:
            if not isinstance(reporter, RoundReporter):
                raise ValueError(f"reporters must be RoundReporter objects; got {reporter!r:.80}")
        self._failed: set[int] = set()

    def write(self, report: RoundReport) -> None:
        """Log a round's report and hand it to all reporters."""
        logger.info("%s", round_line(report))
        for index, reporter in enumerate(self.reporters):
            self._guarded(index, reporter.write, report)

    def write_status(self, status: Callable[[], RunStatus]) -> None:
        """Hand what is known of the run to the reporters that want it; `status` puts it together once, if any does."""
        known = cache(status)
        for index, reporter in enumerate(self.reporters):
            if type(reporter).write_status is not RoundReporter.write_status:
                self._guarded(index, lambda take=reporter.write_status: take(known()))

    def resume(self, reports: Sequence[RoundReport]) -> None:
        """Tell all reporters that a run goes on after these rounds."""
        for index, reporter in enumerate(self.reporters):
            self._guarded(index, reporter.resume, reports)

    def end_run(self, reports: Sequence[RoundReport]) -> None:
        """Log a summary of a run's rounds and close all reporters."""
        for line in run_lines(reports):
            logger.info("%s", line)
        for index, reporter in enumerate(self.reporters):
            self._guarded(index, reporter.close)

    def _guarded(self, index: int, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        try:
            call(*arguments)
        except Exception as error:
            if index not in self._failed:
                name = type(self.reporters[index]).__name__
                logger.warning("%s failed, and the run goes on without it: %s", name, str(error) or repr(error))
            self._failed.add(index)
