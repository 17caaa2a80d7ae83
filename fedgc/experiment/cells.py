"""The cells of an experiment: one run each, of one strategy with one seed at one point of a sweep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedgc.experiment.config import ExperimentConfig, StrategyConfig, points_of

#: What results depend on, beside strategy, seed and what is recorded.
_DECISIVE = {"rounds", "task", "fleet", "runtime", "timing", "deadline_unit"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One run.

    Attributes
    ----------
    config : ExperimentConfig
        The experiment at its point of the sweep.
    strategy : StrategyConfig
        What is run.
    seed : int
        Seed.
    settings : mapping of str to value
        The keys that sweep and grid vary, and the value that each has here.
    point : int
        Number of the point: cells of one point and seed meet the same shards, clients and draws.
    own_keys : tuple of str
        Those of the settings that the strategy's own grid varies.
    """

    config: ExperimentConfig
    strategy: StrategyConfig
    seed: int
    settings: Mapping[str, Any]
    point: int
    own_keys: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What names the cell in a folder: it depends on all that its results depend on but for the code itself.

        Labels and the experiment's name are not among it. Nor is the target, which is looked for afterwards, unless it
        says which rounds there are.
        """
        # What is left out is not named either: another option that may be left out changes no key.
        strategy = self.strategy.model_dump(mode="json", exclude={"label", "grid"}, exclude_none=True)
        point = self.config.model_dump(mode="json", include=_DECISIVE)
        config = self.config
        if config.stop_at_target or config.record_every > 1:
            target = config.target.quantity, config.target.value
            point["recording"] = [config.stop_at_target, config.record_every, *target]
        if config.decentralised is not None:
            point["decentralised"] = config.decentralised.model_dump(mode="json", exclude_none=True)
        if config.time_limit is not None:
            point["time_limit"] = config.time_limit
        plain = json.dumps([point, strategy, self.seed], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:24]


def cells_of(config: ExperimentConfig) -> list[Cell]:
    """Return all cells of an experiment, ordered by point, strategy and seed."""
    return [
        Cell(point.config, strategy, seed, {**point.settings, **choice}, number, tuple(choice))
        for number, point in enumerate(points_of(config))
        for strategy, choice in zip(point.config.strategies, point.choices, strict=True)
        for seed in config.seeds
    ]
