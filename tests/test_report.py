"""Reports: what the table says is what the rows say, and the page holds all of it and nothing foreign."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedgc.errors import ConfigError
from fedgc.experiment.target import Target
from fedgc.report import read_results, write_report
from fedgc.report.conditions import by_condition
from fedgc.report.curves import curve_figure
from fedgc.report.figures import way_figure
from fedgc.report.ratios import ratio_to
from fedgc.report.style import look_of
from fedgc.report.tables import Entry, best_of, entries, entry_text, mean_and_half_width
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
    assert (never.n_reached, entry_text(never)) == (1, "never (2 of 3 seeds)")
    assert best_of([ours, mifa]) is ours and best_of([never]) is None


def test_what_is_tuned_is_the_readers_choice(folder: Path) -> None:
    found = entries(read_results(folder), tuned=())
    assert len(found) == 2 * 2 * 2
    assert {entry.n_choices for entry in found if entry.strategy == "Ours"} == {1}


def test_choices_that_were_tuned_before_are_counted_and_its_keys_are_no_conditions(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["tuning"] = {"seeds": [9], "by": "seconds", "keys": ["fleet.preset"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    found = entries(read_results(folder))
    assert {tuple(entry.condition) for entry in found} == {("task.learning_rate",)}
    assert {entry.strategy: entry.n_choices for entry in found} == {"Ours": 2, "MIFA <b>$x$": 4}
    # With one choice measured there are no fewer that were tried.
    lines = (folder / "results.csv").read_text().splitlines()
    kept = [line for line in lines if "deadline=4" not in line]
    (folder / "results.csv").write_text("\n".join(kept) + "\n")
    assert {entry.n_choices for entry in entries(read_results(folder)) if entry.strategy != "Ours"} == {4}


def test_seeds_that_got_there_are_drawn_of_a_strategy_that_does_not_with_all(folder: Path) -> None:
    results = read_results(folder)
    shown = [entry for entry in entries(results, ()) if "paper" in entry.condition.values() and entry.n_reached < 3]
    figure = way_figure(shown, results.target, "seconds")
    drawn = [line.get_xdata() for axes in figure.axes for line in axes.lines]
    np.testing.assert_array_equal(np.sort(np.concatenate(drawn)), np.sort(np.concatenate(
        [entry.reached[np.isfinite(entry.reached)] for entry in shown]
    )))  # fmt: skip
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(texts) == len(shown) and "never (1/3)" in texts, texts
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert all(low <= x <= high for line in axes.lines for x in line.get_xdata())


def test_a_report_is_whole_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder)
    files = write_report(tmp_path / "a", [results])
    kinds = ("seconds-to-target", "loss-by-rounds", "loss-by-seconds", "accuracy-by-seconds", "calibration")
    drawn = {f"{kind}.{ending}" for kind in kinds for ending in ("png", "pdf")}
    assert {path.name for path in files} == {"report.html", "tables.md", "table.csv", "seeds.csv", *drawn}
    again = write_report(tmp_path / "b", [results])
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    page = files[0].read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "<i>B</i>" not in page and "&lt;i&gt;B&lt;/i&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    bold = re.findall(r'<td class="number best">([^<]*)</td>', page)
    assert bold == ["12.0 ± 5.0", "8.0 ± 2.5"]
    with (tmp_path / "a" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seconds"] for row in rows] == ["12", "20", "8", ""]
    both = write_report(tmp_path / "two", [results, results])
    assert {"1-table.csv", "2-table.csv", "1-seeds.csv", "2-seeds.csv"} <= {path.name for path in both}


def test_a_choice_has_its_keys_in_the_order_of_the_grid(sparse: Path) -> None:
    summary = json.loads((sparse / "summary.json").read_text())
    keys = ["pieces", "server_momentum", "deadline", "buffer_size", "server_learning_rate", "over_selection"]
    summary["config"]["strategies"] = [{"label": "A", "grid": {key: [1] for key in keys}}, {"label": "B"}]
    (sparse / "summary.json").write_text(json.dumps(summary))
    head, *lines = (sparse / "results.csv").read_text().splitlines()
    rows = [f"{line},{'1,' * len(keys)}".rstrip(",") for line in lines]
    (sparse / "results.csv").write_text("\n".join([",".join([head, *keys]), *rows]) + "\n")
    assert list(entries(read_results(sparse))[0].choice) == keys


def test_every_seed_is_in_a_table_of_its_own(folder: Path, tmp_path: Path) -> None:
    files = write_report(tmp_path / "out", [read_results(folder)])
    with (tmp_path / "out" / "seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    best = {("Ours", "phones"): ("0.1", ""), ("Ours", "paper"): ("0.1", ""), ("MIFA <b>$x$", "phones"): ("0.1", "8"),
            ("MIFA <b>$x$", "paper"): ("0.1", "8")}  # fmt: skip
    for row in rows:
        label, preset = row["strategy"], row["fleet.preset"]
        rate, deadline = best[label, preset]
        seconds = SECONDS[label, preset, rate, deadline][int(row["seed"])]
        reached = np.isfinite(seconds)
        assert row["choice"] == f"learning_rate {rate}" + (f", deadline {deadline}" if deadline else "")
        assert row["seconds_to_target"] == (f"{seconds:g}" if reached else "")
        assert row["rounds_to_target"] == ("1" if reached else "")
        assert (row["accuracy"], row["loss"]) == ("0.9500" if reached else "0.5000", "0.3")
        assert (row["load"], row["deadline"]) == ("", "")
    page = files[0].read_text()
    cells = '<td>preset paper</td><td>MIFA &lt;b&gt;$x$</td><td class="number">5</td><td class="number">never</td>'
    assert "<summary>Every seed</summary>" in page and cells in page


def test_the_load_of_a_seed_is_the_mean_over_its_rounds_and_its_deadline_the_last(sparse: Path) -> None:
    with (sparse / "results.csv").open() as file:
        head, *rows = csv.reader(file)
    with (sparse / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*head, "fedgc-load", "fedgc-deadline"))
        for row in rows:
            told = {"10": ("2.0", "7.0"), "20": ("3.0", "5.25")}.get(row[2], ("", "")) if row[0] == "A" else ("", "")
            writer.writerow((*row, *told))
    write_report(sparse / "report", [read_results(sparse)])
    lines = (sparse / "report" / "seeds.csv").read_text().splitlines()
    assert lines == [
        "strategy,choice,seed,rounds_to_target,seconds_to_target,accuracy,loss,load,deadline",
        "A,,1,20,14,0.9500,0.5,2.5,5.25",
        "A,,2,10,7,0.9500,0.7,2.5,5.25",
        "B,,1,10,7,0.9500,0.2,,",
        "B,,2,,,0.9500,,,",
    ]


def test_ratios_are_paired_by_seed(folder: Path, tmp_path: Path) -> None:
    label = "MIFA <b>$x$"
    files = write_report(tmp_path / "out", [read_results(folder)], relative_to=label)
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = {(row["condition"], row["strategy"]): row for row in csv.DictReader(file)}
    ratios = np.array([10.0 / 19.0, 14.0 / 21.0, 12.0 / 20.0])
    ours = rows["preset phones", "Ours"]
    assert float(ours["ratio"]) == pytest.approx(stats.gmean(ratios), rel=1e-5)
    logs = np.log(ratios)
    low, high = np.exp(stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs)))
    assert (float(ours["ratio_low"]), float(ours["ratio_high"])) == pytest.approx((low, high), rel=1e-5)
    assert rows["preset phones", label]["ratio"] == "1"
    assert {rows["preset paper", "Ours"][name] for name in ("ratio", "ratio_low", "ratio_high")} == {""}
    text = (tmp_path / "out" / "tables.md").read_text()
    # What a label holds is shown, not obeyed; the best is in bold.
    assert "| MIFA &lt;b&gt;\\$x\\$ | 1 (1 to 1) | never (2 of 3 seeds) |" in text
    assert "| Ours | **0.59 (0.44 to 0.80)** | reference never (2 of 3 seeds) |" in text
    assert "| Ours | **12.0 ± 5.0** | **8.0 ± 2.5** |" in text
    assert "0.59 (0.44 to 0.80)</td>" in files[0].read_text()


def entry_of(*reached: float, seeds: tuple[int, ...] = (1, 2, 3, 4)) -> Entry:
    """Return what a strategy took with the first of these seeds."""
    runs: Any = tuple(SimpleNamespace(seed=seed) for seed in seeds[: len(reached)])
    values = np.array(reached)
    return Entry("", {}, {}, 1, runs, values, *mean_and_half_width(values))


def test_twice_as_long_and_half_as_long_are_level() -> None:
    one, other = entry_of(20.0, 5.0), entry_of(10.0, 10.0)
    ratio = ratio_to(one, other)
    # In the logarithm the two seeds are log 2 from their mean: so far apart that the interval holds anything.
    half = stats.t.ppf(0.975, 1) * np.log(2.0)
    assert ratio.mean == 1.0
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(-half), np.exp(half)), rel=1e-12)
    assert ratio.text == "1.0 (0.00015 to 6683)"


def test_a_ratio_the_other_way_round_is_one_over_it() -> None:
    one, other = entry_of(20.0, 5.0, 7.0), entry_of(11.0, 9.0, 13.0)
    forth, back = ratio_to(one, other), ratio_to(other, one)
    assert (1.0 / forth.mean, 1.0 / forth.high, 1.0 / forth.low) == pytest.approx((back.mean, back.low, back.high))


def test_ratios_are_over_the_seeds_that_both_have() -> None:
    ratio = ratio_to(entry_of(9.0, 6.0, seeds=(3, 1)), entry_of(3.0, 100.0, 18.0))
    assert ratio.mean == pytest.approx(1.0) and ratio.low == pytest.approx(1.0 / ratio.high)
    alone = ratio_to(entry_of(9.0, seeds=(3,)), entry_of(3.0, 100.0, 18.0))
    assert (alone.mean, alone.text) == (0.5, "0.5") and np.isnan([alone.low, alone.high]).all()


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        ((0.3, 0.6, 0.7), (0.1, 0.2, 0.7 / 3.0), "3 (3 to 3)"),  # rounding is no interval
        ((0.0, 1.0), (1.0, 1.0), "not known"),
        ((1.0, 1.0), (0.0, 1.0), "not known"),
        ((1.0, np.inf), (1.0, np.inf), "never (1 of 2 seeds)"),
        ((1.0, 1.0), (1.0, np.inf), "reference never (1 of 2 seeds)"),
    ],
)
def test_what_stands_in_place_of_a_ratio(one: tuple[float, ...], other: tuple[float, ...], text: str) -> None:
    assert ratio_to(entry_of(*one), entry_of(*other)).text == text


def test_a_reference_that_is_not_there_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    done = fedgc("report", folder, "--relative-to", "FedAvg", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("fedgc: --relative-to must be a strategy of A & <i>B</i>, one of ['Ours', 'MIFA")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--relative-to", "Our"), "got 'Our', did you mean Ours?"),
        (("--tune", "task.learning_rat"), "--tune must be a key that is swept, one of ['fleet.preset', "
         "'task.learning_rate']; got 'task.learning_rat', did you mean task.learning_rate?"),
    ],
)  # fmt: skip
def test_the_nearest_name_is_suggested(arguments: tuple[str, str], message: str, folder: Path, tmp_path: Path) -> None:
    done = fedgc("report", folder, *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("fedgc: --") and done.stderr.endswith(f"{message}\n")
    assert not (tmp_path / "out").exists()


def test_curves_go_on_until_half_of_the_runs_are_over(folder: Path) -> None:
    results = read_results(folder)
    (entry,) = (one for one in entries(results) if one.strategy == "Ours" and one.condition["fleet.preset"] == "phones")
    figure = curve_figure([entry], "accuracy", "seconds", results.target)
    (line,) = (line for line in figure.axes[0].lines if len(line.get_xdata()) > 2)
    # Runs that take 10, 12 and 14 seconds: by 12 two of three have got there, and the line with them.
    assert line.get_xdata()[-1] == 12.0 and line.get_ydata()[-1] == 0.95


def test_the_calibration_table_is_what_the_rows_say(folder: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "out", [read_results(folder)])
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| preset phones | Ours | 0.2 |  | 1.25 ± 0 |" in text


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """Results of a run that is evaluated every tenth round, to a loss; one of its seeds diverges."""
    config = {
        "name": "Loss", "target_accuracy": 0.9, "target_loss": 0.5, "strategies": [{"label": "A"}, {"label": "B"}],
    }  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps({"config": config, "versions": {}, "commit": None}))
    losses = {
        ("A", 1): (2.0, 0.6, 0.5),
        ("A", 2): (2.0, 0.4, 0.7),
        ("B", 1): (2.0, 0.3, 0.2),
        ("B", 2): (2.0, 9.0, "nan"),
    }
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("strategy", "seed", "round", "seconds", "accuracy", "loss"))
        for (label, seed), values in losses.items():
            for number, loss in enumerate(values):
                writer.writerow((label, seed, 10 * number, 7.0 * number, 0.95, loss))
    return tmp_path


def test_a_loss_is_a_target_and_rounds_are_those_of_the_rows(sparse: Path) -> None:
    results = read_results(sparse)
    assert results.target == Target("loss", 0.5)
    ours, other = entries(results, unit="rounds")
    assert ours.reached.tolist() == [20.0, 10.0] and ours.mean == 15.0
    assert other.reached.tolist() == [10.0, np.inf] and entry_text(other) == "never (1 of 2 seeds)"
    assert [entry.reached.tolist() for entry in entries(results)] == [[14.0, 7.0], [7.0, np.inf]]


def test_the_unit_is_the_readers_choice(sparse: Path) -> None:
    done = fedgc("report", sparse, "--by", "rounds", "--relative-to", "A")
    assert done.returncode == 0, done.stderr
    out = sparse / "report"
    assert {path.stem for path in out.glob("*.png")} == {
        "rounds-to-target", "loss-by-rounds", "loss-by-seconds", "accuracy-by-rounds",
    }  # fmt: skip
    text = (out / "tables.md").read_text()
    assert "Rounds to a loss of 0.5" in text and "| B | never (1 of 2 seeds) |" in text
    with (out / "table.csv").open() as file:
        assert [row["rounds"] for row in csv.DictReader(file)] == ["15", ""]


def test_twenty_lines_are_told_apart_without_colour() -> None:
    assert len({(str(look["linestyle"]), look["marker"]) for look in map(look_of, range(20))}) == 20


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


def test_titles_of_swept_values_stand_in_tables_and_what_has_none_stands_as_it_is(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["sweep_titles"] = {"fleet.preset": {"name": "everyone", "values": {"phones": "has a phone"}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert list(by_condition(entries(read_results(folder)))) == ["everyone has a phone", "preset paper"]


def test_a_sweep_over_targets_is_refused(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["sweep"]["target_accuracy"] = [0.5, 0.9]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(
        ConfigError, match=r"must hold results of one target; got .*, whose sweep varies target_accuracy"
    ):
        read_results(folder)
