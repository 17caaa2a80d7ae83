"""Deadlines in a fleet's own unit, and what is chosen where a rule chooses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding

from fedgc.deadline import AutomaticDeadline, cover_time
from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig, GradientCodingConfig, check_config
from fedgc.experiment.deadlines import in_seconds
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet, presets


def experiment(**changes: Any) -> ExperimentConfig:
    raw: dict[str, Any] = {
        "name": "Units",
        "rounds": 4,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 12},
        "fleet": {"preset": "uneven", "clients": 6},
        "deadline_unit": "cover",
        "strategies": [{"kind": "is-sgd", "deadline": 1.5}, {"kind": "fedavg"}],
    }
    return check_config({**raw, **changes})


@pytest.mark.parametrize("preset", sorted(presets()))
def test_the_unit_is_the_time_in_which_the_fleet_covers_all_shards(preset: str) -> None:
    config = experiment(fleet={"preset": preset, "clients": 6})
    fleet = build_fleet(config.fleet, seed=1)
    cut, waiting = config.strategies
    unit = cover_time(fleet, 12, part=0.75)
    assert in_seconds(cut, config, fleet).deadline == pytest.approx(1.5 * unit)
    # By then the clients are expected to have done so much.
    reach = fleet.reach(unit, 12)[:, 1:].sum()
    assert reach >= min(12.0, 0.75 * fleet.reach(3600.0, 12)[:, 1:].sum())
    assert in_seconds(waiting, config, fleet).deadline is None
    assert in_seconds(cut, config.model_copy(update={"deadline_unit": "second"}), fleet) == cut


def test_rounds_last_as_long_as_that_says() -> None:
    config = experiment(strategies=[{"kind": "is-sgd", "deadline": 0.4}])
    fleet = build_fleet(config.fleet, seed=1)
    rows = run_experiment(config)
    longest = np.diff([row.seconds for row in rows]).max()
    assert longest == pytest.approx(0.4 * cover_time(fleet, 12, part=0.75), rel=1e-3)


def test_what_is_foreseen_is_foreseen_for_unbiased_weights() -> None:
    """The error of least squares never exceeds one: the shortest deadline would look best, and nothing would come."""
    assert GradientCoding(num_shards=4, deadline=3.0, memory=True).decoder.name == "least-squares"
    for options in ({"deadline": AutomaticDeadline(initial=3.0)}, {"deadline": 3.0, "schedule": "work-list"}):
        assert GradientCoding(num_shards=4, memory=True, **options).decoder.name == "optimal-unbiased"
    automatic = {"kind": "gradient-coding", "label": "ours", "deadline": 1.0, "deadline_rule": "auto", "memory": True}
    config = experiment(
        rounds=25,
        strategies=[{**automatic, "schedule": "work-list", "deadline_cover": False}],
        task={"name": "digits-regression", "shards": 12, "learning_rate": 2.0},
    )
    strategy = config.strategies[0]
    assert isinstance(strategy, GradientCodingConfig)
    assert strategy.decoder_name == "optimal-unbiased"
    assert not strategy.build_deadline().cover  # type: ignore[attr-defined]
    rows = run_experiment(config)
    assert rows[-1].loss < 0.5 * rows[0].loss
    assert np.mean([row.metrics["fedgc-arrived"] for row in rows[1:]]) > 2.0


def test_a_cover_is_for_the_rule_that_heeds_it() -> None:
    ours = {"kind": "gradient-coding", "label": "ours", "deadline": 1.0, "deadline_cover": False}
    with pytest.raises(ConfigError, match=r"deadline_cover must be left out unless deadline_rule is 'auto'; got False"):
        experiment(strategies=[ours])
