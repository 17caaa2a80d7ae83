"""The tables of a report as text in rows and columns, for its page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedgc.experiment.target import Target
from fedgc.pages.text import count
from fedgc.report.conditions import by_condition, condition_text, strategies_of
from fedgc.report.ratios import Ratio, calibrations, ratio_to, reference_of
from fedgc.report.tables import Entry, best_of, entry_text, interval_text
from fedgc.report.unit import AXIS, Unit


class Cell(NamedTuple):
    """Text, whether it is a number, and whether it is the best of its column."""

    text: str
    number: bool = True
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes
    ----------
    note : str
        What it shows, in one or two sentences.
    head : tuple of str
        Titles of the columns.
    rows : tuple of tuple of Cell
        Its rows.
    """

    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def grids(
    found: Sequence[Entry], target: Target, unit: Unit, reference: str | None = None, *, tuned_on: Sequence[int] = ()
) -> Iterator[Grid]:
    """Yield the tables: the way to the target, its ratio to a reference's if one is named, and calibration.

    Where strategies were tuned on seeds of their own, these are `tuned_on`.
    """
    chosen_on = f"seeds {', '.join(map(str, tuned_on))} beforehand" if tuned_on else "these seeds"
    seeds = count(len({run.seed for entry in found for run in entry.runs}), "seed")
    what = f"{AXIS[unit].capitalize()} to {target.text}"
    yield _matrix(
        found,
        f"{what}: mean over {seeds} and 95 % confidence interval, each strategy at the choice that is best for it on "
        f"{chosen_on}. In bold the soonest; never: how many seeds did not reach it.",
        unit.capitalize(),
        lambda entry, group: Cell(entry_text(entry), best=entry is best_of(group)),
    )
    if reference is not None:
        yield _matrix(
            found,
            f"{what}, relative to {reference}: geometric mean over the seeds of the ratio for each, and its 95 % "
            "confidence interval. Below one is sooner than the reference; in bold the least.",
            f"Ratio of {unit}",
            lambda entry, group: _ratio_cell(entry, group, reference),
        )
    calibrated = tuple(calibrations(found))
    if calibrated:
        conditions = len(by_condition(found)) > 1
        yield Grid(
            "Residual error: mean prediction, and the ratio to it of what was observed by those who came and of what "
            "was measured against the updates of all shards; mean over the runs and 95 % confidence interval.",
            (*(("Condition",) if conditions else ()), "Strategy", "Predicted", "Observed ratio", "Measured ratio"),
            tuple(
                (
                    *((Cell(condition_text(one.entry.condition), number=False),) if conditions else ()),
                    Cell(one.entry.strategy, number=False),
                    Cell(f"{one.predicted:.3g}"),
                    Cell(one.observed),
                    Cell(one.measured),
                )
                for one in calibrated
            ),
        )


def _matrix(found: Sequence[Entry], note: str, alone: str, cell: Callable[[Entry, Sequence[Entry]], Cell]) -> Grid:
    """Return a table of strategies by conditions; `alone` is the title of the only column of one without a sweep."""
    groups = by_condition(found)
    rows = []
    for strategy in strategies_of(found):
        row = [Cell(strategy, number=False)]
        for group in groups.values():
            own = next((entry for entry in group if entry.strategy == strategy), None)
            row.append(Cell("") if own is None else cell(own, group))
        rows.append(tuple(row))
    return Grid(note, ("Strategy", *(title or alone for title in groups)), tuple(rows))


def _ratio_cell(entry: Entry, group: Sequence[Entry], label: str) -> Cell:
    ratios = ratios_of(group, label)
    least = min(ratio.mean for ratio in ratios.values()) if ratios else np.inf
    own = ratios.get(entry.strategy)
    return Cell("") if own is None else Cell(own.text, best=bool(np.isfinite(own.mean)) and own.mean == least)


def ratios_of(group: Sequence[Entry], label: str) -> dict[str, Ratio]:
    """Return the ratio of each strategy of a condition to that of the given label, empty if it is not there."""
    reference = reference_of(group[0], group, label)
    return {} if reference is None else {entry.strategy: ratio_to(entry, reference) for entry in group}


def details(found: Sequence[Entry], unit: Unit) -> Grid:
    """Return the table of what each strategy's best choice is, and how its runs ended."""
    rows = []
    for entry in found:
        accuracy, loss = (float(np.mean([getattr(run, name)[-1] for run in entry.runs])) for name in _ENDS)
        words = condition_text(entry.condition), entry.strategy, condition_text(entry.choice) or "none"
        numbers = str(entry.n_choices), entry_text(entry), f"{accuracy:.1%}", f"{loss:.3g}"
        rows.append((*(Cell(text, number=False) for text in words), *map(Cell, numbers)))
    head = ("Condition", "Strategy", "Best choice", "Of", unit.capitalize(), "Final accuracy", "Final loss")
    return Grid("What each strategy's best choice is, of how many, and how its runs ended.", head, tuple(rows))


def by_seed(found: Sequence[Entry], target: Target, unit: Unit) -> Grid:
    """Return the table of the way to the target of every seed, at each strategy's best choice."""
    seeds = sorted({run.seed for entry in found for run in entry.runs})
    rows = []
    for entry in found:
        reached = dict(zip((run.seed for run in entry.runs), entry.reached, strict=True))
        words = (condition_text(entry.condition), entry.strategy)
        numbers = (_seed_text(reached[seed]) if seed in reached else "" for seed in seeds)
        rows.append((*(Cell(text, number=False) for text in words), *map(Cell, numbers)))
    note = f"{AXIS[unit].capitalize()} to {target.text} of every seed. Its load, its last deadline and how it ended "
    head = ("Condition", "Strategy", *(f"Seed {seed}" for seed in seeds))
    return Grid(f"{note}are in seeds.csv.", head, tuple(rows))


def _seed_text(reached: float) -> str:
    return interval_text(reached, np.nan) if np.isfinite(reached) else "never"


_ENDS = ("accuracy", "loss")
