"""Write results: a table of rounds, a summary, and the figure, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.files import write_whole
from fedgc.experiment.finished import OWNER, FinishedCells
from fedgc.experiment.row import MEASURED, Row
from fedgc.experiment.summary import provenance, summarise
from fedgc.strategies.reporting.report import METRICS

#: Columns that no strategy reports.
_OWN = ("strategy", "seed", "round", "seconds", "accuracy", "loss")

_TABLES = ("results.csv", "summary.json")
#: Everything that may be written; the figure has the name of what the target is of.
FILES = (*_TABLES, "accuracy.png", "accuracy.svg", "loss.png", "loss.svg")


def open_output_folder(folder: Path, config: ExperimentConfig, *, overwrite: bool) -> FinishedCells:
    """Return the finished cells of a folder, which may be written; none if it is new, or may be overwritten.

    Raises
    ------
    ConfigError
        If it cannot be written, or holds results of another experiment that may not be overwritten.
    """
    missing = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]
    try:
        # Only writing shows whether writing works; what had to be made for it is taken away again.
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or "not a folder"
        raise ConfigError(f"--out must be a folder that can be written; got {str(folder)[:200]!r} ({reason})") from None
    finally:
        for path in missing:
            if path.is_dir():
                path.rmdir()
    blocked = [name for name in FILES if (folder / name).is_dir()]
    if blocked:
        raise ConfigError(f"--out must not hold a folder {blocked[0]!r}; got {str(folder)!r}")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not overwrite and not (folder / OWNER).exists():
        raise ConfigError(f"--out must not hold results unless --overwrite is given; got {str(folder / present[0])!r}")
    return FinishedCells(folder, config, overwrite=overwrite)


def write_results(folder: Path, config: ExperimentConfig, rows: Sequence[Row]) -> list[Path]:
    """Write results.csv, summary.json and, unless there is a sweep, the figure into `folder`.

    The figure is accuracy.png and accuracy.svg, with a target loss loss.png and loss.svg.

    The contents depend on configuration and versions only: no date, no duration. A row of results.csv has strategy,
    seed, round, the virtual seconds since the start, accuracy and loss, then the numbers of
    :attr:`fedgc.strategies.RoundReport.metrics` under the same names, and last the measured residual error; a cell is
    empty where a number is not known. What a sweep or a grid varies has columns of its own behind the strategy.

    Returns
    -------
    list of Path
        The files, in that order.
    """
    table = io.StringIO()
    varied = list(dict.fromkeys(key for row in rows for key in row.settings))
    columns = [_OWN[0], *varied, *_OWN[1:], *METRICS, MEASURED]
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        settings = {key: value if np.isscalar(value) else json.dumps(value) for key, value in row.settings.items()}
        writer.writerow({**{name: getattr(row, name) for name in _OWN}, **settings, **row.metrics})
    summary = provenance(config)
    summary["results"] = [asdict(line) for line in summarise(rows, config)]
    contents = [
        table.getvalue().encode(),
        (json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n").encode(),
    ]
    if not config.sweep:  # of a sweep one figure would be many
        # A run begins half a second earlier without matplotlib, which is not needed before it ends.
        from fedgc.experiment.figure import draw_figure  # noqa: PLC0415

        contents += draw_figure(config, rows)
    folder.mkdir(parents=True, exist_ok=True)
    names = (*_TABLES, f"{config.target.quantity}.png", f"{config.target.quantity}.svg")
    return [write_whole(folder / name, content) for name, content in zip(names, contents, strict=False)]


def _finite(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Return plain data with NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
