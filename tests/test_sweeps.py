"""Sweeps: every combination once, over processes or not, and never a finished cell again."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fedgc.strategies.rivals import RIVALS

from fedgc.errors import ConfigError, ExperimentError
from fedgc.experiment import replayed, sweep
from fedgc.experiment.cells import cells_of
from fedgc.experiment.config import check_config, load_config, points_of
from fedgc.experiment.finished import FinishedCells
from fedgc.experiment.row import Row
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.play import Draws, RoundDraws
from fedgc.replay import Method, MethodRounds, known_rounds
from tests.command_line import fedgc

RAW: dict[str, Any] = {
    "name": "Sweep",
    "rounds": 2,
    "seeds": [1, 2],
    "task": {"shards": 6, "hidden": 8},
    "fleet": {"model": "log-normal", "clients": 3, "sigma": 0.5},
    "sweep": {"task.learning_rate": [0.1, 0.3], "fleet.dropout": [0.0, 0.2]},
    "strategies": [
        {"kind": "mifa", "deadline": 9.0, "grid": {"deadline": [5.0, 9.0]}},
        {"kind": "gradient-coding", "label": "Ours", "deadline": 9.0},
    ],
}


def test_every_combination_is_a_cell() -> None:
    config = check_config(RAW)
    cells = cells_of(config)
    assert len(cells) == 2 * 2 * (2 + 1) * 2
    assert len({cell.key for cell in cells}) == len(cells)
    assert [dict(point.settings) for point in points_of(config)] == [
        {"task.learning_rate": rate, "fleet.dropout": dropout} for rate in (0.1, 0.3) for dropout in (0.0, 0.2)
    ]
    first = cells[0]
    assert first.settings == {"task.learning_rate": 0.1, "fleet.dropout": 0.0, "deadline": 5.0}
    assert first.config.task.learning_rate == 0.1 and first.config.fleet["dropout"] == 0.0
    assert (first.strategy.label, first.strategy.deadline) == ("MIFA (deadline=5.0)", 5.0)


def test_a_key_depends_on_what_results_do_and_on_nothing_else() -> None:
    key = cells_of(check_config(RAW))[0].key
    other = {**RAW, "name": "Other", "target_accuracy": 0.5, "seeds": [1]}
    assert cells_of(check_config(other))[0].key == key
    for change in (
        {"stop_at_target": True},
        {"record_every": 2},
        {"rounds": 3},
        {"task": {"shards": 7}},
        {"fleet": {**RAW["fleet"], "sigma": 0.4}},
    ):
        assert cells_of(check_config({**RAW, **change}))[0].key != key
    # A target that says which rounds there are is among it.
    stopped = [
        {**RAW, "stop_at_target": True, **target} for target in ({}, {"target_accuracy": 0.5}, {"target_loss": 0.9})
    ]
    assert len({cells_of(check_config(raw))[0].key for raw in stopped}) == 3


@pytest.mark.alone
def test_processes_give_the_same_rows_and_draws_are_the_same_for_all(tmp_path: Path) -> None:
    config = check_config({**RAW, "sweep": {"task.learning_rate": [0.1, 0.3]}})
    shown: list[Row] = []
    alone = run_experiment(config)
    together = run_experiment(config, shown.append, jobs=2, finished=FinishedCells(tmp_path, config))
    assert repr(together) == repr(alone)
    assert sorted(map(repr, shown)) == sorted(map(repr, alone))
    draws = {json.loads(path.read_text())["draws"] for path in (tmp_path / "cells").glob("*.json")}
    assert len(draws) == 2  # one for each seed


def test_finished_cells_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = check_config({**RAW, "sweep": {}})
    rows, run, ran = run_experiment(config), sweep.run_one, []

    def some(config: Any, strategy: Any, seed: int, keep: Any) -> str:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(seed)
        return run(config, strategy, seed, keep)

    monkeypatch.setattr(sweep, "run_one", some)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, finished=FinishedCells(tmp_path, config))
    ran[:] = [0, 0, 0, 0]
    found = FinishedCells(tmp_path, config)
    assert repr(run_experiment(config, finished=found)) == repr(rows)
    assert found.n_found == 3 and len(ran) == 4 + 3
    assert repr(run_experiment(config, finished=FinishedCells(tmp_path, config))) == repr(rows)
    assert len(ran) == 7


def test_other_draws_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = check_config({**RAW, "sweep": {}, "seeds": [1]})
    monkeypatch.setattr(sweep, "run_one", lambda config, strategy, seed, keep: strategy.label)
    with pytest.raises(ExperimentError, match="has met other draws"):
        run_experiment(config)


def test_a_replay_on_draws_of_its_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"name": "digits-regression", "shards": 6, "partition": "sorted"}
    methods = [{"kind": kind, "deadline": 1.5} for kind in ("mifa", "is-sgd")]
    replay = {"runtime": "replay", "timing": "known", "fleet": {"preset": "paper", "clients": 3}}
    config = check_config({**RAW, **replay, "seeds": [1], "sweep": {}, "task": task, "strategies": methods})
    run_experiment(config)
    others = iter(range(2))

    def on_another_fleet(method: Method, draws: Draws, *args: Any, **options: Any) -> MethodRounds:
        fleet = build_fleet({"preset": "paper", "clients": 3}, seed=next(others))
        return known_rounds(method, RoundDraws(fleet), *args, **options)

    monkeypatch.setattr(replayed, "known_rounds", on_another_fleet)
    with pytest.raises(ExperimentError, match="has met other draws"):
        run_experiment(config)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder.parent / "config.json").write_text("{"), "which is damaged"),
        (lambda folder: next(folder.glob("*.json")).write_text('{"rows": [{}]}'), "damaged: remove it"),
        (lambda folder: _versions(folder.parent / "config.json"), "must hold cells that these versions have run"),
    ],
)
def test_what_is_not_of_this_experiment_is_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    config = check_config({**RAW, "sweep": {}, "seeds": [1], "rounds": 1})
    run_experiment(config, finished=FinishedCells(tmp_path, config))
    with pytest.raises(ConfigError, match="where rounds is 1 and not 2"):
        FinishedCells(tmp_path, check_config({**RAW, "sweep": {}, "seeds": [1]}))
    spoil(tmp_path / "cells")
    with pytest.raises(ConfigError, match=message):
        run_experiment(config, finished=FinishedCells(tmp_path, config))
    run_experiment(config, finished=FinishedCells(tmp_path, config, overwrite=True))


def _versions(path: Path) -> None:
    found = json.loads(path.read_text())
    found["versions"]["numpy"] = "1.0"
    path.write_text(json.dumps(found))


def test_a_file_may_be_based_on_another(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'name = "A"\nrounds = 5\nseeds = [1, 2]\n[task]\nalpha = 0.1\nshards = 8\n[fleet]\nmodel = "log-normal"\n'
        'clients = 4\n[[strategies]]\nkind = "fedavg"\n'
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.toml").write_text('base = "../a.toml"\nname = "B"\nseeds = [3]\n[task]\nalpha = 1.0\n')
    config = load_config(tmp_path / "more" / "b.toml", ["rounds=6"])
    assert (config.name, config.rounds, config.seeds, config.task.alpha, config.task.shards) == ("B", 6, [3], 1.0, 8)
    assert config.strategies[0].label == RIVALS["fedavg"].title
    (tmp_path / "a.toml").write_text('base = "more/b.toml"\n')
    with pytest.raises(ConfigError, match="base must not lead back"):
        load_config(tmp_path / "more" / "b.toml")
    (tmp_path / "a.toml").write_text("base = 3\n")
    with pytest.raises(ConfigError, match="base must be the name of a file; got 3"):
        load_config(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sweep": {"seeds": [1]}}, "sweep must name keys of task, fleet, .*target_loss, timing; got"),
        ({"sweep": {"task.alpa": [1.0]}}, r"task.alpa is not a known key.*did you mean alpha\? \(at task.alpa=1.0\)"),
        ({"sweep": {"fleet.dropout": [0.1, 1.5]}}, r"fleet.dropout must lie in \[0, 1\].*\(at fleet.dropout=1.5\)"),
        (
            {"sweep_titles": {"task.learnin_rate": {"name": "step", "values": {}}}},
            "sweep_titles must name keys that are swept, .*did you mean task.learning_rate",
        ),
        (
            {
                "task": {"shards": 1},
                "strategies": [{"kind": "gradient-coding", "label": "a", "deadline": 1.0, "load": 1}],
            },
            r"task.shards must be at least the number of blocks, fleet.clients // strategies.0.load = \d+; got 1",
        ),
        ({"task": {"partition": "sortd"}}, "task.partition must be .*; got 'sortd', did you mean sorted"),
        ({"runtime": "virtal"}, "runtime must be .*; got 'virtal', did you mean virtual"),
        ({"sweep": {"task.alpha": []}}, "sweep.task.alpha must have at least 1 item"),
        ({"strategies": [{"kind": "mifa", "grid": {"label": ["x"]}}]}, "strategies.0.grid must name other keys than"),
        ({"strategies": [{"kind": "mifa"}]}, "strategies.0.deadline must be given for 'mifa'; got nothing"),
        (
            {"strategies": [{"kind": "mifa", "deadline": 1.0, "load": 2}]},
            "strategies.0.load must be left out for 'mifa', which heeds only server_learning_rate, server_mo",
        ),
        (
            {"strategies": [{"kind": "fedbuff", "over_selection": 1.3}]},
            "strategies.0.over_selection must be left out for 'fedbuff', which heeds only buffer_size, server_learning",
        ),
        ({"strategies": [{"kind": "sgc", "deadline": 1.0, "load": 4}]}, "strategies.0.load must be at most fleet.cli"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config({**RAW, **change})


@pytest.mark.parametrize("kind", RIVALS)
def test_every_rival_runs_from_a_configuration(kind: str) -> None:
    rival = RIVALS[kind]
    strategy: dict[str, Any] = {"kind": kind, **({"deadline": 9.0} if rival.needs_deadline else {})}
    raw = {**RAW, "sweep": {}, "seeds": [1], "fleet": {**RAW["fleet"], "clients": 4}, "strategies": [strategy]}
    rows = run_experiment(check_config(raw))
    assert [row.round for row in rows] == [0, 1, 2]
    assert rows[-1].seconds > 0.0


def started(config: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start a sweep in two processes, whose errors can be read."""
    command = [sys.executable, "-m", "fedgc", "run", str(config), "--out", str(out), "--jobs", "2", *options]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, encoding="utf-8", errors="replace"
    )


@pytest.mark.alone
def test_an_interrupt_leaves_finished_cells_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config = tmp_path / "sweep.toml"
    config.write_text(
        'name = "S"\nrounds = 30\nseeds = [1, 2, 3, 4]\n[fleet]\nmodel = "log-normal"\nclients = 8\n'
        '[[strategies]]\nkind = "mifa"\ndeadline = 9.0\n[sweep]\n"task.learning_rate" = [0.1, 0.3]\n'
    )
    process = started(config, tmp_path / "out")
    cells = tmp_path / "out" / "cells"
    end = time.monotonic() + 120.0
    while len(list(cells.glob("*.json"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60.0)
    assert process.returncode == 130
    assert "fedgc: interrupted, what is finished is in" in told
    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 2 <= len(kept) < 8
    again = fedgc("run", config, "--out", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 31
    assert {row["task.learning_rate"] for row in rows} == {"0.1", "0.3"}


@pytest.mark.alone
def test_a_killed_sweep_leaves_no_processes_behind(tmp_path: Path) -> None:
    config = tmp_path / "sweep.toml"
    config.write_text(
        'name = "S"\nrounds = 100000\nseeds = [1, 2, 3, 4]\n[fleet]\nmodel = "log-normal"\nclients = 8\n'
        '[[strategies]]\nkind = "mifa"\ndeadline = 9.0\n'
    )
    process = started(config, tmp_path / "out", "--verbose")
    assert process.stderr is not None
    for line in process.stderr:
        if "ROUND 3/" in line:
            break
    process.kill()
    # The pipe is at its end once all that hold it are gone, and the processes of the sweep hold it too.
    process.communicate(timeout=20.0)
    assert process.returncode == -signal.SIGKILL
