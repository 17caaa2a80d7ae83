"""The status page of runs that go wrong, go on, are resumed, or are driven by another strategy."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import fedgc.strategies.coded_strategy as coded_strategy
import numpy as np
import pytest
from fedgc.strategies import RoundReporter, StatusPage
from fedgc.strategies.reporting.read_status import run_status
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import RunStatus
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

from tests.apps import initial_arrays, steady, train
from tests.status_pages import Page, Statuses, coding, data_of


def test_a_disk_that_fails_costs_the_page_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"

    class Vandal(Statuses):
        def write_status(self, status: RunStatus) -> None:
            super().write_status(status)
            if status.rounds_done == 2:
                shutil.rmtree(folder)
                folder.write_text("in the way")
            if status.rounds_done == 4:
                folder.unlink()
                folder.mkdir()

    plain, kept = coding(), Vandal()
    strategy = coding(StatusPage(folder / "status.html"), kept)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, steady(dropout=0.4), rounds=5)
    expected, _ = train(plain, steady(dropout=0.4), rounds=5)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(result.arrays[name].numpy(), array.numpy())
    assert caplog.text.count("StatusPage failed, and the run goes on without it: ") == 1
    assert data_of(folder / "status.json")["rounds_done"] == 5
    assert Page(folder / "status.html").text.count("5 of 5 rounds") > 0


def test_whatever_goes_wrong_in_putting_it_together_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(strategy: Any) -> RunStatus:
        asked.append(strategy)
        raise KeyError("of a bug")

    monkeypatch.setattr(coded_strategy, "run_status", fail)

    class Plain(RoundReporter):
        def write(self, report: RoundReport) -> None:
            pass

    train(coding(Plain()), steady(), rounds=2)
    assert asked == []  # nobody wants it
    strategy = coding(StatusPage(tmp_path / "status.html"))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(strategy, steady(), rounds=2)
    assert len(strategy.history) == 2 and len(asked) == 6
    assert caplog.text.count("StatusPage failed, and the run goes on without it: 'of a bug'") == 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_page_reads_itself_anew_as_long_as_the_run_goes_on(fails: bool, tmp_path: Path) -> None:
    path, refreshing = tmp_path / "status.html", []
    strategy = coding(StatusPage(path))

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        refreshing.append('http-equiv="refresh" content="10"' in Page(path).source)
        if fails and server_round == 2:
            raise RuntimeError("out of memory")
        return MetricRecord({"accuracy": 0.25 * server_round})

    def start(grid: Grid) -> None:
        strategy.start(grid, initial_arrays(), num_rounds=3, evaluate_fn=evaluate)

    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            train(coding(), steady(), on_grid=start)
    else:
        train(coding(), steady(), on_grid=start)
    page, data = Page(path), data_of(path.with_suffix(".json"))
    assert len(refreshing) > 2 and all(refreshing) and "refresh" not in page.source
    assert data["phase"] == ("stopped" if fails else "ended")
    assert data["server_evaluation"]["server_round"] == (1 if fails else 3)
    assert f"accuracy {0.25 if fails else 0.75:g}" in page.text


def test_a_strategy_around_this_one_is_told_of_too(tmp_path: Path) -> None:
    page = StatusPage(tmp_path / "status.html")
    strategy = coding(page)
    private = DifferentialPrivacyServerSideFixedClipping(strategy, 0.0, 1.0, num_sampled_clients=6)

    def start(grid: Grid) -> None:
        with strategy.deadline_grid(grid) as timed:
            private.start(timed, initial_arrays(), num_rounds=3)

    train(coding(), steady(), on_grid=start)
    data = data_of(page.data_path)
    assert (data["phase"], data["rounds_done"], data["rounds_planned"], data["seconds_left"]) == (
        "ended",
        3,
        None,
        None,
    )
    assert "3 rounds" in Page(page.path).words


class KilledError(Exception):
    pass


def test_a_run_that_is_resumed_is_told_of_as_a_whole(tmp_path: Path) -> None:
    def run(name: str, kill_after: int | None = None, **options: Any) -> dict[str, Any]:
        strategy = coding(StatusPage(tmp_path / f"{name}.html"), checkpoints=tmp_path / name, **options)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            if server_round == kill_after:
                raise KilledError
            return MetricRecord({"accuracy": 0.1 * server_round})

        def start(grid: Grid) -> None:
            strategy.start(grid, initial_arrays(), num_rounds=7, evaluate_fn=evaluate)

        if kill_after is None:
            train(coding(), steady(dropout=0.4), on_grid=start)
        else:
            with pytest.raises(KilledError):
                train(coding(), steady(dropout=0.4), on_grid=start)
        return data_of(tmp_path / f"{name}.json")

    whole = run("whole")
    assert run("parts", kill_after=4)["rounds_done"] == 4
    resumed = run("parts", resume=True)
    assert resumed["rounds_done"] == resumed["rounds_planned"] == 7
    assert [client["asked"] for client in resumed["clients"]] == [7] * 6
    here = {"written", "seconds"}  # of this process
    assert {key: value for key, value in resumed.items() if key not in here} == {
        key: value for key, value in whole.items() if key not in here
    }
    assert resumed["seconds"] < whole["seconds"] == whole["seconds_in_rounds"]


def test_a_second_run_of_a_strategy_is_told_of_alone(tmp_path: Path) -> None:
    page = StatusPage(tmp_path / "status.html")
    strategy = coding(page)
    train(strategy, steady(), rounds=3)
    train(strategy, steady(), rounds=2)
    data = data_of(page.data_path)
    assert (data["rounds_done"], data["rounds_planned"]) == (2, 2)
    assert {client["asked"] for client in data["clients"]} == {2}


def test_what_cannot_be_a_page_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path must end in \.html; got 'status\.json'$"):
        StatusPage("status.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^path must be a file that can be written; got '.*' \(.+\)$"):
        StatusPage(tmp_path / "file" / "status.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match=r"^path must be a file that can be written; got '.*' \(.+\)$"):
        StatusPage(tmp_path / "folder.html")
    for name in ("mine.html", "data.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=r"^path must be a new file, or the page of an earlier run; got '.*'$"):
            StatusPage((tmp_path / name).with_suffix(".html"))
        assert (tmp_path / name).read_text() == "mine"
    page = StatusPage(tmp_path / "status.html")
    page.write_status(run_status(coding()))
    StatusPage(page.path)  # that of an earlier run
