"""What takes the reports of rounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import RunStatus


class RoundReporter(ABC):
    """Takes the report of each round as soon as it is decoded.

    What it needs in order to work is checked when it is made, before training begins. What goes wrong later, in any
    method, is logged once and does not end training; see :class:`fedgc.strategies.reporting.Reporting`.

    Examples
    --------
    All that a tracker such as MLflow needs:

    >>> class MlflowResults(RoundReporter):
    ...     def write(self, report):
    ...         mlflow.log_metrics(report.metrics, step=report.server_round)
    """

    @abstractmethod
    def write(self, report: RoundReport) -> None:
        """Take a round's report."""

    def write_status(self, status: RunStatus) -> None:  # noqa: B027  (not every kind wants it)
        """Take what is known of the run: when it begins, when a round is sent, after each, and when it ends.

        While too few nodes are there it comes too: when waiting begins, every ten seconds, and when it is over. It is
        only put together for those reporters that have this method.
        """

    def resume(self, reports: Sequence[RoundReport]) -> None:  # noqa: B027  (not every kind can take back)
        """Take note that a run goes on after the last of these rounds, its own so far: later ones do not count.

        They come again. A process may have been killed between a round's report and its checkpoint, or been unable to
        write that.
        """

    def close(self) -> None:  # noqa: B027  (not every kind has something to close)
        """Finish what has been written; called when a run ends. Further reports may follow."""
