"""Deadlines in a unit of the fleet's own, so that one experiment can compare fleets of very different pace."""

from __future__ import annotations

import math
from typing import TypeVar, cast

from fedgc.deadline import cover_time
from fedgc.experiment.config import ExperimentConfig, GradientCodingConfig, NodesConfig, RivalConfig
from fedgc.fleets import Fleet

Chosen = TypeVar("Chosen", bound=GradientCodingConfig | NodesConfig | RivalConfig)


def in_seconds(choice: Chosen, config: ExperimentConfig, fleet: Fleet) -> Chosen:
    """Return a strategy with its deadline in seconds.

    Parameters
    ----------
    choice : strategy
        One of the experiment's.
    config : ExperimentConfig
        The experiment. With ``deadline_unit = "cover"`` the unit is the time in which all clients together, each at its
        pace, can be expected to do every shard once, or three quarters of what they ever can if that is less.
    fleet : Fleet
        The clients.
    """
    if choice.deadline is None:
        return choice
    changed = choice.model_copy(update={"deadline": choice.deadline * unit_seconds(config, fleet)})
    return cast(Chosen, changed)


def unit_seconds(config: ExperimentConfig, fleet: Fleet) -> float:
    """Return the seconds of one unit of deadlines, and of the time limit."""
    return 1.0 if config.deadline_unit == "second" else cover_time(fleet, config.task.shards, part=0.75)


def time_limit_seconds(config: ExperimentConfig, fleet: Fleet) -> float:
    """Return the seconds after which a run ends, infinite without a limit."""
    return math.inf if config.time_limit is None else config.time_limit * unit_seconds(config, fleet)
