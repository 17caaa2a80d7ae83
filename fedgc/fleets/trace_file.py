"""Traces: recorded completion times, read from CSV or Parquet files and checked before anything is used."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedgc.errors import ConfigError
from fedgc.fleets.parameters import Vector

COLUMNS = ("client", "round", "seconds")

#: What stands in place of the seconds of a round that a client missed.
MISSED = "missed"

#: Clients and rounds are at most this, so that a slip of the keyboard does not ask for terabytes.
_LARGEST = 10_000_000


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded completion times.

    Attributes
    ----------
    seconds : ndarray, shape (n_clients, n_rounds)
        Seconds from message to reply, infinite where the client missed the round.
    first_round : int
        Round of the first column.
    path : Path
        Where they were read from.
    """

    seconds: Vector
    first_round: int
    path: Path


def read_trace(path: str | Path) -> Trace:
    """Read a trace of every client in every round.

    Parameters
    ----------
    path : str or Path
        A CSV file (``.csv``), or a Parquet file (``.parquet``, needs the extra ``parquet``), with the columns `client`
        (integers from 0 on), `round` (integers without a gap) and `seconds` (a number of at least 0, or the word
        ``missed``), in any order. Every client needs every round, once. Empty lines are skipped, and quotes close on
        the line on which they open.

    Raises
    ------
    ConfigError
        If the file cannot be read or used; one line with file, row and reason. Rows of CSV files are lines as an editor
        counts them, the header being row 1; rows of Parquet files count from 1.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers or "\0" in str(path):
        raise ConfigError(f"trace must be a .csv or .parquet file; got {str(path)!r}")
    seen: dict[tuple[int, int], tuple[float, int]] = {}
    try:
        for row, cells in readers[path.suffix.lower()](path):
            where = f"{path}, row {row}"
            pair = _whole(where, "client", cells["client"]), _whole(where, "round", cells["round"])
            if pair in seen:
                raise ConfigError(
                    f"{where}: client {pair[0]} in round {pair[1]} must be given once; row {seen[pair][1]} has it too"
                )
            seen[pair] = _seconds(where, cells["seconds"]), row
    except OSError as error:
        raise ConfigError(f"{path}: trace must be a readable file; {error.strerror or error}") from None
    if not seen:
        raise ConfigError(f"{path}: trace must have at least one row below the header; got none")
    return _complete(path, seen)


def _complete(path: Path, seen: dict[tuple[int, int], tuple[float, int]]) -> Trace:
    """Return the trace as a table, if it has no gap."""
    clients, rounds = np.array(list(seen), dtype=np.int64).T
    n_clients, first = int(clients.max()) + 1, int(rounds.min())
    n_rounds = int(rounds.max()) + 1 - first
    if len(seen) < n_clients * n_rounds:
        # The first gap lies within the first len(seen) + 1 pairs: no table of the wrong size is made for looking.
        gap = next(k for k in range(len(seen) + 1) if (k // n_rounds, first + k % n_rounds) not in seen)
        raise ConfigError(
            f"{path}: every client from 0 to {n_clients - 1} needs every round from {first} to {first + n_rounds - 1}; "
            f"client {gap // n_rounds} has no round {first + gap % n_rounds}"
        )
    seconds = np.empty((n_clients, n_rounds))
    seconds[clients, rounds - first] = [value for value, _ in seen.values()]
    seconds.setflags(write=False)
    return Trace(seconds, first, path)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    header: list[str] | None = None
    # Bytes that are not UTF-8 come as surrogates, so that the row with the first of them is known.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row, line in enumerate(file, start=1):
            where = f"{path}, row {row}"
            cells = _csv_cells(where, line)
            if not any(cells):
                continue
            if header is None:
                header = cells
                _check_columns(where, header)
            elif len(cells) != len(COLUMNS):
                raise ConfigError(f"{where}: must have {len(COLUMNS)} cells; got {len(cells)}")
            else:
                yield row, dict(zip(header, cells, strict=True))
    if header is None:
        raise ConfigError(f"{path}: trace must have the header {','.join(COLUMNS)}; the file is empty")


def _csv_cells(where: str, line: str) -> list[str]:
    if "\0" in line or not line.isascii():
        odd = next((ord(char) for char in line if char == "\0" or "\udc80" <= char <= "\udcff"), None)
        if odd is not None:
            raise ConfigError(f"{where}: must be text in UTF-8; got the byte 0x{odd & 0xFF:02x}")
    try:
        # Line by line: a quote that is never closed would take the rows that follow into its cell.
        return [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
    except csv.Error as error:
        raise ConfigError(f"{where}: must be CSV, with quotes closed on their own row; got {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet files needs pyarrow: pip install 'fedgc[parquet]'") from None
    row = 0
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            _check_columns(str(path), list(file.schema_arrow.names))
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for cells in zip(*(batch.column(name) for name in COLUMNS), strict=True):
                    row += 1
                    yield row, dict(zip(COLUMNS, _parquet_cells(f"{path}, row {row}", cells), strict=True))
        # What is broken inside the file comes as an error of the operating system too.
        except (importlib.import_module("pyarrow").ArrowException, OSError) as error:
            raise ConfigError(f"{path}: trace must be a whole Parquet file; {' '.join(str(error).split())}") from None


def _parquet_cells(where: str, cells: tuple[Any, ...]) -> list[Any]:
    try:
        return [cell.as_py() for cell in cells]
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: must be numbers, or text in UTF-8; {error}") from None


def _check_columns(where: str, names: list[str]) -> None:
    wanted = f"must name the columns {', '.join(COLUMNS)}"
    for name in names:
        if name not in COLUMNS:
            raise ConfigError(f"{where}: header {wanted} and no other; got {name!r}")
        if names.count(name) > 1:
            raise ConfigError(f"{where}: header {wanted}, each once; got {name!r} {names.count(name)} times")
    for name in COLUMNS:
        if name not in names:
            raise ConfigError(f"{where}: header {wanted}; {name!r} is missing")


def _whole(where: str, name: str, value: object) -> int:
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    # int() alone would take "1_0" and other scripts' digits.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_LARGEST)):
        number = int(value)
    if number is None or not 0 <= number < _LARGEST:
        raise ConfigError(f"{where}: {name} must be an integer from 0 to {_LARGEST - 1}; got {value!r}")
    return number


def _seconds(where: str, value: object) -> float:
    if value == MISSED:
        return np.inf
    try:
        # float() would take "1_0" and other scripts' digits.
        plain = isinstance(value, (int, float, str)) and str(value).isascii() and "_" not in str(value)
        seconds = float(value) if plain else np.nan  # type: ignore[arg-type]
    except ValueError:
        seconds = np.nan
    if isinstance(value, bool) or not 0.0 <= seconds < np.inf:
        raise ConfigError(f"{where}: seconds must be a finite number of at least 0, or {MISSED!r}; got {value!r}")
    return seconds
