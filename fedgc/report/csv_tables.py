"""The tables of a report as comma-separated values: one of the strategies, and one of every seed of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from fedgc.experiment.target import Target
from fedgc.report.conditions import by_condition, condition_text
from fedgc.report.grids import ratios_of
from fedgc.report.read import Run, Vector
from fedgc.report.tables import Entry
from fedgc.report.unit import UNITS, Unit


def strategies_csv(found: Sequence[Entry], unit: Unit, reference: str | None = None) -> bytes:
    """Return a table with a row for each strategy and condition, at the choice that is best for it.

    With the ratio to the reference's way to the target and the ends of its interval, if a reference is named; cells are
    empty where there is no number.
    """
    head = ("condition", "strategy", "choice", "choices", "seeds", "reached", unit, "half_width", *_ENDS)
    rows: list[Sequence[object]] = [(*head, *(("ratio", "ratio_low", "ratio_high") if reference is not None else ()))]
    for group in by_condition(found).values():
        ratios = ratios_of(group, reference) if reference is not None else {}
        for entry in group:
            accuracy, loss = (float(np.mean([getattr(run, name)[-1] for run in entry.runs])) for name in _ENDS)
            row: list[object] = [
                condition_text(entry.condition),
                entry.strategy,
                condition_text(entry.choice),
                entry.n_choices,
                len(entry.runs),
                entry.n_reached,
                _number(entry.mean),
                _number(entry.half_width),
                f"{accuracy:.4f}",
                _number(loss),
            ]
            ratio = ratios.get(entry.strategy)
            if ratio is not None:
                row += map(_number, (ratio.mean, ratio.low, ratio.high))
            elif reference is not None:
                row += ["", "", ""]
            rows.append(row)
    return _csv(rows)


def seeds_csv(found: Sequence[Entry], target: Target) -> bytes:
    """Return a table with a row for each condition, strategy and seed, at the choice that is best for the strategy.

    The condition has a column for each of its keys. The way to the target is empty where it was never reached; load,
    the shard updates asked for per shard, is the mean over the rounds that were kept, the deadline that of the last
    round, in virtual seconds, both empty where a strategy does not report them.
    """
    keys = list(dict.fromkeys(key for entry in found for key in entry.condition))
    rows: list[Sequence[object]] = [
        [*keys, "strategy", "choice", "seed", *(f"{unit}_to_target" for unit in UNITS), *_ENDS, "load", "deadline"]
    ]
    for group in by_condition(found).values():
        for entry in group:
            given = [entry.condition.get(key, "") for key in keys]
            for run in entry.runs:
                rows.append(
                    [
                        *given,
                        entry.strategy,
                        condition_text(entry.choice),
                        run.seed,
                        *(_number(run.first(target, unit)) for unit in UNITS),
                        f"{run.accuracy[-1]:.4f}",
                        _number(run.loss[-1]),
                        _number(_mean_load(run)),
                        _number(_last(run.deadline)),
                    ]
                )
    return _csv(rows)


_ENDS = ("accuracy", "loss")


def _mean_load(run: Run) -> float:
    known = run.load[np.isfinite(run.load)]
    return float(known.mean()) if known.size else np.nan


def _last(values: Vector) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else np.nan


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
