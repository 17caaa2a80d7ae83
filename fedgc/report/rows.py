"""Rows of equal keys as a table of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedgc.experiment.files import write_whole


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, all of them or nothing, and return where.

    Parameters
    ----------
    path : Path
        The file; its folder is made if there is none.
    rows : sequence of mapping
        At least one row; all have the keys of the first, which are the header.

    Raises
    ------
    ValueError
        If there is no row, or one has other keys.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(Path(folder) / "sub" / "table.csv", [{"load": 2, "error": 0.25}]).read_text().splitlines()
    ['load,error', '2,0.25']
    """
    if not rows:
        raise ValueError(f"rows must have at least one row; got none for {path.name}")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, text.getvalue().encode())
