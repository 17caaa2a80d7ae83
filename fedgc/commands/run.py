"""``fedgc run CONFIG.toml``."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fedgc.errors import RunInterruptedError

if TYPE_CHECKING:
    from fedgc.experiment.config import ExperimentConfig

#: A process of its own takes as long to start as a short run.
_RUNS_EACH = 3


def run(
    config: Annotated[Path, typer.Argument(help="The experiment, a TOML file.", metavar="CONFIG.toml")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set rounds=5 --set strategies.2.load=4"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.csv, summary.json and the figure.", metavar="DIR")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that DIR already holds, and curves.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to run in; by default one for each core, if there are many runs."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Flower's log.")] = False,
) -> None:
    """Run an experiment, or a sweep, in virtual time and show a table of its strategies; with --out, go on with one."""
    from rich.console import Console  # noqa: PLC0415

    from fedgc.experiment.config import load_config  # noqa: PLC0415

    settings = load_config(config, overrides or [])

    from fedgc.experiment.cells import cells_of  # noqa: PLC0415
    from fedgc.experiment.display import live_progress, results_table  # noqa: PLC0415
    from fedgc.experiment.results import open_output_folder, write_results  # noqa: PLC0415
    from fedgc.experiment.row import Row  # noqa: PLC0415
    from fedgc.experiment.summary import summarise  # noqa: PLC0415
    from fedgc.experiment.sweep import run_experiment  # noqa: PLC0415
    from fedgc.experiment.tensorboard import Boards  # noqa: PLC0415
    from fedgc.experiment.threads import one_thread  # noqa: PLC0415

    finished = None if out is None else open_output_folder(out, settings, overwrite=overwrite)
    boards = None if settings.tensorboard is None else Boards(Path(settings.tensorboard), settings, overwrite=overwrite)
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.ERROR)
    one_thread(cell.config.task.name for cell in cells_of(settings))
    # What the imports have left lasts as long as the process: without it, a run with many clients takes a tenth less.
    gc.freeze()
    console = Console()
    with live_progress(settings, console) as show, heard_interrupts() as heard:

        def on_row(row: Row) -> None:
            heard()
            show(row)
            if boards is not None:
                boards.write(row)

        try:
            rows = run_experiment(settings, on_row, jobs=_jobs(settings, jobs), finished=finished)
        except KeyboardInterrupt:
            if finished is not None and finished.any():
                raise RunInterruptedError(f"what is finished is in {out}, and the same command goes on") from None
            raise
        finally:
            if boards is not None:
                boards.close()
    console.print(results_table(settings, summarise(rows, settings)))
    if out is not None:
        for path in write_results(out, settings, rows):
            console.print(f"wrote {path}", soft_wrap=True)


@contextmanager
def heard_interrupts() -> Iterator[Callable[[], None]]:
    """Raise KeyboardInterrupt at an interrupt, and again whenever the function given is called after one.

    Python drops an exception that is raised while it runs a destructor or a callback from C; an interrupt that came at
    such a moment would be lost, and the run would go on.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def heard() -> None:
        if came:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def _jobs(settings: ExperimentConfig, asked: int | None) -> int:
    """Return the number of processes: for few runs to start others would take longer than it saves."""
    if asked is not None:
        return asked
    from fedgc.experiment.cells import cells_of  # noqa: PLC0415

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, len(cells_of(settings)) // _RUNS_EACH))
