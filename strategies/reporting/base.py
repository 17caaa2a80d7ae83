"""What takes the reports of rounds."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fedgc.strategies.report import RoundReport


class RoundReporter(ABC):
    """Takes the report of each round as soon as it is decoded.

    What it needs in order to work is checked when it is made, before training begins. What goes wrong later, in either
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

    def close(self) -> None:  # noqa: B027  (not every kind has something to close)
        """Finish what has been written; called when a run ends. Further reports may follow."""
