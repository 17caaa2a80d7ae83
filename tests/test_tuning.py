"""Tuning: every choice on seeds of its own, and then the best one on the experiment's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.errors import ConfigError
from fedgc.experiment import sweep
from fedgc.experiment.config import check_config
from fedgc.experiment.finished import FinishedCells
from fedgc.experiment.row import Row
from fedgc.experiment.sweep import run_experiment
from tests.command_line import fedgc

RAW: dict[str, Any] = {
    "name": "Tuned",
    "rounds": 12,
    "seeds": [1, 2],
    "target_loss": 1.0,
    "stop_at_target": True,
    "runtime": "replay",
    "timing": "known",
    "task": {"name": "digits-regression", "shards": 6},
    "fleet": {"model": "log-normal", "clients": 3, "sigma": 0.5},
    "sweep": {"fleet.dropout": [0.0, 0.3], "task.learning_rate": [0.5, 2.0]},
    "strategies": [
        {"kind": "mifa", "deadline": 9.0, "grid": {"deadline": [2.0, 9.0, 30.0]}},
        {"kind": "gradient-coding", "label": "Ours", "deadline": 9.0},
    ],
}


def seconds_of(rows: list[Row]) -> float:
    hits = [[row.seconds for row in rows if row.seed == seed and row.loss <= 1.0] for seed in {r.seed for r in rows}]
    return float(np.mean([min(own, default=np.inf) for own in hits]))


@pytest.mark.parametrize("by", ["seconds", "rounds"])
def test_what_is_measured_was_the_best_on_the_tuning_seeds(by: str) -> None:
    everything = run_experiment(check_config({**RAW, "seeds": [7, 8, 1, 2]}))
    rows = run_experiment(check_config({**RAW, "tuning": {"seeds": [7, 8], "by": by}}))
    assert {row.seed for row in rows} == {1, 2}
    for dropout in (0.0, 0.3):
        for base, n_choices in (("MIFA", 6), ("Ours", 2)):
            own = [r for r in rows if r.settings["fleet.dropout"] == dropout and r.strategy.startswith(base)]
            (chosen,) = {(r.strategy, repr(r.settings)) for r in own}
            choices: dict[tuple[str, str], list[Row]] = {}
            for r in everything:
                if r.settings["fleet.dropout"] == dropout and r.strategy.startswith(base):
                    choices.setdefault((r.strategy, repr(r.settings)), []).append(r)
            assert len(choices) == n_choices
            scores = {}
            for key, some in choices.items():
                firsts = []
                for seed in (7, 8):
                    hit = [r for r in some if r.seed == seed and r.loss <= 1.0]
                    firsts.append((hit[0].seconds if by == "seconds" else hit[0].round) if hit else np.inf)
                ends = [[r for r in some if r.seed == seed][-1].loss for seed in (7, 8)]
                found = [one for one in firsts if np.isfinite(one)]
                scores[key] = (2 - len(found), np.mean(found) if found else np.inf, np.mean(ends))
            assert scores[chosen] == min(scores.values())
            # And what is measured of it is what it would have been without tuning.
            assert [repr(r) for r in own] == [repr(r) for r in choices[chosen] if r.seed in (1, 2)]


def test_a_strategy_without_a_choice_is_not_run_on_the_tuning_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = []
    real = sweep.replay_one
    monkeypatch.setattr(
        sweep, "replay_one", lambda c, s, seed, keep: (run.append((s.label, seed)), real(c, s, seed, keep))[1]
    )
    raw = {**RAW, "sweep": {"fleet.dropout": [0.0]}, "tuning": {"seeds": [7]}}
    run_experiment(check_config(raw))
    assert [label for label, seed in run if seed == 7] == [f"MIFA (deadline={d})" for d in (2.0, 9.0, 30.0)]
    assert len([1 for label, seed in run if seed in (1, 2)]) == 4


def test_finished_cells_of_both_stages_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = check_config({**RAW, "tuning": {"seeds": [7]}})
    rows = run_experiment(config, finished=FinishedCells(tmp_path, config))

    def never(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(sweep, "replay_one", never)
    seen: list[Row] = []
    assert [repr(r) for r in run_experiment(config, seen.append, finished=FinishedCells(tmp_path, config))] == [
        repr(r) for r in rows
    ]
    assert {row.seed for row in seen} == {1, 2, 7}


def test_the_command_line_and_the_report_show_what_was_chosen(tmp_path: Path) -> None:
    text = """
name = "Tuned"
rounds = 4
seeds = [1, 2]
target_loss = 1.5
runtime = "replay"
timing = "known"
task = {name = "digits-regression", shards = 6}
fleet = {preset = "lognormal", clients = 3}
tuning = {seeds = [5]}
[[strategies]]
kind = "mifa"
grid = {deadline = [2.0, 30.0]}
"""
    (tmp_path / "a.toml").write_text(text)
    result = fedgc("run", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5
    result = fedgc("report", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    tables = (tmp_path / "out" / "report" / "tables.md").read_text()
    assert "| MIFA |" in tables
    assert "best for it on seeds 5 beforehand" in tables


BAD = [
    ({"tuning": {"seeds": [1, 9]}}, "tuning.seeds must not be among the experiment's seeds; got 1"),
    ({"tuning": {"seeds": [9, 9]}}, "tuning.seeds must not name a seed twice; got [9, 9]"),
    ({"tuning": {"seeds": []}}, "tuning.seeds"),
    ({"tuning": {"seeds": [9], "by": "luck"}}, "tuning.by must be 'seconds' or 'rounds'; got 'luck'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_cannot_be_tuned_is_said_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config({**RAW, **change})
    assert message in str(caught.value)
