"""What the log says of each round, and of all of them when a run is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nsmallest

import numpy as np
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.tally import RunTally

#: So many clients are named of each kind.
_NAMED = 3
#: Rounding of instants, relative to a deadline: what ended so much before it has not ended early.
_SAME_INSTANT = 1e-9


def round_line(report: RoundReport) -> str:
    """Return what happened in a round, in one line."""
    numbers, seconds, predicted = report.numbers, report.seconds, report.predicted_residual_error
    lasted = f"at most {report.deadline:.3g} s" if seconds is None else f"{seconds:.3g} of {report.deadline:.3g} s"
    return (
        f"round {report.server_round}: {report.n_arrived} of {report.n_clients} clients came in {lasted} "
        f"({numbers['fedgc-arrived-predicted']:.1f} expected, likely stragglers: "
        f"{numbers['fedgc-likely-stragglers']}); "
        f"recovered {report.blocks_recovered} of {report.n_blocks} blocks, {report.shards_recovered} of "
        f"{report.coverage.size} shards, at load {report.load:.3g}; "
        f"{_errors(report.model_residual_error, predicted)}"
        f"{' (of the model; only the sum was seen)' if report.sum_only else ''}; {_wasted([report])}"
    )


def run_lines(reports: Sequence[RoundReport]) -> list[str]:
    """Return what the rounds amount to: means over rounds, and who was least reliable and who slowest.

    Parameters
    ----------
    reports : sequence of RoundReport
        The rounds of a run; without any there is nothing to say.

    Notes
    -----
    Least reliable are those that were most likely to send nothing in the last round they were asked in, of those that
    did not always come; that a round's early end has cut them off is allowed for in this probability. Slowest are those
    that took longest per shard, from the sending to the reply, in the rounds in which they came in time. Equals are
    named in the order of their ids.
    """
    if not reports:
        return []

    def mean(name: str) -> float | None:
        known = [value for report in reports if (value := report.numbers[f"fedgc-{name}"]) is not None]
        return float(np.mean(known)) if known else None

    lines = [
        f"Clients that came: {mean('arrived'):.1f} of {mean('asked'):.1f} ({mean('arrived-predicted'):.1f} expected)",
        f"Recovered: {mean('blocks-recovered'):.1f} of {mean('blocks'):.1f} blocks, "
        f"{mean('shards-recovered'):.1f} of {reports[0].coverage.size} shards, at load {mean('load'):.3g}",
        _errors(mean("error-observed"), mean("error-predicted")).capitalize(),
        _wasted(reports).capitalize(),
        *_duration(reports),
        _late(reports),
        *_clients(reports),
    ]
    marks = ["├──"] * (len(lines) - 1) + ["└──"]
    rounds = "1 round" if len(reports) == 1 else f"{len(reports)} rounds, means over rounds"
    return [f"Gradient coding, {rounds}:", *(f"\t{mark} {line}" for mark, line in zip(marks, lines, strict=True))]


def _errors(observed: float | None, predicted: float | None) -> str:
    expected = "none" if predicted is None else f"{predicted:.3g}"
    return f"residual error: {observed:.3g} observed, {expected} predicted"


def _wasted(reports: Sequence[RoundReport]) -> str:
    wasted, seen = sum(report.work_wasted for report in reports), sum(report.work_seen for report in reports)
    late = sum(sum(report.late) for report in reports)
    if not seen:
        return "wasted work: none came"
    share = f"wasted work: {wasted} of {seen} shard updates ({100 * wasted / seen:.0f} %)"
    return f"{share}, {late} of them late" if late else share


def _duration(reports: Sequence[RoundReport]) -> Iterator[str]:
    known = [report.seconds for report in reports if report.seconds is not None]
    if known:
        deadline = np.mean([report.deadline for report in reports])
        empty = sum(report.n_arrived == 0 for report in reports)
        yield f"Length of a round: {np.mean(known):.3g} of {deadline:.3g} s, {sum(known):.4g} s in all"
        yield f"Ends of rounds: {_ends(reports)}"
        yield f"Rounds without any arrival: {empty}"


def _late(reports: Sequence[RoundReport]) -> str:
    late = [len(report.late) for report in reports]
    return f"Late replies: {sum(late)}, heard in {np.count_nonzero(late)} of {len(late)} rounds"


def _ends(reports: Sequence[RoundReport]) -> str:
    """Tell how many rounds ended early, and by how much the others overran their deadlines."""
    over = np.array([report.seconds - report.deadline for report in reports if report.seconds is not None])
    deadlines = np.array([report.deadline for report in reports if report.seconds is not None])
    early = over < -_SAME_INSTANT * deadlines
    counted = f"{np.count_nonzero(early)} of {over.size} early"
    late = np.maximum(over[~early], 0.0)
    if not late.size:
        return counted
    return (
        f"{counted}, the others {np.median(late):.3g} s after their deadline in the median, {late.max():.3g} s at most"
    )


def _clients(reports: Sequence[RoundReport]) -> Iterator[str]:
    """Tell who was least reliable, and who slowest."""
    tally = RunTally().catch_up(reports)
    asked, came, done, straggle_prob = tally.asked, tally.came, tally.done, tally.straggle_prob
    nodes = list(tally.place)
    worst = nsmallest(_NAMED, np.flatnonzero(came < asked).tolist(), key=lambda k: (-straggle_prob[k], nodes[k]))
    if worst:
        named = (
            f"node {nodes[k]} (came in {came[k]:.0f} of {asked[k]:.0f}; straggle probability {straggle_prob[k]:.2f})"
            for k in worst
        )
        yield f"Least reliable: {', '.join(named)}"
    pace = tally.seconds / np.maximum(done, 1.0)
    slow = nsmallest(_NAMED, np.flatnonzero(done).tolist(), key=lambda k: (-pace[k], nodes[k]))
    if slow:
        yield f"Slowest: {', '.join(f'node {nodes[k]} ({pace[k]:.3g} s a shard)' for k in slow)}"
