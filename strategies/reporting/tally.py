"""What a run's reports add up to, kept up to date as they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.report_numbers import METRICS
from numpy.typing import NDArray

_COLUMNS = ("asked", "came", "done", "seconds", "straggle_prob", "last_asked", "last_seen")


class RunTally:
    """Sums over the reports of a run, by client, by shard and by round.

    Attributes
    ----------
    n_reports : int
        Reports that have been added.
    place : dict of int to int
        Row of each node that has been asked, by its id, in the tables by client.
    asked, came : ndarray, shape (n_nodes,)
        Rounds in which each node was asked, and in which its update was used.
    done, seconds : ndarray, shape (n_nodes,)
        Shards that each has done in time, and how long it took, of the replies whose time is known.
    straggle_prob : ndarray, shape (n_nodes,)
        Probability to send nothing that was assumed in the last round that it was asked in.
    last_asked, last_seen : ndarray, shape (n_nodes,)
        Last round that it was asked in, and in which a reply of it came that could be read; 0 for none.
    rejected : dict of int to (int, str)
        How many replies of a node were left out, and why the last one was, by its id.
    last_recovered : ndarray of int, shape (n_shards,)
        Last round in which each shard counted in the decoded update; 0 for none.
    rounds : list of int
        The rounds' numbers.
    numbers : dict of str to list of (float or None)
        The numbers of all rounds, by the names of :data:`fedgc.strategies.reporting.report.METRICS`.
    sum_only : bool
        Whether the server had nothing but the sum of the replies, so that observed errors are the model's.

    Notes
    -----
    A report is added once, at a cost that does not grow with the rounds before it. To go through all reports after each
    of 1000 rounds of 10,000 clients would take longer than some rounds do.

    Examples
    --------
    >>> RunTally().catch_up([]).n_reports
    0
    """

    def __init__(self) -> None:
        self.n_reports = 0
        self.place: dict[int, int] = {}
        self.asked, self.came, self.done, self.seconds, self.straggle_prob = np.zeros((5, 0))
        self.last_asked, self.last_seen = np.zeros((2, 0))
        self.rejected: dict[int, tuple[int, str]] = {}
        self.last_recovered = np.zeros(0, dtype=np.intp)
        self.rounds: list[int] = []
        self.numbers: dict[str, list[float | None]] = {name: [] for name in METRICS}
        self._nodes: tuple[int, ...] = ()
        self._rows = np.zeros(0, dtype=np.intp)
        self.sum_only = False

    def catch_up(self, reports: Sequence[RoundReport]) -> RunTally:
        """Add those of a run's reports that have not been added, and return this tally."""
        for report in reports[self.n_reports :]:
            self._add(report)
        return self

    def _add(self, report: RoundReport) -> None:
        rows, server_round = self._rows_of(report.node_ids), report.server_round
        timed = np.where(np.isnan(report.reply_seconds), 0, report.done)
        self.asked[rows] += 1.0
        self.came[rows] += report.arrived
        self.done[rows] += timed
        self.seconds[rows] += np.where(timed > 0, report.reply_seconds, 0.0)
        self.straggle_prob[rows] = report.straggle_prob
        self.last_asked[rows] = server_round
        self.last_seen[rows[report.arrived | np.isfinite(report.reply_seconds)]] = server_round
        for node, reason in report.rejected.items():
            self.rejected[node] = (self.rejected.get(node, (0, ""))[0] + 1, reason)
        if self.last_recovered.size != report.coverage.size:
            self.last_recovered = np.zeros(report.coverage.size, dtype=np.intp)
        self.last_recovered[report.coverage != 0.0] = server_round
        self.rounds.append(server_round)
        for name, value in report.numbers.items():
            self.numbers[name].append(value)
        self.sum_only = report.sum_only
        self.n_reports += 1

    def _rows_of(self, nodes: tuple[int, ...]) -> NDArray[np.intp]:
        if nodes != self._nodes:  # most rounds have the nodes of the one before
            self._rows = np.array([self.place.setdefault(node, len(self.place)) for node in nodes], dtype=np.intp)
            self._nodes = nodes
            more = len(self.place) - self.asked.size
            for name in _COLUMNS:
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more)]))
        return self._rows
