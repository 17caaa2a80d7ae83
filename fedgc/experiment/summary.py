"""Summarise results: one line per strategy, and what is needed to reproduce it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fedgc.experiment.config import ExperimentConfig
from fedgc.experiment.row import MEASURED, Row
from fedgc.experiment.target import Target


@dataclass(frozen=True)
class StrategySummary:
    """Results of one strategy, averaged over seeds.

    Attributes
    ----------
    strategy : str
        The strategy's label.
    accuracy : float
        Final test accuracy.
    rounds_to_target, seconds_to_target : float or None
        Rounds and virtual seconds until the target was first reached; None unless every seed reached it.
    reached_target : int
        Number of seeds that reached it.
    asked, arrived : float
        Clients asked and used per round, mean over the rounds that are kept.
    predicted_residual_error, measured_residual_error : float or None
        Mean over the rounds that are kept.
    settings : mapping of str to value
        Of a sweep the keys that are varied, and the value that each has here.
    """

    strategy: str
    accuracy: float
    rounds_to_target: float | None
    seconds_to_target: float | None
    reached_target: int
    asked: float
    arrived: float
    predicted_residual_error: float | None
    measured_residual_error: float | None
    settings: Mapping[str, Any] = field(default_factory=dict)


def target_at(config: ExperimentConfig, settings: Mapping[str, Any]) -> Target:
    """Return the target at a point of a sweep, which may vary it."""
    swept = {key: settings[key] for key in ("target_accuracy", "target_loss") if key in settings}
    return config.model_copy(update=swept).target


def summarise(rows: Sequence[Row], config: ExperimentConfig) -> list[StrategySummary]:
    """Return one summary per strategy and point of the sweep, in the order in which they appear."""
    summaries = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.strategy, repr(sorted(row.settings.items()))), []).append(row)
    for (strategy, _), own in groups.items():
        target = target_at(config, own[0].settings)
        trained = [row for row in own if row.round > 0]
        runs = [[row for row in own if row.seed == seed] for seed in dict.fromkeys(row.seed for row in own)]
        hits = [next((row for row in run if target.reached_in(row)), None) for run in runs]
        reached = [row for row in hits if row is not None]
        everyone = len(reached) == len(runs)
        summaries.append(
            StrategySummary(
                strategy=strategy,
                accuracy=float(np.mean([run[-1].accuracy for run in runs])),
                rounds_to_target=float(np.mean([row.round for row in reached])) if everyone else None,
                seconds_to_target=float(np.mean([row.seconds for row in reached])) if everyone else None,
                reached_target=len(reached),
                asked=float(np.mean([row.metrics["fedgc-asked"] for row in trained])),
                arrived=float(np.mean([row.metrics["fedgc-arrived"] for row in trained])),
                predicted_residual_error=_mean(row.metrics.get("fedgc-error-predicted") for row in trained),
                measured_residual_error=_mean(row.metrics.get(MEASURED) for row in trained),
                settings=own[0].settings,
            )
        )
    return summaries


def provenance(config: ExperimentConfig) -> dict[str, Any]:
    """Return configuration, seeds, versions and commit: all that the results depend on."""
    return {
        "config": config.model_dump(mode="json"),
        "seeds": config.seeds,
        "versions": versions(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of all packages that results depend on."""
    packages = ("fedgc", "flwr", "torch", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _commit() -> str | None:
    """Return the commit of the source tree that runs, marked if it has changes, or None if it is installed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("-modified" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(where: Path, *arguments: str) -> str:
    command = ["git", "-C", str(where), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
