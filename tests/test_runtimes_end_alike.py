"""Where runs end and which rounds they keep does not depend on the runtime."""

from __future__ import annotations

from typing import Any

import pytest

from fedgc.experiment.config import ExperimentConfig, check_config
from fedgc.experiment.deadlines import unit_seconds
from fedgc.experiment.row import Row
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet

FLEET = {"preset": "lognormal", "clients": 3}


def experiment(**options: Any) -> ExperimentConfig:
    raw = {
        "name": "Tasks",
        "rounds": 20,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 6},
        "fleet": FLEET,
        "strategies": [{"kind": "fedavg"}],
        **options,
    }
    return check_config(raw)


def rounds_of(rows: list[Row]) -> list[int]:
    return [row.round for row in rows]


@pytest.mark.parametrize("runtime", ["virtual", "replay"])
def test_a_run_keeps_the_rounds_that_are_asked_for_and_ends_at_its_target(runtime: str) -> None:
    options = {"runtime": runtime, "timing": "known"}
    every = run_experiment(experiment(**options))
    assert rounds_of(every) == list(range(21))
    target = (every[12].loss + every[13].loss) / 2.0
    some = run_experiment(experiment(**options, record_every=8, target_loss=target))
    assert rounds_of(some) == [0, 8, 13, 16, 20]
    assert [row.loss for row in some] == [every[number].loss for number in rounds_of(some)]
    ended = run_experiment(experiment(**options, record_every=8, target_loss=target, stop_at_target=True))
    assert rounds_of(ended) == [0, 8, 13]
    accuracy = every[5].accuracy
    first = next(row.round for row in every if row.accuracy >= accuracy)
    assert run_experiment(experiment(**options, target_accuracy=accuracy, stop_at_target=True))[-1].round == first


@pytest.mark.parametrize("runtime", ["virtual", "replay"])
@pytest.mark.parametrize("unit", ["second", "cover"])
def test_a_run_ends_with_the_round_in_which_its_time_is_up(runtime: str, unit: str) -> None:
    options = {"runtime": runtime, "timing": "known", "deadline_unit": unit}
    every = run_experiment(experiment(**options))
    scale = 1.0 if unit == "second" else unit_seconds(experiment(**options), build_fleet(FLEET, seed=1))
    limit = (every[6].seconds + every[7].seconds) / 2.0 / scale
    ended = run_experiment(experiment(**options, time_limit=limit))
    assert [repr(row) for row in ended] == [repr(row) for row in every[:8]]
    assert rounds_of(run_experiment(experiment(**options, time_limit=limit, record_every=5))) == [0, 5, 7]


@pytest.mark.parametrize("runtime", ["virtual", "replay"])
def test_a_run_that_has_grown_beyond_hope_ends(runtime: str) -> None:
    task = {"name": "digits-regression", "shards": 6, "learning_rate": 1000.0}
    options = {"task": task, "runtime": runtime, "timing": "known", "target_loss": 0.01}
    ended = run_experiment(experiment(**options, stop_at_target=True))
    assert ended[-1].round < 20
    assert not ended[-1].loss <= 50.0 * ended[0].loss
    assert len(run_experiment(experiment(**options))) == 21
