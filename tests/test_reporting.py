"""Where the reports of rounds go: the log, a results file, TensorBoard; and what happens when that fails."""

from __future__ import annotations

import csv
import logging
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import CsvResults, GradientCoding, RoundReport, RoundReporter, TensorBoardResults
from fedgc.strategies.reporting import read_csv_results
from fedgc.strategies.reporting.log import run_lines as log_lines
from fedgc.strategies.reporting.report import METRICS
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.apps import EXAMPLES, N_SHARDS, initial_arrays, steady, train

ROOT = Path(__file__).parents[1]


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return GradientCoding(inner, num_shards=N_SHARDS, deadline=10.0, shard_examples=EXAMPLES, **options)


def dropping() -> Any:
    return steady(dropout=0.4)


class Kept(RoundReporter):
    def __init__(self) -> None:
        self.reports: list[RoundReport] = []
        self.closed = 0

    def write(self, report: RoundReport) -> None:
        self.reports.append(report)

    def close(self) -> None:
        self.closed += 1


class Broken(Kept):
    def write(self, report: RoundReport) -> None:
        super().write(report)
        raise OSError(28, "No space left on device")


def run_lines(text: str) -> list[str]:
    return [line.split("] ")[-1] for line in text.splitlines() if "flwr.fedgc" in line]


@pytest.mark.parametrize("decoder", ["optimal-unbiased", "least-squares"])
def test_a_results_file_says_what_flowers_results_say(decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.csv"
    strategy = coding(decoder=decoder, reporters=[CsvResults(path)])
    result, _ = train(strategy, dropping(), rounds=3)
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == ["round", *METRICS]
    rows = read_csv_results(path)
    assert len(rows) == 3
    for server_round, row in enumerate(rows, start=1):
        assert row.pop("round") == server_round
        known = {name: value for name, value in row.items() if value is not None}
        metrics = result.train_metrics_clientapp[server_round]
        assert known == {name: value for name, value in metrics.items() if name in METRICS}
        # Every number is there to the last digit; what has no closed form is an empty cell, as is what nobody rounds.
        assert set(METRICS) - set(known) <= {"fedgc-error-predicted", "fedgc-variance-factor"}


def test_a_further_run_adds_rows_below(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    first = CsvResults(path)
    train(coding(reporters=[first]), steady(), rounds=2)
    before = path.read_bytes()
    train(coding(reporters=[first]), steady(), rounds=1)
    train(coding(reporters=[CsvResults(path)]), steady(), rounds=1)
    assert path.read_bytes().startswith(before)
    assert [row["round"] for row in read_csv_results(path)] == [1, 2, 1, 1]


def test_a_torn_row_is_passed_over_and_makes_room_wherever_it_is_torn(tmp_path: Path) -> None:
    path, torn = tmp_path / "results.csv", tmp_path / "torn.csv"
    strategy = coding(reporters=[CsvResults(path)])
    train(strategy, steady(), rounds=2)
    whole = path.read_bytes()
    ends = [match.end() for match in re.finditer(rb"\n", whole)]
    rows = read_csv_results(path)
    near_an_end = {end + k for end in (0, *ends) for k in range(-3, 4)}
    for length in sorted({*range(0, len(whole), 7), *near_an_end} & {*range(len(whole) + 1)}):
        torn.write_bytes(whole[:length])
        n_rows = max(0, sum(end <= length for end in ends) - 1)
        assert read_csv_results(torn) == rows[:n_rows]
        CsvResults(torn).write(strategy.history[0])
        assert read_csv_results(torn) == [*rows[:n_rows], rows[0]]
        assert torn.read_bytes() == whole[: ends[n_rows]] + whole[ends[0] : ends[1]]


@pytest.mark.parametrize("content", ["mine", "round,loss\n1,0.5\n", "round\n", "\n"])
def test_a_foreign_file_is_left_alone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(content)
    for use in (CsvResults, read_csv_results):
        with pytest.raises(
            ValueError, match=r"^path must be a new file or one with the columns of CsvResults; got '.*'$"
        ):
            use(path)
    assert path.read_text() == content


def test_what_cannot_be_written_or_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "results.csv"):
        with pytest.raises(ValueError, match=r"^path must be a file that can be written; got '.*' \(.+\)$"):
            CsvResults(path)
    with pytest.raises(
        ValueError, match=r"^path must be a file that can be read; got '.*' \(No such file or directory\)$"
    ):
        read_csv_results(tmp_path / "none.csv")
    good = CsvResults(tmp_path / "results.csv").path
    good.write_text(good.read_text() + "1,2\n")
    with pytest.raises(ValueError, match=r"^path must hold a number in each of 23 columns; .*$"):
        read_csv_results(good)
    with pytest.raises(ValueError, match=r"^folder must be one that can be written; got '.*' \(.+\)$"):
        TensorBoardResults(tmp_path / "file")
    with pytest.raises(ValueError, match=r"^reporters must be RoundReporter objects; got 3$"):
        coding(reporters=[3])


def test_tensorboard_shows_every_number_of_every_round(tmp_path: Path) -> None:
    strategy = coding(reporters=[TensorBoardResults(tmp_path / "run")], bits=8)
    result, _ = train(strategy, dropping(), rounds=3)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert set(events.Tags()["scalars"]) == {name.replace("fedgc-", "fedgc/") for name in METRICS}
    for name in METRICS:
        shown = {event.step: event.value for event in events.Scalars(name.replace("fedgc-", "fedgc/"))}
        told = {step: metrics[name] for step, metrics in result.train_metrics_clientapp.items()}
        assert shown == {step: float(np.float32(value)) for step, value in told.items()}  # type: ignore[arg-type]
    train(strategy, steady(), rounds=1)  # the writer was closed and begins another file
    assert len(list((tmp_path / "run").iterdir())) == 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A process in which the disk is full for one run, and that is killed in the third round of another."""
    folder = tmp_path_factory.mktemp("ended")
    code = (
        "import os, resource, signal, sys\n"
        "from fedgc.strategies import CsvResults, RoundReporter, TensorBoardResults\n"
        "assert 'tensorboard' not in sys.modules, 'loaded before it is asked for'\n"
        "from tests.apps import steady, train\n"
        "from tests.test_reporting import coding\n"
        "class Kill(RoundReporter):\n"
        "    def write(self, report):\n"
        "        if report.server_round == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "def results(folder):\n"
        "    return [CsvResults(folder + '/results.csv'), TensorBoardResults(folder + '/run')]\n"
        "strategy = coding(reporters=results(sys.argv[1] + '/full'))\n"
        # Room for the header, two rows and a part of the third, and for a part of the first round's curves.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))\n"
        "train(strategy, steady(), rounds=6)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print('rounds on a full disk:', len(strategy.history), flush=True)\n"
        "train(coding(reporters=[*results(sys.argv[1] + '/killed'), Kill()]), steady(), rounds=5)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    return folder, subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)


def test_without_tensorboard_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(
        ImportError, match=r"^TensorBoardResults needs tensorboard: pip install 'fedgc\[tensorboard\]'$"
    ):
        TensorBoardResults(tmp_path / "run")
    assert not (tmp_path / "run").exists()


needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX has it")
Ended = tuple[Path, subprocess.CompletedProcess[str]]


@needs_posix
def test_a_run_that_is_killed_leaves_its_rounds(ended: Ended) -> None:
    folder, done = ended[0] / "killed", ended[1]
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["round"] for row in read_csv_results(folder / "results.csv")] == [1, 2, 3]
    events = EventAccumulator(str(folder / "run")).Reload().Scalars("fedgc/arrived")
    assert [event.step for event in events] == [1, 2, 3]


@needs_posix
def test_a_full_disk_does_not_end_training(ended: Ended) -> None:
    folder, done = ended[0] / "full", ended[1]
    text = done.stdout + done.stderr
    assert "rounds on a full disk: 6\n" in done.stdout, text
    for name in ("CsvResults", "TensorBoardResults"):
        assert text.count(f"{name} failed, and the run goes on without it: ") == 1, text
    rounds = [row["round"] for row in read_csv_results(folder / "results.csv")]
    assert rounds == list(range(1, len(rounds) + 1)) and 1 <= len(rounds) < 6


def test_a_folder_that_goes_and_comes_back_costs_the_rounds_between(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"

    class Vandal(Kept):
        def write(self, report: RoundReport) -> None:
            super().write(report)
            if report.server_round == 2:
                shutil.rmtree(folder)
            if report.server_round == 4:
                folder.mkdir()

    reporters = [CsvResults(folder / "results.csv"), TensorBoardResults(folder / "board"), Vandal()]
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(coding(reporters=reporters), steady(), rounds=6)
    assert [row["round"] for row in read_csv_results(folder / "results.csv")] == [5, 6]
    assert caplog.text.count("CsvResults failed, and the run goes on without it: ") == 1
    assert caplog.text.count("TensorBoardResults failed, and the run goes on without it: ") == 1


def test_whatever_a_reporter_raises_the_model_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    broken, kept = Broken(), Kept()
    strategy, plain = coding(reporters=[broken, kept]), coding()
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, dropping(), rounds=2)
    expected, _ = train(plain, dropping(), rounds=2)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(result.arrays[name].numpy(), array.numpy())
    assert broken.reports == kept.reports == strategy.history
    assert (broken.closed, kept.closed) == (1, 1)
    assert caplog.text.count("Broken failed, and the run goes on without it: [Errno 28] No space left on device") == 1


def test_the_log_has_a_line_for_each_round_and_a_summary_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=2, early_end=False)
    with caplog.at_level(logging.INFO, logger="flwr"):
        train(strategy, steady(dropout=[0.0] * 5 + [0.9], median=[1.0, 1.0, 1.0, 1.0, 3.0, 1.0]), rounds=8)
    lines = [record.getMessage() for record in caplog.records if record.name == "flwr.fedgc"]
    rounds = [line for line in lines if line.startswith("round ")]
    pattern = re.compile(
        r"round (\d+): (\d) of 6 clients came in ([\d.]+) of 10 s \([\d.]+ expected, likely stragglers: (\d)\); "
        r"recovered (\d) of 3 blocks, (\d) of 6 shards, at load 2; "
        r"residual error: ([\d.e-]+) observed, ([\d.e-]+) predicted; "
        r"wasted work: (\d+) of (\d+) shard updates \(\d+ %\)(?:, (\d+) of them late)?"
    )
    told = [match.groups(default="0") for line in rounds if (match := pattern.fullmatch(line))]
    assert len(told) == len(rounds) == 8, rounds
    for numbers, report in zip(told, strategy.history, strict=True):
        assert [int(numbers[k]) for k in (0, 1, 4, 5, 8, 9, 10)] == [
            report.server_round,
            report.n_arrived,
            report.blocks_recovered,
            report.shards_recovered,
            report.work_wasted,
            report.work_seen,
            sum(report.late),
        ]
        assert float(numbers[2]) == pytest.approx(report.seconds, rel=0.01)
        assert float(numbers[6]) == pytest.approx(report.model_residual_error, rel=0.01)
        assert float(numbers[7]) == pytest.approx(report.predicted_residual_error, rel=0.01)
    start = lines.index("Gradient coding, 8 rounds, means over rounds:")
    summary = dict(line.lstrip("\t├└─ ").split(": ", 1) for line in lines[start + 1 :])
    assert list(summary) == [
        "Clients that came",
        "Recovered",
        "Residual error",
        "Wasted work",
        "Length of a round",
        "Ends of rounds",
        "Rounds without any arrival",
        "Late replies",
        "Least reliable",
        "Slowest",
    ]
    history = strategy.history
    came = np.mean([report.n_arrived for report in history])
    assert summary["Clients that came"].startswith(f"{came:.1f} of 6.0 (")
    observed = np.mean([report.model_residual_error for report in history])
    assert summary["Residual error"].startswith(f"{observed:.3g} observed, ")
    wasted, seen = sum(r.work_wasted for r in history), sum(r.work_seen for r in history)
    assert summary["Wasted work"].startswith(f"{wasted} of {seen} shard updates (")
    assert re.match(r"node 105 \(came in \d of 8; straggle probability 0\.\d\d\)", summary["Least reliable"])
    assert summary["Slowest"].startswith("node 104 (3 s a shard)")


@pytest.mark.parametrize("early_end", [True, False])
def test_the_summary_tells_how_rounds_ended_and_who_was_late(early_end: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One client takes 11 s where rounds last 10 s at most; they end early if its block has come without it."""
    strategy = coding(load=2, early_end=early_end)
    fleet = steady(median=[0.5] * 5 + [5.5], dropout=[0.4] * 5 + [0.0])
    with caplog.at_level(logging.INFO, logger="flwr"):
        train(strategy, fleet, rounds=12, backlog=True)
    lines = [record.getMessage() for record in caplog.records if record.name == "flwr.fedgc"]
    summary = dict(line.lstrip("\t├└─ ").split(": ", 1) for line in lines if line.startswith("\t") and ": " in line)
    ends = np.array([report.seconds for report in strategy.history])
    early = int((ends < 10.0).sum())
    assert 2 < early < 12 if early_end else early == 0
    ending = ", the others 0 s after their deadline in the median, 0 s at most"
    assert summary["Ends of rounds"] == f"{early} of 12 early{ending}"
    late = [len(report.late) for report in strategy.history]
    assert early_end or sum(late) > 0
    assert summary["Late replies"] == f"{sum(late)}, heard in {sum(count > 0 for count in late)} of 12 rounds"


def test_by_how_much_deadlines_are_overrun_is_told() -> None:
    strategy = coding(load=1, early_end=False)
    train(strategy, steady(median=50.0), rounds=3)
    overran = [replace(r, seconds=10.0 + over) for r, over in zip(strategy.history, (0.01, 0.5, -2.0), strict=True)]
    (told,) = [line for line in log_lines(overran) if "Ends of rounds" in line]
    assert told.endswith("1 of 3 early, the others 0.255 s after their deadline in the median, 0.5 s at most")
    (told,) = [line for line in log_lines(overran[2:]) if "Ends of rounds" in line]
    assert told.endswith(": 1 of 1 early")


def test_a_run_that_fails_is_summarised_up_to_there(caplog: pytest.LogCaptureFixture) -> None:
    kept, strategy = Kept(), None

    def fail(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if server_round == 2:
            raise RuntimeError("out of memory")
        return MetricRecord({"loss": 0.5})

    strategy = coding(reporters=[kept])

    def start(grid: Grid) -> None:
        with pytest.raises(RuntimeError, match="out of memory"):
            strategy.start(grid, initial_arrays(), num_rounds=5, evaluate_fn=fail)

    with caplog.at_level(logging.INFO, logger="flwr"):
        train(coding(), steady(), on_grid=start)
    assert len(kept.reports) == 2 and kept.closed == 1
    assert "Gradient coding, 2 rounds, means over rounds:" in caplog.text
