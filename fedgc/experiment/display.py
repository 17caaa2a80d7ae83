"""What a person sees while an experiment runs, and the table at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from fedgc.experiment.cells import cells_of
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.row import Row
from fedgc.experiment.summary import StrategySummary
from fedgc.experiment.tuning import tuning_cells


class ShowRow(Protocol):
    """Shows one row of results."""

    def __call__(self, row: Row, /) -> None:
        """Show the row."""


@contextmanager
def live_progress(config: ExperimentConfig, console: Console) -> Iterator[ShowRow]:
    """Show round, arrivals, accuracy and time left of each strategy; yields the function to call with each row."""
    progress = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=32, no_wrap=True)),
        # Fixed widths: on eighty columns the label, which comes first, would otherwise squeeze out what changes.
        BarColumn(bar_width=8),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True, min_width=16)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        console=console,
    )
    totals: dict[str, int] = {}
    # What is measured after tuning shows only then; without a choice to tune, that is all there is.
    for cell in cells_of(config) if config.tuning is None else tuning_cells(config):
        totals[cell.strategy.label] = totals.get(cell.strategy.label, 0) + cell.config.rounds
    with progress:
        bars = {label: progress.add_task(label, total=total, status="", start=False) for label, total in totals.items()}
        for bar in bars.values():
            progress.update(bar, visible=False)
        reached: dict[tuple[str, int, str], int] = {}

        def show(row: Row) -> None:
            if row.strategy not in bars:
                bars[row.strategy] = progress.add_task(row.strategy, total=0, status="", start=False, visible=False)
            bar = bars[row.strategy]
            run = row.strategy, row.seed, repr(sorted(row.settings.items()))
            rounds, reached[run] = row.round - reached.get(run, 0), row.round
            if row.round == 0:
                if config.tuning is not None and row.seed in config.seeds:  # which choice it is shows only now
                    progress.update(bar, total=(progress.tasks[bar].total or 0) + config.rounds)
                if not progress.tasks[bar].started:
                    progress.start_task(bar)
                progress.update(bar, visible=True)
                return
            status = f"came {row.metrics['fedgc-arrived']:2.0f}/{row.metrics['fedgc-asked']:.0f} {row.accuracy:6.1%}"
            progress.update(bar, advance=rounds, status=status)

        yield show


def results_table(config: ExperimentConfig, summaries: Sequence[StrategySummary]) -> Table:
    """Return the table of results, one line per strategy."""
    seeds = f", mean of {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    title = f"{escape(config.name)}: {config.rounds} rounds{seeds}"
    # Without vertical lines, and with labels that break between words only, the table fits eighty columns.
    caption = "seconds: virtual" if config.sweep else "seconds: virtual; error: residual error, mean over rounds"
    table = Table(
        title=title,
        caption=caption,
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column(
        "strategy",
        min_width=min(24, max(len(word) for line in summaries for word in line.strategy.split())),
        overflow="fold",
    )
    varied = [key for key in config.sweep if any(key in line.settings for line in summaries)]
    target = "target" if {"target_accuracy", "target_loss"} & set(varied) else str(config.target)
    headings = ("test\naccuracy", f"rounds\nto {target}", f"seconds\nto {target}")
    # A line of a sweep has its settings in place of what is told of arrivals, which results.csv has.
    more = () if varied else ("clients\nthat came", "error\npredicted", "error\nmeasured")
    for heading in (*(key.rpartition(".")[2].replace("_", "\n") for key in varied), *headings, *more):
        table.add_column(heading, justify="right")
    for line in summaries:
        never = f"{line.reached_target} of {len(config.seeds)} seeds" if line.reached_target else "not reached"
        told = (
            f"{line.arrived:.1f} of {line.asked:.0f}",
            _error(line.predicted_residual_error),
            _error(line.measured_residual_error),
        )
        table.add_row(
            escape(line.strategy),
            *(escape(str(line.settings[key])) for key in varied),
            f"{line.accuracy:.1%}",
            never if line.rounds_to_target is None else f"{line.rounds_to_target:.1f}",
            "" if line.seconds_to_target is None else f"{line.seconds_to_target:.0f}",
            *(() if varied else told),
        )
    return table


def _error(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value < 5e-7 else f"{value:.3g}"
