"""Read the results of an experiment, as ``fedgc run --out`` has written them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.errors import ConfigError
from fedgc.experiment.target import Target
from fedgc.report.unit import Unit

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """One strategy with one seed, at one point of a sweep.

    Attributes
    ----------
    strategy : str
        Its label, without the values of its grid.
    settings : mapping of str to str
        What a sweep varies, and its value here, as the experiment's `sweep_titles` call them.
    choice : mapping of str to str
        What the strategy's grid varies, and its value here.
    seed : int
        Seed.
    rounds, seconds, accuracy, loss : ndarray, shape (n_rows,)
        Round number, virtual seconds, accuracy and loss after each round that was evaluated, first before any.
    predicted, observed, measured : ndarray, shape (n_rows,)
        Residual error of those rounds: predicted before the round, observed by who came, and measured against the
        updates of all shards; NaN where there is none.
    load, deadline : ndarray, shape (n_rows,)
        Shard updates asked for per shard in those rounds, and the seconds that they might last; NaN where strategies do
        not report it.
    """

    strategy: str
    settings: Mapping[str, str]
    choice: Mapping[str, str]
    seed: int
    rounds: Vector
    seconds: Vector
    accuracy: Vector
    loss: Vector
    predicted: Vector
    observed: Vector
    measured: Vector
    load: Vector
    deadline: Vector

    def first(self, target: Target, unit: Unit) -> float:
        """Return the rounds or virtual seconds after which the target was first seen reached, infinite if never.

        A loss or an accuracy that is not a number reaches nothing.
        """
        there = self.accuracy >= target.value if target.quantity == "accuracy" else self.loss <= target.value
        reached = np.flatnonzero(there)
        return float((self.rounds if unit == "rounds" else self.seconds)[reached[0]]) if reached.size else np.inf


@dataclass(frozen=True, eq=False)
class Results:
    """All runs of an experiment, and what they depend on.

    Attributes
    ----------
    folder : Path
        Where they were read.
    name : str
        The experiment's name.
    target : Target
        What its runs are to reach.
    config : mapping
        Its configuration, as plain data.
    versions : mapping of str to str
        Versions of Python and packages.
    commit : str or None
        Commit of the code that ran it.
    runs : tuple of Run
        Its runs.
    """

    folder: Path
    name: str
    target: Target
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str | None
    runs: tuple[Run, ...]


def read_results(folder: Path) -> Results:
    """Read a folder of results.

    Raises
    ------
    ConfigError
        If it holds none, or what it holds cannot be read, or its sweep varies the target, which reports have one of:
        one line with the file and the reason.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        config = summary["config"]
        varied = next((key for key in config.get("sweep", {}) if key.startswith("target_")), None)
        if varied is not None:
            raise ConfigError(f"DIR must hold results of one target; got {str(folder)!r}, whose sweep varies {varied}")
        return Results(
            folder,
            str(config["name"]),
            Target.of(config),
            config,
            summary["versions"],
            summary["commit"],
            tuple(_runs(rows, config)),
        )
    except OSError as error:
        raise ConfigError(
            f"DIR must hold results of fedgc run --out; got {str(folder)!r} ({error.strerror}: {error.filename})"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"DIR must hold results of fedgc run --out; got {str(folder)!r} ({error!r:.200})") from None


def _runs(rows: list[dict[str, str]], config: Mapping[str, Any]) -> Iterator[Run]:
    swept = [key for key in config.get("sweep", {}) if rows and key in rows[0]]
    # In one order: that of a set differs from process to process, and so would two reports on the same results.
    gridded = list(dict.fromkeys(key for strategy in config["strategies"] for key in strategy.get("grid", {})))
    labels = [str(strategy["label"]) for strategy in config["strategies"]]
    titles = config.get("sweep_titles", {})
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["strategy"], row["seed"], *(row[key] for key in swept)), []).append(row)
    for (label, seed, *values), own in groups.items():
        choice = {key: own[0][key] for key in gridded if own[0].get(key)}
        base = max((one for one in labels if label == one or label.startswith(f"{one} (")), key=len, default=label)
        yield Run(
            base,
            dict(_titled(key, value, titles) for key, value in zip(swept, values, strict=True)),
            choice,
            int(seed),
            *(_column(own, name) for name in ("round", "seconds", "accuracy", "loss")),
            *(_column(own, f"fedgc-error-{name}") for name in ("predicted", "observed", "measured")),
            *(_column(own, f"fedgc-{name}") for name in ("load", "deadline")),
        )


def _titled(key: str, value: str, titles: Mapping[str, Any]) -> tuple[str, str]:
    title = titles.get(key)
    return (title["name"], title["values"][value]) if title and value in title["values"] else (key, value)


def _column(rows: list[dict[str, str]], name: str) -> Vector:
    return np.array([float(row[name]) if row.get(name) else np.nan for row in rows])
