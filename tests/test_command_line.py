"""The command line, run as a process of its own where exit codes and files are the point."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fedgc.strategies.reporting.report import METRICS
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedgc.commands.run import heard_interrupts
from fedgc.errors import ConfigError
from fedgc.experiment.config import load_config
from fedgc.experiment.display import results_table
from fedgc.experiment.row import Row
from fedgc.experiment.summary import StrategySummary
from fedgc.experiment.sweep import run_experiment
from fedgc.experiment.tensorboard import Boards
from tests.command_line import EXPERIMENTS, SMALLEST, fedgc


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "smallest"
    done = fedgc("run", SMALLEST, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "GradientCoding" in done.stdout
    return folder


def test_results_are_complete(results: Path) -> None:
    assert sorted(path.name for path in results.iterdir()) == [
        "accuracy.png",
        "accuracy.svg",
        "cells",
        "config.json",
        "results.csv",
        "summary.json",
    ]
    with (results / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 1 * 6  # strategies x seeds x (rounds and the start)
    coded = [row for row in rows if row["strategy"].startswith("GradientCoding") and row["round"] != "0"]
    # The names are those of the strategy's own reports; what these do not have stands before and behind them.
    own = ["strategy", "seed", "round", "seconds", "accuracy", "loss"]
    assert list(rows[0]) == [*own, *METRICS, "fedgc-error-measured"]
    assert all(float(row["fedgc-error-predicted"]) >= 0 for row in coded)
    assert all(float(row["fedgc-error-measured"]) >= 0 for row in coded)
    assert all(row["fedgc-wasted"] != "" for row in coded)
    assert {row["fedgc-wasted"] for row in rows[:6]} == {""}
    assert all(int(row["fedgc-arrived"]) <= int(row["fedgc-asked"]) == 4 for row in rows if row["round"] != "0")
    assert [float(row["seconds"]) for row in rows[:6]] == sorted(float(row["seconds"]) for row in rows[:6])
    summary = json.loads((results / "summary.json").read_text())
    assert summary["seeds"] == [1]
    assert summary["config"]["fleet"]["clients"] == 4
    assert {"fedgc", "flwr", "torch", "python"} <= set(summary["versions"])
    assert "commit" in summary
    assert (results / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_files(results: Path, tmp_path: Path) -> None:
    done = fedgc("run", SMALLEST, "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    for path in results.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(results)).read_bytes(), path.name


def test_another_seed_gives_other_results(results: Path, tmp_path: Path) -> None:
    done = fedgc("run", SMALLEST, "--set", "seeds=[2]", "--set", "rounds=1", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    starts = []
    for folder in (results, tmp_path):
        with (folder / "results.csv").open() as file:
            starts.append(next(csv.DictReader(file))["loss"])
    assert starts[0] != starts[1]


def test_with_more_seeds_it_is_the_same_experiment(tmp_path: Path) -> None:
    few = ["--set", "rounds=1", "--out", tmp_path]
    assert fedgc("run", SMALLEST, "--set", "seeds=[3]", *few).returncode == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    more = fedgc("run", SMALLEST, "--set", "seeds=[3, 4]", *few)
    assert more.returncode == 0, more.stderr
    assert kept and {path: path.stat().st_mtime_ns for path in kept} == kept
    with (tmp_path / "results.csv").open() as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"3", "4"}
    fewer = fedgc("run", SMALLEST, "--set", "seeds=[4]", *few)
    assert fewer.returncode == 2 and "where seeds is [3, 4] and not [4]" in fewer.stderr


def test_refuses_to_overwrite_until_told(results: Path) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    refused = fedgc("run", SMALLEST, "--set", "rounds=1", "--out", results)
    assert refused.returncode == 2
    assert refused.stderr.startswith("fedgc: --out must hold cells of this experiment unless --overwrite is given; got")
    assert refused.stderr.endswith("where rounds is 5 and not 1\n")
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before
    (results / "notes.txt").write_text("mine")
    allowed = fedgc("run", SMALLEST, "--set", "rounds=1", "--out", results, "--overwrite")
    assert allowed.returncode == 0, allowed.stderr
    assert len((results / "results.csv").read_text().splitlines()) == 1 + 2 * 2
    assert (results / "notes.txt").read_text() == "mine"
    (results / "config.json").unlink()
    unknown = fedgc("run", SMALLEST, "--out", results)
    assert unknown.stderr.startswith("fedgc: --out must not hold results unless --overwrite is given; got")


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_an_experiment_with_secure_sums_is_the_one_without(schedule: str) -> None:
    """Same fixed decoder, from single replies and from their sum."""
    everyone_comes = ["fleet.dropout=0.0", "strategies.1.deadline=20.0"]
    shared = ["rounds=3", 'strategies.1.decoder="fixed"', f'strategies.1.schedule="{schedule}"', *everyone_comes]
    rows = {}
    for bits in (None, 40, 8):
        secure = [] if bits is None else ["strategies.1.secure_sum=true", f"strategies.1.fractional_bits={bits}"]
        config = load_config(SMALLEST, [*shared, *secure])
        rows[bits] = [row for row in run_experiment(config) if row.strategy == config.strategies[1].label]
    losses = {bits: np.array([row.loss for row in some]) for bits, some in rows.items()}
    # Coherence is not learnt from sums, so that plans may differ from the second round on.
    np.testing.assert_allclose(losses[40][:2], losses[None][:2], rtol=1e-6)
    assert losses[40][1] < losses[40][0]
    assert abs(losses[8] - losses[40]).max() > 1e-5  # 8 bits are a coarse grid
    assert "fedgc-disagreements" in rows[None][1].metrics and "fedgc-disagreements" not in rows[40][1].metrics


def test_curves_are_those_of_the_results(tmp_path: Path) -> None:
    board = tmp_path / "board"
    changes = ["--set", "rounds=2", "--set", f"tensorboard={board}", "--set", "strategies.1.label=a/b [c], $d"]
    done = fedgc("run", SMALLEST, *changes, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"FedAvg, waits for everyone": "0-FedAvg-waits-for-everyone", "a/b [c], $d": "1-a-b-c-d"}
    assert sorted(path.name for path in board.iterdir()) == sorted(names.values())
    for label, name in names.items():
        events = EventAccumulator(str(board / name / "seed-1")).Reload()
        own = [row for row in rows if row["strategy"] == label]
        columns = [column for column in own[1] if column not in ("strategy", "seed", "round") and own[1][column] != ""]
        assert set(events.Tags()["scalars"]) == {column.replace("-", "/", 1) for column in columns}
        for column in columns:
            shown = {event.step: event.value for event in events.Scalars(column.replace("-", "/", 1))}
            told = {int(row["round"]): np.float32(row[column]) for row in own if row[column] != ""}
            assert shown == told, column
    before = {path: path.read_bytes() for path in board.rglob("events*")}
    again = fedgc("run", SMALLEST, *changes)
    assert again.returncode == 2
    assert again.stderr == (
        "fedgc: tensorboard must be a folder without curves of these strategies unless --overwrite is given; got "
        f"{str(board)!r}, which holds '0-FedAvg-waits-for-everyone/seed-1'\n"
    )
    assert {path: path.read_bytes() for path in board.rglob("events*")} == before


def test_curves_are_replaced_when_told_and_need_a_folder(tmp_path: Path) -> None:
    config = load_config(SMALLEST)
    board, mine = tmp_path / "board", tmp_path / "board" / "mine.txt"
    first = Boards(board, config)
    first.write(Row(config.strategies[0].label, 1, 0, 0.0, 0.5, 1.0, {}))
    first.close()
    mine.write_text("mine")
    old = sorted(board.rglob("events*"))
    assert len(old) == 2
    Boards(board, config, overwrite=True).close()
    new = sorted(board.rglob("events*"))
    assert len(new) == 2 and not set(old) & set(new) and mine.exists()
    with pytest.raises(ConfigError, match=r"^tensorboard must be a folder that can be written; got '.*mine.txt'$"):
        Boards(mine, config)


def test_curves_that_cannot_be_written_cost_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(SMALLEST, ["rounds=2"])
    boards = Boards(tmp_path / "board", config)
    shutil.rmtree(tmp_path / "board")
    assert len(run_experiment(config, boards.write)) == 2 * 3
    assert caplog.text.count("TensorBoard's curves cannot be written, and the experiment goes on: ") == 1


def test_help_and_version() -> None:
    assert "run" in fedgc("--help").stdout
    assert fedgc("--version").stdout.startswith("fedgc 0.")


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_whole_at_usual_widths(width: int) -> None:
    config = load_config(EXPERIMENTS / "quickstart.toml")
    lines = [
        StrategySummary(strategy.label, 0.1234, 56.7, 12345.0, 3, 20.0, 15.2, 0.00123, 0.456)
        for strategy in config.strategies
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(results_table(config, lines))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for number in ("12.3%", "56.7", "12345", "15.2 of 20", "0.00123", "0.456"):
        assert text.count(number) == len(lines), text
    assert "…" not in text


def test_names_may_hold_brackets_and_dollars(tmp_path: Path) -> None:
    changes = ["name=[/red] $x^{$", "strategies.0.label=[/red] $_$", "rounds=1"]
    done = fedgc(
        "run", SMALLEST, *(part for change in changes for part in ("--set", change)), "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert "[/red]" in done.stdout


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text(""), lambda path: (path / "results.csv").mkdir(parents=True)]
)
def test_an_impossible_out_is_refused_before_the_run(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "taken")
    target = tmp_path / "taken" / "x" if (tmp_path / "taken").is_file() else tmp_path / "taken"
    done = fedgc("run", SMALLEST, "--set", "rounds=1000000", "--out", target, "--overwrite")
    assert done.returncode == 2
    assert done.stderr.startswith("fedgc: --out must")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.alone
def test_an_interrupt_says_so_and_writes_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fedgc",
        "run",
        str(SMALLEST),
        "--set",
        "rounds=1000000",
        "--out",
        str(tmp_path / "o"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(8.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("fedgc: interrupted, no results were written\n")
    assert not (tmp_path / "o").exists()


@pytest.mark.alone
def test_an_interrupt_during_a_destructor_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python drops what is raised there: it must come up again with the next row."""
    dropped: list[object] = []
    before = signal.getsignal(signal.SIGINT)  # a job in the background ignores it
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))

    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with heard_interrupts() as heard:
        heard()
        Swallows()
        assert dropped == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            heard()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_experiment_ends_early_when_everyone_has_left(tmp_path: Path) -> None:
    done = fedgc("run", SMALLEST, "--set", "fleet.leave_after=2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "every client has left" in done.stdout + done.stderr


def test_the_quickstart_keeps_its_promise(tmp_path: Path) -> None:
    """One of its seeds: coding reaches the target long before the FedAvg that waits, and the one cut off never does."""
    done = fedgc(
        "run", EXPERIMENTS / "quickstart.toml", "--set", "seeds=[3]", "--set", "rounds=45", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    seconds = {line["strategy"]: line["seconds_to_target"] for line in summary["results"]}
    waiting, cut_off = seconds.pop("FedAvg, waits for everyone"), seconds.pop("FedAvg, cut at 8 s")
    del seconds["FedProx, partial work, 4 s"]
    assert len(seconds) == 4 and cut_off is None
    assert max(seconds.values()) < waiting / 2
    assert seconds["GradientCoding, work lists, memory, 8 s"] < waiting / 10
