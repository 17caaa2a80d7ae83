"""A results file: a CSV file with a row for each round, written as the run goes."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from fedgc.strategies.reporting.base import RoundReporter
from fedgc.strategies.reporting.report import METRICS, RoundReport

logger = logging.getLogger("flwr.fedgc")

#: The columns, in order.
COLUMNS = ("round", *METRICS)


class CsvResults(RoundReporter):
    """Append a row to a CSV file after each round.

    The columns are ``round``, from 1, and those of :attr:`fedgc.strategies.RoundReport.metrics`, where they are
    described, under the very names that Flower's results have. A cell is empty where the number is not known.

    Parameters
    ----------
    path : str or Path
        The file. If it does not exist it is made, with its folder. If it holds results, rows are added below them: of a
        run that is resumed, whose rounds after its last checkpoint are taken away, or of a further one, whose rounds
        count from 1 again.

    Raises
    ------
    ValueError
        If the file holds something else, or cannot be written.

    Notes
    -----
    A row is whole once its line ends. A run that is killed, or a disk that is full, may leave the last line torn:
    :func:`read_csv_results` passes over it, as any reader must who meets a last line without an end, and the next row
    takes its place. The file is opened for each row, so that it may be moved away or read at any time. Two runs at a
    time need a file each.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = CsvResults(f"{folder}/results.csv")
    ...     print(Path(f"{folder}/results.csv").read_text()[:27], len(read_csv_results(results.path)))
    round,fedgc-asked,fedgc-arr 0
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"")
        except OSError as error:
            raise ValueError(
                f"path must be a file that can be written; got {str(path)!r} ({error.strerror or error})"
            ) from None

    def write(self, report: RoundReport) -> None:
        """Append the round's row."""
        self._append(_row(report))

    def resume(self, reports: Sequence[RoundReport]) -> None:
        """Take away the rows of a resumed run's later rounds, if the file ends with rows of that run."""
        if not reports:
            return
        last = _row(reports[-1])
        with self.path.open("r+b") as file:
            end = _whole(file, self.path)
            file.seek(0)
            rows = file.read(end).splitlines(keepends=True)[1:]
            later = 0
            while rows and _round_of(rows[-1]) > reports[-1].server_round:
                later += len(rows.pop())
            if later and rows and rows[-1] == last:  # else they are another run's, and stay
                logger.info("%s: rows of rounds after %d are taken away", self.path, reports[-1].server_round)
                file.truncate(end - later)

    def _append(self, line: bytes) -> None:
        """Write a line behind the last whole one, below the header."""
        self.path.touch()
        with self.path.open("r+b") as file:
            end = _whole(file, self.path)
            if file.seek(0, io.SEEK_END) > end:
                logger.warning("%s: its last row is torn and is taken away", self.path)
                file.truncate(end)
            file.seek(end)
            file.write(line if end else _line(COLUMNS) + line)


def read_csv_results(path: str | Path) -> list[dict[str, float | None]]:
    """Return the rows of a results file by column, None where a cell is empty; a torn last row is passed over.

    ``pandas.read_csv(path)`` reads the same, but does not know a torn row, which may look whole.

    Raises
    ------
    ValueError
        If the file cannot be read or is not one of :class:`CsvResults`.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            end = _whole(file, path)
            file.seek(0)
            text = file.read(end).decode()
    except OSError as error:
        raise ValueError(
            f"path must be a file that can be read; got {str(path)!r} ({error.strerror or error})"
        ) from None
    try:
        return [
            {name: None if cell == "" else float(cell) for name, cell in zip(COLUMNS, cells, strict=True)}
            for cells in list(csv.reader(io.StringIO(text)))[1:]
        ]
    except ValueError as error:
        raise ValueError(f"path must hold a number in each of {len(COLUMNS)} columns; {path}: {error}") from None


def _whole(file: BinaryIO, path: Path) -> int:
    """Return where the last whole line ends, 0 if not even the header is; raise ValueError if the header is another."""
    header = _line(COLUMNS)
    start = file.read(len(header))
    if not header.startswith(start):
        raise ValueError(f"path must be a new file or one with the columns of CsvResults; got {str(path)!r}")
    if len(start) < len(header):
        return 0
    end = len(start)
    for line in file:
        if not line.endswith(b"\n"):
            break
        end += len(line)
    return end


def _row(report: RoundReport) -> bytes:
    row = {"round": report.server_round, **report.numbers}
    return _line("" if row[name] is None else row[name] for name in COLUMNS)


def _round_of(row: bytes) -> int:
    return int(row.split(b",", 1)[0])


def _line(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
