"""The numbers of a round's report: their names, and how each comes about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedgc.round import RoundPlan

if TYPE_CHECKING:
    from fedgc.strategies.reporting.report import RoundReport

#: By name, in the order of results files; described in :attr:`fedgc.strategies.RoundReport.metrics`.
_NUMBERS: dict[str, Callable[[RoundReport], float | None]] = {
    "fedgc-asked": lambda report: report.n_clients,
    "fedgc-arrived": lambda report: report.n_arrived,
    "fedgc-arrived-predicted": lambda report: float((1.0 - report.straggle_prob).sum()),
    "fedgc-late": lambda report: len(report.late),
    "fedgc-rejected": lambda report: len(report.rejected),
    "fedgc-disagreements": lambda report: None if report.sum_only else len(report.disagreements),
    "fedgc-blocks": lambda report: report.n_blocks,
    "fedgc-blocks-recovered": lambda report: report.blocks_recovered,
    "fedgc-shards-recovered": lambda report: report.shards_recovered,
    "fedgc-load": lambda report: report.load,
    "fedgc-shards-done": lambda report: report.shards_done,
    "fedgc-shards-late": lambda report: sum(report.late),
    "fedgc-wasted": lambda report: report.work_wasted / report.work_seen if report.work_seen else 0.0,
    "fedgc-deadline": lambda report: report.deadline,
    "fedgc-round-seconds": lambda report: report.seconds,
    "fedgc-straggle-prob": lambda report: float(report.straggle_prob.mean()),
    "fedgc-straggle-prob-max": lambda report: float(report.straggle_prob.max()),
    "fedgc-likely-stragglers": lambda report: int(np.count_nonzero(report.straggle_prob > 0.5)),
    "fedgc-error-predicted": lambda report: report.predicted_residual_error,
    "fedgc-error-observed": lambda report: report.model_residual_error,
    "fedgc-largest-part": lambda report: report.largest_part,
    "fedgc-variance-factor": lambda report: report.variance_factor,
}
#: Names of the numbers that are reported of a round, in their order in results files.
METRICS = tuple(_NUMBERS)


def numbers_of(report: RoundReport) -> dict[str, float | None]:
    """Return the numbers of a round's report by name; None where one is not known."""
    return {name: number(report) for name, number in _NUMBERS.items()}


def block_of_shard(plan: RoundPlan) -> NDArray[np.intp]:
    """Return the block of each shard: those of the code or of the assignment, else each shard for itself."""
    if plan.code.blocks is not None:
        return plan.code.blocks.of_shard
    return np.arange(plan.code.n_shards) if plan.assignment is None else plan.assignment.block_of_shard


def block_of_client(plan: RoundPlan) -> NDArray[np.intp]:
    """Return the block of each client of a plan, -1 for one without."""
    if plan.code.blocks is not None:
        return plan.code.blocks.of_client
    if plan.assignment is None:
        return np.full(len(plan.node_ids), -1)
    return plan.assignment.block_of_client[np.searchsorted(plan.everyone, plan.node_ids)]
