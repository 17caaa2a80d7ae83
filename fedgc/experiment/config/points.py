"""The points of a sweep: one experiment for every combination of the values that its keys take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from fedgc.errors import ConfigError
from fedgc.experiment.config.overrides import set_value
from fedgc.experiment.config.sections import ExperimentConfig, StrategyConfig
from fedgc.validation import did_you_mean

#: What a sweep may vary. Strategies have a grid of their own, and seeds are a list as they are.
SWEPT = ("task", "fleet", "rounds", "target_accuracy", "target_loss", "timing")
#: What a strategy's grid may not vary.
_FIXED = ("kind", "label", "grid")


@dataclass(frozen=True, eq=False)
class Point:
    """One experiment of a sweep.

    Attributes
    ----------
    settings : mapping of str to value
        The swept keys, and the value that each has here.
    config : ExperimentConfig
        The experiment, without sweep and grids: a strategy with a grid is as many, each with its values in its label.
    choices : tuple of (mapping of str to value)
        For each of its strategies the keys of its grid, and the value that each has.
    """

    settings: Mapping[str, Any]
    config: ExperimentConfig
    choices: tuple[Mapping[str, Any], ...]


def points(config: ExperimentConfig, check: Callable[[Mapping[str, Any]], ExperimentConfig]) -> Iterator[Point]:
    """Yield the points of a sweep, in the order of its keys; one, if nothing is swept.

    Parameters
    ----------
    config : ExperimentConfig
        The sweep.
    check : callable
        Checks the plain data of a point.

    Raises
    ------
    ConfigError
        If a key cannot be swept, or a value is not allowed where it is set.
    """
    raw = config.model_dump(exclude_unset=True)
    grid = raw.pop("sweep", {})
    titles = raw.pop("sweep_titles", {})
    raw.pop("tuning", None)  # a point is what is chosen
    for key in grid:
        if key.split(".")[0] not in SWEPT:
            raise ConfigError(f"sweep must name keys of {', '.join(SWEPT)}; got {key!r}")
    for key in titles:
        if key not in grid:
            raise ConfigError(
                f"sweep_titles must name keys that are swept, {', '.join(grid) or 'of which there are none'}; "
                f"got {key!r}{did_you_mean(key, grid)}"
            )
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        own = deepcopy(raw)
        for key, value in settings.items():
            set_value(own, key, value, option=f"sweep.{key}")
        variants = [one for index, strategy in enumerate(own["strategies"]) for one in _variants(strategy, index)]
        own["strategies"] = [strategy for strategy, _ in variants]
        try:
            checked = check(own)
        except ConfigError as error:
            if not settings and not any(choice for _, choice in variants):
                raise
            raise ConfigError(f"{error} (at {_named({**settings})})" if settings else str(error)) from None
        yield Point(settings, checked, tuple(choice for _, choice in variants))


def _variants(strategy: Mapping[str, Any], index: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    own = dict(strategy)
    grid = own.pop("grid", {})
    for key in grid:
        if key in _FIXED:
            raise ConfigError(f"strategies.{index}.grid must name other keys than {', '.join(_FIXED)}; got {key!r}")
    for values in itertools.product(*grid.values()):
        choice = dict(zip(grid, values, strict=True))
        label = f"{own['label']} ({_named(choice)})" if choice else own["label"]
        yield {**own, **choice, "label": label}, choice


def _named(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in choice.items())


def base_label(strategy: StrategyConfig, choice: Mapping[str, Any]) -> str:
    """Return a strategy's label without the values of its grid."""
    return strategy.label.removesuffix(f" ({_named(choice)})") if choice else strategy.label
