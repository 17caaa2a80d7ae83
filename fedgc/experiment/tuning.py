"""Tune each strategy on seeds of its own: which of its choices is measured afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedgc.experiment.cells import Cell, cells_of
from fedgc.experiment.config import ExperimentConfig, base_label
from fedgc.experiment.row import Row
from fedgc.experiment.summary import target_at
from fedgc.experiment.target import Target

#: What is tuned as one: a strategy under a condition, which is the values of the swept keys that are not chosen.
Group = tuple[str, str]


def group_of(cell: Cell, keys: Sequence[str]) -> Group:
    """Return what a cell is a choice of, given the swept keys that strategies may choose."""
    choice = {key for key in cell.settings if key in keys or key in cell.own_keys}
    condition = sorted((key, value) for key, value in cell.settings.items() if key not in choice)
    own = {key: cell.settings[key] for key in cell.own_keys}
    return base_label(cell.strategy, own), repr(condition)


def tuning_cells(config: ExperimentConfig) -> list[Cell]:
    """Return the cells on which strategies are tuned: every choice of those that have more than one.

    A strategy that has nothing to choose is not run for it.
    """
    if config.tuning is None:
        return []
    cells = cells_of(config.model_copy(update={"seeds": config.tuning.seeds}))
    groups: dict[Group, set[str]] = {}
    for cell in cells:
        groups.setdefault(group_of(cell, config.tuning.keys), set()).add(repr(cell.settings))
    return [cell for cell in cells if len(groups[group_of(cell, config.tuning.keys)]) > 1]


def measured_cells(config: ExperimentConfig, tuned: Mapping[Cell, Sequence[Row]]) -> list[Cell]:
    """Return the cells of which the results consist: without tuning all, else those at each strategy's best choice.

    Parameters
    ----------
    config : ExperimentConfig
        The experiment.
    tuned : mapping of Cell to sequence of Row
        The rows of all of :func:`tuning_cells`.

    Notes
    -----
    The best choice has the most seeds at the target, then the least mean seconds or rounds to it, then the best final
    accuracy or loss; of equal ones it is the first.
    """
    cells = cells_of(config)
    if config.tuning is None:
        return cells
    keys, by = config.tuning.keys, config.tuning.by
    runs: dict[Group, dict[str, list[Sequence[Row]]]] = {}
    targets: dict[Group, Target] = {}
    for cell, rows in tuned.items():
        group = group_of(cell, keys)
        runs.setdefault(group, {}).setdefault(repr(cell.settings), []).append(rows)
        targets[group] = target_at(config, cell.settings)
    best = {
        group: min(choices, key=lambda choice: _rank(choices[choice], targets[group], by))
        for group, choices in runs.items()
    }
    return [cell for cell in cells if best.get(group_of(cell, keys), repr(cell.settings)) == repr(cell.settings)]


def _rank(runs: Sequence[Sequence[Row]], target: Target, by: str) -> tuple[int, float, float]:
    first = []
    for rows in runs:
        hit: Any = next((row for row in rows if target.reached_in(row)), None)
        first.append(math.inf if hit is None else float(hit.seconds if by == "seconds" else hit.round))
    ends = [-rows[-1].accuracy if target.quantity == "accuracy" else rows[-1].loss for rows in runs]
    return rank(first, ends)


def rank(first: Sequence[float], ends: Sequence[float]) -> tuple[int, float, float]:
    """Return what orders choices, the best first.

    Parameters
    ----------
    first : sequence of float
        Rounds or seconds to the target of each run, infinite where it was never reached.
    ends : sequence of float
        What each run came to; the lower the better.

    Examples
    --------
    >>> sorted([rank([9.0, 9.0], [0.1, 0.1]), rank([2.0, math.inf], [0.0, 0.0]), rank([4.0, 6.0], [0.2, 0.2])])
    [(0, 5.0, 0.2), (0, 9.0, 0.1), (1, 2.0, 0.0)]
    """
    reached = [value for value in first if math.isfinite(value)]
    mean = sum(reached) / len(reached) if reached else math.inf
    # A loss that is not a number compares with nothing: it is the worst.
    last = sum(ends) / len(ends)
    return len(first) - len(reached), mean, math.inf if math.isnan(last) else last
