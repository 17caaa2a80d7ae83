"""Finished cells in a folder, each a file of its own that is there whole or not at all: what need not be run again."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedgc.errors import ConfigError
from fedgc.experiment.cells import Cell
from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.files import write_whole
from fedgc.experiment.row import Row
from fedgc.experiment.summary import versions

#: The folder in the results' folder, and the file beside it that says whose cells these are.
CELLS, OWNER = "cells", "config.json"


class FinishedCells:
    """The finished cells of an experiment.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    config : ExperimentConfig
        The experiment.
    overwrite : bool
        Whether cells of another experiment, or of other versions, are thrown away.

    Raises
    ------
    ConfigError
        If the folder holds cells of another experiment, and may not be overwritten.
    """

    def __init__(self, folder: Path, config: ExperimentConfig, *, overwrite: bool = False) -> None:
        self._folder = folder / CELLS
        self._owner = {"config": config.model_dump(mode="json"), "versions": versions()}
        self.n_found = 0
        self._has_new_owner = False
        self._owner_file = folder / OWNER
        if overwrite:
            for path in (self._owner_file, *self._folder.glob("*.json")):
                path.unlink(missing_ok=True)
        if self._owner_file.exists():
            self._check(self._owner_file)

    def _check(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text())
            had, ran = found["config"], found["versions"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"--out must hold cells of this experiment; got {str(path)!r}, which is damaged"
            ) from None
        own = self._owner["config"]
        # Cells are of one seed each: with more seeds it is still the same experiment.
        more = set(had.get("seeds", [])) < set(own["seeds"])
        compared = {**own, **had}.keys() - ({"seeds"} if more else set())
        other = next((key for key in {**own, **had} if key in compared and had.get(key) != own.get(key)), None)
        self._has_new_owner = more
        if other is not None:
            raise ConfigError(
                f"--out must hold cells of this experiment unless --overwrite is given; got {str(path.parent)!r}, "
                f"where {other} is {_short(had.get(other))} and not {_short(own.get(other))}"
            )
        if ran != self._owner["versions"]:
            raise ConfigError(
                f"--out must hold cells that these versions have run unless --overwrite is given; got "
                f"{str(path.parent)!r} of {_short(ran)}"
            )

    def any(self) -> bool:
        """Return whether a cell has been finished."""
        return any(self._folder.glob("*.json"))

    def read(self, cell: Cell) -> tuple[list[Row], str] | None:
        """Return a cell's rows and its draws, None if it has not been finished."""
        path = self._folder / f"{cell.key}.json"
        try:
            found = json.loads(path.read_text())
            rows = [Row(**_with_nan(row), settings=cell.settings) for row in found["rows"]]
            draws = str(found["draws"])
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"--out must hold whole cells; got {str(path)!r}, which is damaged: remove it") from None
        self.n_found += 1
        return [replace(row, strategy=cell.strategy.label) for row in rows], draws

    def write(self, cell: Cell, rows: list[Row], draws: str) -> None:
        """Keep a cell that has been finished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._has_new_owner or not self._owner_file.exists():
            self._has_new_owner = False
            write_whole(self._owner_file, json.dumps(self._owner, indent=2).encode())
        plain = [{key: value for key, value in asdict(row).items() if key != "settings"} for row in rows]
        for row in plain:
            row["loss"] = _known(row["loss"])
            row["metrics"] = {name: _known(value) for name, value in row["metrics"].items()}
        content = json.dumps({"draws": draws, "rows": plain}, allow_nan=False, default=float)
        write_whole(self._folder / f"{cell.key}.json", content.encode())


def _known(value: float) -> float | None:
    """Return None for what JSON does not have: a run that diverges has losses and errors that are not finite."""
    return value if math.isfinite(value) else None


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: math.nan if value is None else value for name, value in row["metrics"].items()}
    return {**row, "metrics": metrics, "loss": math.nan if row["loss"] is None else row["loss"]}


def _short(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
