"""Write results: a table of rounds, a summary, and the figure, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.figure import draw_figure
from fedgc.experiment.runner import MEASURED, Row
from fedgc.experiment.summary import provenance, summarise
from fedgc.strategies.reporting.report import METRICS

#: Columns that no strategy reports.
_OWN = ("strategy", "seed", "round", "seconds", "accuracy", "loss")

FILES = ("results.csv", "summary.json", "accuracy.png", "accuracy.svg")


def check_output_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if `folder` cannot be written, or holds results that may not be overwritten."""
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
    if present and not overwrite:
        raise ConfigError(f"--out must not hold results unless --overwrite is given; got {str(folder / present[0])!r}")


def write_results(folder: Path, config: ExperimentConfig, rows: Sequence[Row]) -> list[Path]:
    """Write results.csv, summary.json, accuracy.png and accuracy.svg into `folder`.

    The contents depend on configuration and versions only: no date, no duration. A row of results.csv has strategy,
    seed, round, the virtual seconds since the start, accuracy and loss, then the numbers of
    :attr:`fedgc.strategies.RoundReport.metrics` under the same names, and last the measured residual error; a cell is
    empty where a number is not known.

    Returns
    -------
    list of Path
        The files, in that order.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, [*_OWN, *METRICS, MEASURED], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**{name: getattr(row, name) for name in _OWN}, **row.metrics} for row in rows)
    summary = provenance(config)
    summary["results"] = [asdict(line) for line in summarise(rows, config.target_accuracy)]
    png, svg = draw_figure(config, rows)
    contents = [
        table.getvalue().encode(),
        (json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n").encode(),
        png,
        svg,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_whole(folder / name, content) for name, content in zip(FILES, contents, strict=True)]


def _finite(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Return plain data with NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_whole(path: Path, content: bytes) -> Path:
    """Write to a temporary file beside `path` and rename it, so that no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
