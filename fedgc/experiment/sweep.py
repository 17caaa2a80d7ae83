"""Run all cells of an experiment, over processes if there are many, and leave out those that are finished."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from queue import Empty
from typing import Any

from fedgc.errors import ExperimentError
from fedgc.experiment.block_coordinates import run_blocks
from fedgc.experiment.cells import Cell
from fedgc.experiment.config import BlocksConfig, ExperimentConfig, NodesConfig
from fedgc.experiment.decentralised import run_nodes
from fedgc.experiment.finished import FinishedCells
from fedgc.experiment.replayed import replay_one
from fedgc.experiment.row import Row
from fedgc.experiment.runner import run_one
from fedgc.experiment.threads import one_thread
from fedgc.experiment.tuning import measured_cells, tuning_cells

#: Seconds after which rows of other processes are looked for.
_LOOK = 0.1


def run_experiment(
    config: ExperimentConfig,
    on_row: Callable[[Row], None] = lambda _: None,
    *,
    jobs: int = 1,
    finished: FinishedCells | None = None,
) -> list[Row]:
    """Run all of `config` in virtual time.

    Parameters
    ----------
    config : ExperimentConfig
        A checked configuration.
    on_row : callable
        Called with every row as soon as it is known; with those of finished cells, which are read, first.
    jobs : int
        Number of processes. Results do not depend on it.
    finished : FinishedCells, optional
        Cells that need not be run again; what is finished now is added, so that an interrupted run can go on.

    Returns
    -------
    list of Row
        Ordered by point of the sweep, strategy, seed and round; of an experiment that is tuned only what was run after
        it. The same configuration gives the same rows, bit for
        bit.

    Raises
    ------
    ExperimentError
        If two strategies with the same fleet and seed have met other draws, or a client failed.
    """
    tuning = tuning_cells(config)
    tuned = _all(tuning, on_row, jobs, finished)
    measured = measured_cells(config, {cell: rows for cell, (rows, _) in zip(tuning, tuned, strict=True)})
    results = _all(measured, on_row, jobs, finished)
    met: dict[tuple[str, int, int], str] = {}
    for cell, (_, draws) in zip([*tuning, *measured], [*tuned, *results], strict=True):
        meets = json.dumps(cell.config.fleet, sort_keys=True), cell.config.rounds, cell.seed
        if met.setdefault(meets, draws) != draws:
            raise ExperimentError(f"{cell.strategy.label}, seed {cell.seed}: has met other draws than those before it")
    return [row for rows, _ in results for row in rows]


def _all(
    cells: Sequence[Cell], on_row: Callable[[Row], None], jobs: int, finished: FinishedCells | None
) -> list[tuple[list[Row], str]]:
    """Return the rows of each cell and the draws that it met, those of finished ones as they were."""
    results: dict[int, tuple[list[Row], str]] = {}
    for number, cell in enumerate(cells):
        known = None if finished is None else finished.read(cell)
        if known is not None:
            results[number] = known
            for row in known[0]:
                on_row(row)
    left = [number for number in range(len(cells)) if number not in results]
    run = _run_here if jobs == 1 or len(left) < 2 else _run_in_processes
    for number, rows, draws in run(cells, left, on_row, min(jobs, len(left))):
        results[number] = rows, draws
        if finished is not None:
            finished.write(cells[number], rows, draws)
    return [results[number] for number in range(len(cells))]


def _run_here(
    cells: Sequence[Cell], left: Sequence[int], on_row: Callable[[Row], None], jobs: int
) -> Iterator[tuple[int, list[Row], str]]:
    for number in left:
        rows, draws = _run_cell(cells[number], on_row)
        yield number, rows, draws


def _run_cell(cell: Cell, on_row: Callable[[Row], None]) -> tuple[list[Row], str]:
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(replace(row, settings=cell.settings))
        on_row(rows[-1])

    if isinstance(cell.strategy, NodesConfig):
        return rows, run_nodes(cell.config, cell.strategy, cell.seed, keep)
    if isinstance(cell.strategy, BlocksConfig):
        return rows, run_blocks(cell.config, cell.strategy, cell.seed, keep)
    run = replay_one if cell.config.runtime == "replay" else run_one
    return rows, run(cell.config, cell.strategy, cell.seed, keep)


#: In a process of the pool: where its rows go.
_rows: Any = None


def _begin(rows: Any, level: int, tasks: set[str]) -> None:  # noqa: ANN401  (a queue of whatever context)
    """Prepare a process of the pool; interrupts are for the process that has started it."""
    global _rows  # noqa: PLW0603  (the only way to reach what a pool runs)
    _rows = rows
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("flwr").setLevel(level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_thread(tasks)


def _end_with_parent() -> None:
    """Leave when the process that has started this one is gone: a killed one cannot say so, and nobody reads results.

    A pool's own processes would finish what they run, and then wait for more for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_there(cell: Cell) -> tuple[list[Row], str]:
    return _run_cell(cell, _rows.put)


def _run_in_processes(
    cells: Sequence[Cell], left: Sequence[int], on_row: Callable[[Row], None], jobs: int
) -> Iterator[tuple[int, list[Row], str]]:
    # Threads of this process must not be copied in the middle of what they do, as a fork would.
    context = multiprocessing.get_context("spawn")
    rows = context.Queue()
    level = logging.getLogger("flwr").level
    tasks: set[str] = {cells[number].config.task.name for number in left}
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(rows, level, tasks))
    try:
        running: dict[Future[tuple[list[Row], str]], int] = {
            pool.submit(_run_there, cells[number]): number for number in left
        }
        while running:
            done, _ = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED)
            _show(rows, on_row)
            for future in done:
                yield running.pop(future), *future.result()
        _show(rows, on_row)
    except BaseException:
        # What is running is of no use any more, be it an error or an interrupt that has ended the rest.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _show(rows: Any, on_row: Callable[[Row], None]) -> None:  # noqa: ANN401
    while True:
        try:
            on_row(rows.get_nowait())
        except Empty:
            return
