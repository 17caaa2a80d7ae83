"""Coordinates with different redundancy from a configuration: exact gradients, at the time of the runtime model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.block_coordinates import runtime, whole_coordinates
from fedgc.errors import ConfigError
from fedgc.experiment.block_coordinates import end_of_round, split_for
from fedgc.experiment.config import BlocksConfig, check_config, load_config
from fedgc.experiment.row import MEASURED, Row
from fedgc.experiment.summary import summarise
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws

CLIENTS, PARAMETERS = 6, 650
CONFIG: dict[str, Any] = {
    "name": "blocks",
    "rounds": 6,
    "seeds": [1],
    "target_loss": 0.1,
    "runtime": "replay",
    "timing": "known",
    "task": {"name": "digits-regression", "shards": CLIENTS, "partition": "sorted", "learning_rate": 2.0},
    "fleet": {"model": "shifted-exponential", "clients": CLIENTS, "shift": 0.05, "mean": 1.0},
    "strategies": [{"kind": "block-coordinates", "label": "a"}],
}


def with_(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


def one(**options: Any) -> list[dict[str, Any]]:
    return [{"kind": "block-coordinates", "label": "a", **options}]


WAITS = {"kind": "fedavg", "label": "waits"}
SPLITS: list[dict[str, Any]] = [
    {"split": "optimal"},
    {"split": "closed-form"},
    {"split": "closed-form-inverse"},
    {"split": "single-layer"},
    {"split": "single-layer", "stragglers": 3},
]


def rows_of(**changes: Any) -> dict[str, list[Row]]:
    rows = run_experiment(check_config(with_(**changes)))
    return {label: [row for row in rows if row.strategy == label] for label in dict.fromkeys(r.strategy for r in rows)}


@pytest.mark.parametrize("options", SPLITS, ids=str)
def test_gradients_are_exact_and_rounds_end_when_the_runtime_model_says(options: dict[str, Any]) -> None:
    found = rows_of(strategies=[*one(**options), WAITS])
    for own, exact in zip(found["a"], found["waits"], strict=True):
        assert own.loss == pytest.approx(exact.loss, rel=1e-4)
        assert own.metrics.get(MEASURED, 0.0) < 1e-18
    # The times of the fleet, and the split again, by the model's own formula.
    fleet = build_fleet(CONFIG["fleet"], seed=1)
    choice = BlocksConfig(kind="block-coordinates", label="a", **options)
    sizes = whole_coordinates(split_for(choice, fleet, PARAMETERS, after=6, seed=1), PARAMETERS)
    draws, seconds = RoundDraws(fleet), 0.0
    for number, row in enumerate(found["a"]):
        assert row.seconds == pytest.approx(seconds, rel=1e-12)
        fixed, per_shard, _ = draws.of_round(number + 1, 0.0)
        assert not fixed.any()
        seconds += runtime(sizes, per_shard / PARAMETERS).item()


def test_without_copies_it_waits_for_everyone_and_takes_as_long() -> None:
    found = rows_of(strategies=[*one(split="single-layer", stragglers=0), WAITS])
    for own, exact in zip(found["a"], found["waits"], strict=True):
        assert own.seconds == pytest.approx(exact.seconds, rel=1e-9)
        assert own.loss == pytest.approx(exact.loss, rel=1e-4)
        assert own.metrics["fedgc-arrived"] == (CLIENTS if own.round else 0)


def test_the_optimal_split_is_the_soonest() -> None:
    found = rows_of(
        rounds=60,
        record_every=60,
        strategies=[{"kind": "block-coordinates", "label": str(own), **own} for own in SPLITS] + [WAITS],
    )
    ends = {label: rows[-1].seconds for label, rows in found.items()}
    assert min(ends, key=ends.__getitem__) == str(SPLITS[0])
    assert ends["waits"] > 1.5 * ends[str(SPLITS[0])]


def test_what_a_message_takes_is_on_top_of_the_work() -> None:
    end = end_of_round(np.array([4, 0, 1]), np.array([1.0, 0.0, 10.0]), np.array([1.0, 2.0, 0.1]))
    # The first block needs all three, the last any one of them.
    assert end.seconds == pytest.approx(10.4)
    assert end.done.tolist() == [3, 2, 2]
    alone = end_of_round(np.array([0, 0, 2]), np.array([1.0, 0.0, 10.0]), np.array([1.0, 2.0, 0.1]))
    assert alone.seconds == pytest.approx(7.0)
    assert alone.done.tolist() == [3, 2, 0]


def test_sweeps_grids_and_tables_take_it_as_any_other() -> None:
    config = check_config(
        with_(
            sweep={"fleet.mean": [0.5, 1.0]},
            strategies=one(split="single-layer", grid={"stragglers": [0, 1]}),
        )
    )
    rows = run_experiment(config)
    assert len({(row.settings["fleet.mean"], row.settings["stragglers"]) for row in rows}) == 4
    summaries = summarise(rows, config)
    assert len(summaries) == 4
    assert all(0.0 < summary.arrived <= CLIENTS for summary in summaries)
    assert all(summary.measured_residual_error < 1e-18 for summary in summaries)  # type: ignore[operator]


def test_steps_that_diverge_end_in_an_infinite_loss_and_not_in_an_error() -> None:
    rows = rows_of(rounds=40, task={**CONFIG["task"], "learning_rate": 1000.0})["a"]
    assert len(rows) == 41


def test_the_configuration_of_the_guide_is_one() -> None:
    path = Path(__file__).parents[1] / "experiments" / "neighbours" / "block_coordinates_training.toml"
    config = load_config(path)
    assert [strategy.kind for strategy in config.strategies].count("block-coordinates") == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "virtual"}, "runtime must be 'replay' for strategies.0.kind 'block-coordinates'; got 'virtual'"),
        (
            {"task": {"name": "digits-regression", "shards": 7}},
            "task.shards must be fleet.clients = 6 for strategies.0.kind 'block-coordinates'; got 7",
        ),
        ({"task": {"name": "digits", "shards": 6}}, "task.name must be one of digits-regression, digits-conv for runt"),
        ({"timing": "learnt"}, "timing must be 'known' for runtime 'replay'; got 'learnt'"),
        ({"strategies": one(split="best")}, "strategies.0.split must be 'optimal', 'closed-form', 'closed-form-inver"),
        (
            {"strategies": one(stragglers=2)},
            "strategies.0.stragglers must be left out unless split is 'single-layer'; got 2 with 'optimal'",
        ),
        (
            {"strategies": one(split="single-layer", stragglers=6)},
            "strategies.0.stragglers must be below fleet.clients = 6; got 6",
        ),
        ({"strategies": one(lod=2)}, "strategies.0.lod is not a known key, allowed are kind, label, split, straggl"),
        (
            {"fleet": {**CONFIG["fleet"], "dropout": 0.1}},
            "fleet.dropout must be 0 for strategies.0.kind 'block-coordinates', whose clients are slow and never gone; "
            "got 0.1",
        ),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(with_(**changes))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_client_that_leaves_is_said_in_one_line() -> None:
    config = check_config(with_(fleet={**CONFIG["fleet"], "leave_after": 3}, strategies=one(split="single-layer")))
    with pytest.raises(
        ConfigError, match=r"never gone for kind 'block-coordinates'; got client 0, who leaves"
    ) as error:
        run_experiment(config)
    assert "\n" not in str(error.value)
