"""Targets of experiments: what counts as reaching one, which rounds are kept, and where a run ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config, load_config
from fedgc.experiment.finished import FinishedCells
from fedgc.experiment.row import Row
from fedgc.experiment.summary import summarise
from fedgc.experiment.sweep import run_experiment
from tests.command_line import fedgc

RAW: dict[str, Any] = {
    "name": "Targets",
    "rounds": 23,
    "seeds": [1],
    "task": {"name": "digits-regression", "shards": 8, "partition": "sorted", "learning_rate": 1.0},
    "fleet": {"model": "log-normal", "clients": 4, "sigma": 0.5},
    "strategies": [
        {"kind": "fedavg"},
        {"kind": "fedbuff"},
        {"kind": "gradient-coding", "label": "Ours", "deadline": 9.0, "load": 1},
    ],
}


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Row]]:
    """All rounds of all strategies."""
    return of_strategies(run_experiment(check_config(RAW)))


def of_strategies(rows: list[Row]) -> dict[str, list[Row]]:
    labels = dict.fromkeys(row.strategy for row in rows)
    return {label: [row for row in rows if row.strategy == label] for label in labels}


def test_a_run_ends_with_the_round_that_reaches_the_loss(everything: dict[str, list[Row]]) -> None:
    target = 1.0
    config = check_config({**RAW, "target_loss": target, "stop_at_target": True})
    rows = run_experiment(config)
    for label, own in of_strategies(rows).items():
        whole = everything[label]
        hit = next(row for row in whole if row.loss <= target)
        assert 1 < hit.round < 22
        assert repr(own) == repr(whole[: hit.round + 1])
    for line, own in zip(summarise(rows, config), of_strategies(rows).values(), strict=True):
        assert (line.rounds_to_target, line.seconds_to_target) == (own[-1].round, own[-1].seconds)
    # Without the end the summary is of the same rounds.
    watched = check_config({**RAW, "target_loss": target})
    lines = summarise([row for own in everything.values() for row in own], watched)
    assert [line.rounds_to_target for line in lines] == [own[-1].round for own in of_strategies(rows).values()]


def test_a_run_ends_with_the_round_that_reaches_the_accuracy(everything: dict[str, list[Row]]) -> None:
    rows = run_experiment(check_config({**RAW, "target_accuracy": 0.8, "stop_at_target": True}))
    for label, own in of_strategies(rows).items():
        assert own[-1].accuracy >= 0.8 > max(row.accuracy for row in own[:-1])
        assert repr(own) == repr(everything[label][: len(own)])


def test_every_tenth_round_is_kept_and_the_first_at_the_target_and_the_last(everything: dict[str, list[Row]]) -> None:
    rows = run_experiment(check_config({**RAW, "target_loss": 1.0, "record_every": 10}))
    for label, own in of_strategies(rows).items():
        whole = everything[label]
        hit = next(row.round for row in whole if row.loss <= 1.0)
        kept = sorted({0, 10, 20, 23, hit})
        assert repr(own) == repr([whole[number] for number in kept])


def test_the_last_round_is_kept_when_everyone_leaves() -> None:
    raw = {**RAW, "fleet": {**RAW["fleet"], "leave_after": 7}, "strategies": RAW["strategies"][:1]}
    rows, whole = (run_experiment(check_config({**raw, "record_every": every})) for every in (5, 1))
    assert [row.round for row in rows] == [0, 5, whole[-1].round]
    assert 5 < whole[-1].round < 23
    assert repr(rows) == repr([row for row in whole if row.round in (0, 5, whole[-1].round)])


def test_a_run_that_diverges_ends_only_if_it_may(tmp_path: Path) -> None:
    raw = {**RAW, "task": {**RAW["task"], "learning_rate": 1000.0}, "strategies": RAW["strategies"][:1]}
    whole = run_experiment(check_config({**raw, "target_loss": 1.0}))
    assert len(whole) == 24
    config = check_config({**raw, "target_loss": 1.0, "stop_at_target": True})
    rows = run_experiment(config, finished=FinishedCells(tmp_path, config))
    assert 1 < len(rows) < 24
    assert not rows[-1].loss <= 50.0 * rows[0].loss
    assert all(row.loss <= 50.0 * rows[0].loss for row in rows[:-1])
    assert repr(run_experiment(config, finished=FinishedCells(tmp_path, config))) == repr(rows)


def test_cells_keep_numbers_that_are_not_finite(tmp_path: Path) -> None:
    from fedgc.experiment.cells import cells_of  # noqa: PLC0415

    config = check_config(RAW)
    cell = cells_of(config)[0]
    row = Row(cell.strategy.label, 1, 1, 2.0, 0.1, math.inf, {"fedgc-asked": 4, "fedgc-error-measured": math.nan})
    FinishedCells(tmp_path, config).write(cell, [row], "draws")
    found = FinishedCells(tmp_path, config).read(cell)
    assert found is not None
    assert math.isnan(found[0][0].loss) and math.isnan(found[0][0].metrics["fedgc-error-measured"])
    assert found[0][0].metrics["fedgc-asked"] == 4


def test_a_sweep_may_vary_the_target() -> None:
    raw = {**RAW, "stop_at_target": True, "strategies": RAW["strategies"][:1], "sweep": {"target_loss": [1.5, 1.0]}}
    config = check_config(raw)
    rows = run_experiment(config)
    first, second = summarise(rows, config)
    assert first.settings == {"target_loss": 1.5} and second.settings == {"target_loss": 1.0}
    assert first.rounds_to_target is not None and second.rounds_to_target is not None
    assert 0 < first.rounds_to_target < second.rounds_to_target < 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target_loss": 0.5, "target_accuracy": 0.9},
            "target_loss must be left out where target_accuracy is given; got 0.5 beside 0.9",
        ),
        (
            {"sweep": {"target_loss": [0.5]}, "target_accuracy": 0.9},
            "target_loss must be left out where target_accuracy is given; got 0.5 beside 0.9 (at target_loss=0.5)",
        ),
        ({"target_loss": 0}, "target_loss must be greater than 0; got 0"),
        ({"stop_at_target": 1}, "stop_at_target must be a valid boolean; got 1"),
        ({"time_limit": 0.0}, "time_limit must be greater than 0; got 0"),
        ({"record_every": 0}, "record_every must be greater than or equal to 1; got 0"),
        ({"target_los": 0.5}, "target_los is not a known key"),
    ],
)
def test_wrong_keys_are_told_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config({**RAW, **change})
    assert str(caught.value).startswith(message)
    if "target_los" in change:
        assert str(caught.value).endswith("did you mean target_loss?")


def test_a_target_that_comes_later_takes_the_place_of_the_other_kind(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'name = "A"\nrounds = 40\nseeds = [1]\ntarget_accuracy = 0.8\nstop_at_target = true\n'
        '[task]\nname = "digits-regression"\npartition = "iid"\n[fleet]\nmodel = "log-normal"\nclients = 4\n'
        '[[strategies]]\nkind = "fedavg"\n'
    )
    (tmp_path / "b.toml").write_text('base = "a.toml"\ntarget_loss = 1.0\n')
    for config in (load_config(tmp_path / "b.toml"), load_config(tmp_path / "a.toml", ["target_loss=1.0"])):
        assert str(config.target) == "loss 1"
    assert str(load_config(tmp_path / "b.toml", ["target_accuracy=0.7"]).target) == "70%"
    done = fedgc("run", tmp_path / "b.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "to loss 1" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"loss.png", "loss.svg"} <= names and "accuracy.png" not in names
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["config"]["target_loss"], summary["config"]["stop_at_target"]) == (1.0, True)
    assert 0 < summary["results"][0]["rounds_to_target"] < 40
    assert "loss 1" in (tmp_path / "out" / "loss.svg").read_text()
