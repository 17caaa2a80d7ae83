"""Write results: a table of rounds, a summary, and the figure, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.figure import draw_figure
from fedgc.experiment.runner import Row
from fedgc.experiment.summary import provenance, summarise

FILES = ("results.csv", "summary.json", "accuracy.png", "accuracy.svg")


def check_output_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if `folder` cannot be written, or holds results that may not be overwritten."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--out must be a folder that can be written; got {str(folder)!r}")
    blocked = [name for name in FILES if (folder / name).is_dir()]
    if blocked:
        raise ConfigError(f"--out must not hold a folder {blocked[0]!r}; got {str(folder)!r}")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not overwrite:
        raise ConfigError(f"--out must not hold results unless --overwrite is given; got {str(folder / present[0])!r}")


def write_results(folder: Path, config: ExperimentConfig, rows: Sequence[Row]) -> list[Path]:
    """Write results.csv, summary.json, accuracy.png and accuracy.svg into `folder`.

    The contents depend on configuration and versions only: no date, no duration.

    Returns
    -------
    list of Path
        The files, in that order.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in asdict(row).items()} for row in rows)
    summary = provenance(config)
    summary["results"] = [asdict(line) for line in summarise(rows, config.target_accuracy)]
    png, svg = draw_figure(config, rows)
    contents = [table.getvalue().encode(), (json.dumps(summary, indent=2) + "\n").encode(), png, svg]
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_whole(folder / name, content) for name, content in zip(FILES, contents, strict=True)]


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
