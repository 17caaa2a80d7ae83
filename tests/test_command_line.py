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
from fedgc.strategies.baselines import RIVALS
from fedgc.strategies.reporting.report import METRICS
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedgc.commands.run import heard_interrupts
from fedgc.decoders import DECODERS
from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config, load_config
from fedgc.experiment.display import results_table
from fedgc.experiment.row import Row
from fedgc.experiment.summary import StrategySummary
from fedgc.experiment.sweep import run_experiment
from fedgc.experiment.tensorboard import Boards
from fedgc.fleets import ShiftedExponentialFleet
from tests.command_line import fedgc

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SMALLEST = EXPERIMENTS / "smallest.toml"


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


SETTLED = ", ".join(name for name, kind in DECODERS.items() if kind.weights_settled)
BAD = {
    "rounds=0": "rounds must be greater than or equal to 1; got 0",
    "rounds=2.5": "rounds must be a valid integer; got 2.5",
    'rounds="five"': "rounds must be a valid integer; got 'five'",
    "colour=1": "colour is not a known key, allowed are name, rounds, seeds, target_accuracy, target_loss, "
    "stop_at_target, record_every, runtime, timing, deadline_unit, time_limit, tensorboard, sweep, "
    "sweep_titles, tuning, decentralised, task, fleet, strategies; got 1",
    "task.depth=3": "task.depth is not a known key, allowed are name, shards, partition, alpha, hidden, "
    "local_epochs, batch_size, learning_rate; got 3",
    "strategies.1.loads=3": "strategies.1.loads is not a known key, allowed are inner, "
    "server_learning_rate, server_momentum, beta_1, beta_2, adaptivity, second_moment, second_decoder, kind, label, "
    "deadline, deadline_rule, deadline_share, deadline_cover, noise_sensitivity, load, pieces, schedule, sums, redraw, "
    "order, in_a_row, early_end, code, decoder, max_weight, memory, coherence, secure_sum, fractional_bits, bits, "
    "bit_budget, quantiser, failure_domains, residency, grid; got 3, did you mean load?",
    "strategies.1.secure_sum=true": f"strategies.1.decoder must be one of {SETTLED} for secure_sum; got "
    "'optimal-unbiased'",
    "strategies.1.noise_sensitivity=1.0": "strategies.1.noise_sensitivity must be left out unless deadline_rule is "
    "'auto'; got 1.0 with 'fixed'",
    "strategies.1.secure_sum=1": "strategies.1.secure_sum must be a valid boolean; got 1",
    "strategies.1.fractional_bits=7": "strategies.1.fractional_bits must be greater than or equal to 8; got 7",
    "strategies.1.fractional_bits=49": "strategies.1.fractional_bits must be less than or equal to 48; got 49",
    "tensorboard=3": "tensorboard must be a valid string; got 3",
    'tensorboard=""': "tensorboard must have at least 1 character; got ''",
    "strategies.1.deadline=0": "strategies.1.deadline must be greater than 0; got 0",
    "strategies.1.deadline=-2.5": "strategies.1.deadline must be greater than 0; got -2.5",
    "strategies.1.deadline_share=0.5": "strategies.1.deadline_share must be left out unless deadline_rule is "
    "'quantile'; got 0.5 with 'fixed'",
    'strategies.1={kind="gradient-coding", label="x", deadline=4e3, deadline_rule="auto"}': "strategies.1.deadline, "
    "initial must be at most longest = 3600; got 4000 (of the rule 'auto')",
    "strategies.1.load=5": "strategies.1.load must be an integer from 1 to 4; got 5 "
    "(load may not exceed fleet.clients)",
    "strategies.1.max_weight=0": "strategies.1.max_weight must be greater than 0; got 0",
    "strategies.1.load=0": "strategies.1.load must be an integer of at least 1, or 'auto'; got 0",
    "task.shards=1": "task.shards must be at least fleet.clients = 4 for 'fedavg'; got 1",
    "fleet.model=gamma": "fleet.model must be one of log-normal, paper, pareto, shifted-exponential, trace; "
    "got 'gamma'",
    "fleet.preset=tablets": "fleet.preset must be one of accelerators, lambda, lognormal, paper, pareto, phones, "
    "sessions, uneven; got 'tablets'",
    "fleet.dropout=1.5": "fleet.dropout must lie in [0, 1]; got 1.5 for client 0",
    "fleet.speed=1": f"fleet.speed must be one of {', '.join(sorted(ShiftedExponentialFleet.PARAMETERS))} "
    "in a shifted-exponential fleet; got 'speed', did you mean spread?",
    "fleet.clients=none": "fleet.clients must be an integer from 1 to 10000000; got 'none'",
    "fleet=3": "fleet must be a valid dictionary; got 3",
    "strategies.1.kind=fedsgd": f"strategies.1.kind must be one of gradient-coding, {', '.join(RIVALS)}, "
    "decentralised, block-coordinates; got 'fedsgd', did you mean fedavg?",
    "strategies.1.inner=fedadm": "strategies.1.inner must be one of fedadam, fedavg, fedavgm, fedyogi; got 'fedadm', "
    "did you mean fedadam?",
    "strategies.1.decoder=best": f"strategies.1.decoder must be one of auto, {', '.join(DECODERS)}; got 'best'",
    "strategies.1.label=FedAvg, waits for everyone": "strategies.1.label must differ from the other labels; got "
    "'FedAvg, waits for everyone' again",
    "strategies=[]": "strategies must have at least 1 item after validation, not 0; got []",
    "strategies.7.load=2": "--set strategies.7.load: position must be an integer from 0 to 1; got '7'",
    "rounds.x=2": "--set rounds.x: 'x' must be inside a table or a list; got 5",
    "seeds=[-1]": "seeds.0 must be greater than or equal to 0; got -1",
    "seeds=[1, 1]": "seeds must not name a seed twice; got [1, 1]",
    "target_accuracy=1.5": "target_accuracy must be less than or equal to 1; got 1.5",
    "task.learning_rate=1e300": "task.learning_rate must be less than or equal to 1000; got 1e+300",
    "fleet.clients=100000000000": "fleet.clients must be an integer from 1 to 10000000; got 100000000000",
    "target_accuracy=nan": "target_accuracy must be a finite number; got nan",
    "target_accuracy=true": "target_accuracy must be a valid number; got True",
    'target_accuracy="0.5"': "target_accuracy must be a valid number; got '0.5'",
    'name=""': "name must have at least 1 character; got ''",
    "task.hidden=99999999999999999999": "task.hidden must be less than or equal to 10000; got 99999999999999999999",
    "seeds=[99999999999999999999999]": "seeds.0 must be less than 4294967296; got 99999999999999999999999",
    "rounds=1\nfoo=2": "--set must name one key; got 'rounds=1\\nfoo=2'",
    "fleet.groups=3": "fleet.groups must be a list of tables; got 3",
    "rounds": "--set must be of the form key=value; got 'rounds'",
    "fleet..clients=2": "--set must be of the form key=value; got 'fleet..clients=2'",
    'sweep."task.alpha=[1.0]': "--set must be of the form key=value; got 'sweep.\"task.alpha=[1.0]'",
    'sweep."task.alfa"=[1.0]': "task.alfa is not a known key, allowed are name, shards, partition, alpha, hidden, "
    "local_epochs, batch_size, learning_rate; got 1.0, did you mean alpha? (at task.alfa=1.0)",
}


def test_a_key_that_is_swept_is_not_set_in_vain() -> None:
    config = SMALLEST.with_name("wallclock") / "fleets.toml"
    assert load_config(config, ['sweep."fleet.preset"=["phones"]']).sweep == {"fleet.preset": ["phones"]}
    with pytest.raises(ConfigError, match=r'^--set fleet.preset must not be swept; give sweep."fleet.preset" instead'):
        load_config(config, ["fleet.preset=phones"])


@pytest.mark.parametrize(("override", "message"), BAD.items())
def test_bad_values_name_key_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('sums="whole"', "sums must be left out for schedule 'full', where a client sends one sum of all its shards;"),
        ("redraw=true", "redraw must be left out for schedule 'full', where the order of a client's shards does not"),
    ],
)
def test_what_only_work_lists_heed_is_refused_on_the_full_schedule(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, [f"strategies.1.{change}"])
    assert str(caught.value).startswith(f"strategies.1.{message}")
    load_config(SMALLEST, [f"strategies.1.{change}", 'strategies.1.schedule="work-list"'])


@pytest.mark.parametrize("override", ["strategies.1.deadline=0", "fleet.model=gamma", "colour=1"])
def test_bad_values_end_with_one_line_exit_code_2_and_no_file(override: str, tmp_path: Path) -> None:
    done = fedgc("run", SMALLEST, "--set", override, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"fedgc: {BAD[override]}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (['schedule="work-list"', 'sums="whole"'], "sums must be 'shard' for secure_sum: the client adds them up; got"),
        (["memory=true"], "memory must be False for secure_sum, which leaves no single update to remember; got True"),
    ],
)
def test_what_a_secure_sum_cannot_do_is_told_before_the_run(more: list[str], message: str) -> None:
    changes = [f"strategies.1.{change}" for change in ("secure_sum=true", 'decoder="fixed"', *more)]
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, changes)
    assert str(caught.value).startswith(f"strategies.1.{message}")
    load_config(SMALLEST, changes[:2])


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


def test_unreadable_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config must be a readable file; got .*missing.toml' \(No such file"):
        load_config(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = = 3")
    with pytest.raises(ConfigError, match=r"config must be valid TOML; got"):
        load_config(broken)
    with pytest.raises(ConfigError, match=r"name must be given; got nothing"):
        check_config({})


def test_overrides_reach_tables_lists_and_new_keys() -> None:
    overrides = [
        "strategies.1.load=4",
        "fleet.mean=0.25",
        'strategies.1.decoder="fixed"',
        "name=Mine",
        "task.alpha=1.0",
    ]
    config = load_config(SMALLEST, overrides)
    assert config.strategies[1].load == 4  # type: ignore[union-attr]
    assert config.strategies[1].decoder == "fixed"  # type: ignore[union-attr]
    assert (config.fleet["mean"], config.name, config.task.alpha) == (0.25, "Mine", 1.0)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    load_config(path)


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
