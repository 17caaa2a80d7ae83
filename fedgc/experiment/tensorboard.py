"""Curves of an experiment for TensorBoard, written as it runs."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.row import Row
from fedgc.strategies import TensorBoardResults

logger = logging.getLogger("flwr.fedgc")

#: How the names of TensorBoard's files begin.
_EVENTS = "events.out.tfevents."


class Boards:
    """Write every row of an experiment into the folder of its strategy and seed.

    The tags are the columns of results.csv; those that begin with ``fedgc-`` are shown together.

    Parameters
    ----------
    folder : Path
        What to show: it gets a folder for each strategy and seed, which is a run to TensorBoard.
    config : ExperimentConfig
        The experiment.
    overwrite : bool
        Whether curves of the same strategies and seeds are replaced.

    Raises
    ------
    ConfigError
        If there are such curves and they may not be replaced, the folder cannot be written, or tensorboard is not
        installed.

    Notes
    -----
    A disk that is full costs the curves, and not the experiment: the first failure is logged.
    """

    def __init__(self, folder: Path, config: ExperimentConfig, *, overwrite: bool = False) -> None:
        self._failed = False
        if config.sweep or any(strategy.grid for strategy in config.strategies):
            raise ConfigError("tensorboard must be left out of sweeps and grids, whose results are in results.csv")
        places = {
            (strategy.label, seed): folder / f"{position}-{_plain(strategy.label)}" / f"seed-{seed}"
            for position, strategy in enumerate(config.strategies)
            for seed in config.seeds
        }
        old = [file for place in places.values() for file in place.glob(f"{_EVENTS}*")]
        if old and not overwrite:
            raise ConfigError(
                "tensorboard must be a folder without curves of these strategies unless --overwrite is given; "
                f"got {str(folder)!r}, which holds {str(old[0].parent.relative_to(folder))!r}"
            )
        try:
            for file in old:
                file.unlink()
            self._boards = {run: TensorBoardResults(place) for run, place in places.items()}
        except ImportError as error:
            raise ConfigError(f"tensorboard must be installed to write curves; {error}") from None
        except (OSError, ValueError):
            raise ConfigError(f"tensorboard must be a folder that can be written; got {str(folder)!r}") from None

    def write(self, row: Row) -> None:
        """Write a row; it is on disk before the experiment goes on."""
        numbers = {"seconds": row.seconds, "accuracy": row.accuracy, "loss": row.loss, **row.metrics}
        try:
            self._boards[row.strategy, row.seed].write_numbers(row.round, numbers)
        except OSError as error:
            if not self._failed:
                logger.error("TensorBoard's curves cannot be written, and the experiment goes on: %s", error)
            self._failed = True

    def close(self) -> None:
        """Close all files."""
        for board in self._boards.values():
            board.close()


def _plain(label: str) -> str:
    """Return a label as the name of a folder, in any file system.

    Examples
    --------
    >>> _plain("GradientCoding, 3 holders / fixed")
    'GradientCoding-3-holders-fixed'
    """
    return re.sub(r"[^\w.]+", "-", label)[:80].strip("-.")
