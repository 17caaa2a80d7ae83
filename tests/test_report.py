"""Reports: what the table says is what the rows say, and the page holds all of it and nothing foreign."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedgc.errors import ConfigError
from fedgc.report import read_results, write_report
from fedgc.report.tables import best_of, entries, seconds_text
from tests.command_line import fedgc

#: Seconds to an accuracy of 0.9 by strategy, condition, what is tuned, and seed; infinite for never.
SECONDS = {
    ("Ours", "phones", "0.1", ""): (10.0, 14.0, 12.0),
    ("Ours", "phones", "0.3", ""): (20.0, 24.0, 22.0),
    ("Ours", "paper", "0.1", ""): (9.0, 8.0, 7.0),
    ("Ours", "paper", "0.3", ""): (np.inf, 1.0, 1.0),
    ("MIFA <b>$x$", "phones", "0.1", "4"): (30.0, 30.0, 33.0),
    ("MIFA <b>$x$", "phones", "0.1", "8"): (19.0, 21.0, 20.0),
    ("MIFA <b>$x$", "phones", "0.3", "4"): (40.0, 40.0, np.inf),
    ("MIFA <b>$x$", "phones", "0.3", "8"): (25.0, 25.0, 25.0),
    ("MIFA <b>$x$", "paper", "0.1", "4"): (np.inf,) * 3,
    ("MIFA <b>$x$", "paper", "0.1", "8"): (5.0, np.inf, np.inf),
    ("MIFA <b>$x$", "paper", "0.3", "4"): (np.inf,) * 3,
    ("MIFA <b>$x$", "paper", "0.3", "8"): (np.inf,) * 3,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    strategies = [{"label": "Ours", "grid": {}}, {"label": "MIFA <b>$x$", "grid": {"deadline": [4, 8]}}]
    sweep = {"fleet.preset": ["phones", "paper"], "task.learning_rate": [0.1, 0.3]}
    config = {"name": "A & <i>B</i>", "target_accuracy": 0.9, "sweep": sweep, "strategies": strategies}
    summary = {"config": config, "versions": {"python": "3.11"}, "commit": None}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    keys = ("strategy", "fleet.preset", "task.learning_rate", "deadline", "seed", "round", "seconds", "accuracy")
    errors = ("loss", "fedgc-error-predicted", "fedgc-error-measured")
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, *errors])
        for (label, preset, rate, deadline), reached in SECONDS.items():
            shown = f"{label} (deadline={deadline})" if deadline else label
            for seed, seconds in enumerate(reached):
                writer.writerow([shown, preset, rate, deadline, seed, 0, 0.0, 0.1, 2.3, "", ""])
                last = seconds if np.isfinite(seconds) else 50.0
                accuracy = 0.95 if np.isfinite(seconds) else 0.5
                writer.writerow([shown, preset, rate, deadline, seed, 1, last, accuracy, 0.3, 0.2, 0.25])
    return tmp_path


def test_every_strategy_is_shown_at_its_best_choice(folder: Path) -> None:
    found = {(entry.strategy, entry.condition["fleet.preset"]): entry for entry in entries(read_results(folder))}
    ours = found["Ours", "phones"]
    assert (ours.mean, ours.choice, ours.n_choices) == (12.0, {"task.learning_rate": "0.1"}, 2)
    interval = stats.t.interval(0.95, 2, loc=12.0, scale=stats.sem([10.0, 14.0, 12.0]))
    assert ours.half_width == pytest.approx(interval[1] - 12.0)
    mifa = found["MIFA <b>$x$", "phones"]
    assert (mifa.mean, mifa.choice) == (20.0, {"task.learning_rate": "0.1", "deadline": "8"})
    # One seed that is soon is not better than three that come.
    assert found["Ours", "paper"].choice == {"task.learning_rate": "0.1"}
    never = found["MIFA <b>$x$", "paper"]
    assert (never.n_reached, seconds_text(never)) == (1, "1 of 3 seeds")
    assert best_of([ours, mifa]) is ours and best_of([never]) is None


def test_what_is_tuned_is_the_readers_choice(folder: Path) -> None:
    found = entries(read_results(folder), tuned=())
    assert len(found) == 2 * 2 * 2
    assert {entry.n_choices for entry in found if entry.strategy == "Ours"} == {1}


def test_a_report_is_whole_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder)
    files = write_report(tmp_path / "a", [results])
    kinds = ("accuracy", "time-to-target", "calibration")
    drawn = {f"{kind}.{ending}" for kind in kinds for ending in ("png", "pdf")}
    assert {path.name for path in files} == {"report.html", "table.csv", *drawn}
    again = write_report(tmp_path / "b", [results])
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    page = files[0].read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<i>B</i>" not in page and "&lt;i&gt;B&lt;/i&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    bold = re.findall(r'<td class="number best">([^<]*)</td>', page)
    assert bold == ["12 ± 4.97", "8 ± 2.48"]
    with (tmp_path / "a" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seconds"] for row in rows] == ["12", "20", "8", ""]
    both = write_report(tmp_path / "two", [results, results])
    assert {"1-table.csv", "2-table.csv"} <= {path.name for path in both}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "summary.json").unlink(), r"No such file or directory: .*summary.json"),
        (lambda folder: (folder / "summary.json").write_text("{"), "DIR must hold results"),
        (lambda folder: (folder / "results.csv").write_text("a,b\n1,2\n"), "DIR must hold results"),
    ],
)
def test_what_is_no_result_is_refused(spoil: Any, message: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        read_results(folder)


def test_the_command_reports_on_what_the_runs_left(tmp_path: Path) -> None:
    smallest = Path(__file__).parents[1] / "experiments" / "smallest.toml"
    assert fedgc("run", smallest, "--out", tmp_path / "run").returncode == 0
    done = fedgc("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report" / "report.html").exists()
    bad = fedgc("report", tmp_path)
    assert bad.returncode == 2 and bad.stderr.startswith("fedgc: DIR must hold results of fedgc run --out; got")
