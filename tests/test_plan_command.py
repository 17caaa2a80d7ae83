"""``fedgc plan`` on the command line: its table, its JSON, its picture, and what it refuses."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import pytest

from fedgc.cli import main
from tests.command_line import fedgc

FLEET_FILE = """
model = "log-normal"
clients = 5
sigma = 0.2
dropout = 0.3
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET_FILE)
    return path


def plan(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run ``fedgc plan`` in this process, which has imported what takes seconds to import; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["fedgc", "plan", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


SMALL = ("--shards", 10, "--redundancy", 1, "--redundancy", 2, "--deadline", 3, "--deadline", 5)


def test_a_plan_as_json(fleet_file: Path) -> None:
    done = fedgc("plan", fleet_file, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert list(found) == ["recommended", "verdict", "choices"]
    assert found["recommended"] in found["choices"]
    assert "redundancy" in found["verdict"]
    assert {line["redundancy"] for line in found["choices"]} == {1, 2}
    assert {line["deadline"] for line in found["choices"]} == {3.0, 5.0}
    assert {line["schedule"] for line in found["choices"]} == {"full", "work-list"}
    for line in found["choices"]:
        assert list(line) == [
            "redundancy",
            "schedule",
            "code",
            "decoder",
            "deadline",
            "round_time",
            "arrivals",
            "residual_error",
            "relative_time_to_target",
            "shards_moved",
            "copies",
            "bits",
        ]
        assert isinstance(line["shards_moved"], int)
        assert 0 <= line["shards_moved"] <= 20
    times = [line["relative_time_to_target"] for line in found["choices"]]
    assert times == sorted(times)


def test_a_plan_as_a_table_and_a_picture(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = fleet_file.parent / "plan.svg"
    assert plan(monkeypatch, fleet_file, *SMALL, "--plot", picture) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert max(map(len, lines[1:-1])) <= 80
    assert "…" not in shown.out
    assert sum("▶" in line for line in lines) == 1
    assert sum("work-list " in line for line in lines) == 2
    assert lines[-2].startswith("redundancy ")
    assert lines[-1] == f"wrote {picture}"
    assert picture.read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["phones", "accelerators"])
def test_the_plan_of_a_preset_fits_eighty_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--clients", 6, "--shards", 12, "--redundancy", 1, "--redundancy", 2, "--deadline", 1234.5)
    assert plan(monkeypatch, name, *options) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert "6 clients, 12 shards" in out


BAD_PLANS: dict[str, tuple[tuple[str, ...], str]] = {
    "coherence": (("--coherence", "1.0"), "coherence must lie in [0, 1); got 1.0"),
    "coherence nan": (("--coherence", "nan"), "coherence must lie in [0, 1); got nan"),
    "redundancy": (("--redundancy", "0"), "redundancy must be an integer from 1 to clients = 5; got [0]"),
    "redundancy beyond": (("--redundancy", "6"), "redundancy must be an integer from 1 to clients = 5; got [6]"),
    "deadline": (("--deadline", "-1"), "deadline must be a finite number above 0; got [-1.0]"),
    "deadline nan": (("--deadline", "nan"), "deadline must be a finite number above 0; got [nan]"),
    "deadline inf": (("--deadline", "inf"), "deadline must be a finite number above 0; got [inf]"),
    "shards": (("--shards", "0"), "shards must be an integer from 1 to 10000000; got 0"),
    "sensitivity": (
        ("--noise-sensitivity", "nan"), "noise_sensitivity must be a finite number of at least 0; got nan"
    ),
    "round": (("--server-round", "-1"), "server_round must be an integer from 0 to 10000000; got -1"),
    "clients": (("--clients", "0"), "--clients must be an integer from 1 to 10000000; got 0"),
    "clients beyond": (("--clients", "99999999"), "--clients must be an integer from 1 to 10000000; got 99999999"),
    "seed": (("--seed", "-1"), "--seed must be an integer from 0 to 2^32 - 1; got -1"),
    "sensitivity beyond times": (
        ("--noise-sensitivity", "1e308"),
        "noise_sensitivity and deadline must be small enough for finite times to the target; got 1e+308 and up to 5",
    ),
    "shards beyond": (("--shards", "9" * 30), f"shards must be an integer from 1 to 10000000; got {'9' * 30}"),
    "round beyond": (
        ("--server-round", "9" * 400), f"server_round must be an integer from 0 to 10000000; got {'9' * 400}"
    ),
    "picture": (
        ("--plot", "x.txt"), "--plot must be a .png, .svg or .pdf file in a folder that exists; got 'x.txt'"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_bad_options_of_a_plan_end_with_one_line_exit_code_2_and_no_file(
    options: tuple[str, ...],
    message: str,
    fleet_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(fleet_file.parent)
    plot = () if "--plot" in options else ("--plot", "plan.png")
    small = SMALL if "--noise-sensitivity" in options else ()
    assert plan(monkeypatch, fleet_file, *small, *plot, *options) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"fedgc: {message}\n")
    assert list(fleet_file.parent.iterdir()) == [fleet_file]


def test_a_folder_is_no_picture(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fleet_file.parent / "dir.png"
    folder.mkdir()
    assert plan(monkeypatch, fleet_file, *SMALL, "--plot", folder) == 2
    message = f"--plot must be a .png, .svg or .pdf file in a folder that exists; got {str(folder)!r}"
    assert capsys.readouterr() == ("", f"fedgc: {message}\n")


TWICE = "\n[[client]]\nid = 3\n\n[[client]]\nid = 3\n"
BAD_FLEETS: dict[str, tuple[str, str]] = {
    "no TOML": ("clients = = 3", "must be valid TOML; "),
    "a client twice": (
        FLEET_FILE + TWICE, "client table 2: id must be given once; client table 1 has 3 too"
    ),
    "not a number": (FLEET_FILE + "median = nan", "median must not be NaN; got nan"),
    "negative time": (FLEET_FILE + "median = -2.0", "median must lie in [0, inf); got -2"),
    "negative time of a client": (
        FLEET_FILE + "[[client]]\nid = 1\nmedian = -2.0", "client table 1: median must lie in [0, inf); got -2"
    ),
    "not a number for a client": (FLEET_FILE + "[[client]]\nid = 1\noverhead = nan", "client table 1: overhead must "),
    "not a number for a group": (
        FLEET_FILE + "[[groups]]\nshare = 1.0\nstorage = 'big'", "groups.0.storage must be a number; got 'big'"
    ),
    "huge storage": (FLEET_FILE + "storage = " + "9" * 400, "storage must be a number or a list of numbers; got 9999"),
    "wrong storage": (FLEET_FILE + "storage = -1", "storage must lie in [0, inf); got -1"),
    "wrong site": (FLEET_FILE + "site = 'here'", "site must be a number or a list of numbers; got 'here'"),
    "wrong computation": (
        FLEET_FILE + "[[client]]\nid = 1\ncomputation = 0.5", "client table 1: computation must be an integer; got 0.5"
    ),
    "too little storage": (FLEET_FILE + "storage = 1", "storage must hold at least 10 shards in all; got 5"),
    "too little computation": (
        FLEET_FILE + "computation = [1, 1, 1, 1, 0]", "computation must do at least 10 shards in all, in blocks of "
    ),
    "too little together": (
        FLEET_FILE + "storage = [10, 0, 0, 0, 0]\ncomputation = [0, 9, 9, 9, 9]",
        "storage must leave room for 10 shards, 5 clients and 1 holders together with the other constraints; "
        "got no assignment (without storage or computation there would be one)",
    ),
    "never there": (
        FLEET_FILE.replace("0.3", "1.0"), "deadline must be long enough for every shard to be done at times; got 3, 5"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_FLEETS.values(), ids=BAD_FLEETS)
def test_bad_fleets_end_with_one_line_exit_code_2_and_no_file(
    text: str,
    message: str,
    fleet_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet_file.write_text(text)
    assert plan(monkeypatch, fleet_file, *SMALL, "--plot", fleet_file.parent / "plan.png") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    where = "" if message.startswith("deadline ") else f"{fleet_file}: "
    assert shown.err.startswith(f"fedgc: {where}{message}")
    assert len(shown.err.splitlines()) == 1
    assert list(fleet_file.parent.iterdir()) == [fleet_file]


SITES = "site = [0, 0, 0, 1, 1]\n"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SITES, "site must name at least 3 different sites, one for each holder; got 2"),
        (
            SITES + "storage = [10, 10, 10, 6, 6]\ncomputation = 9\n[[client]]\nid = 4\nsite = 2\nstorage = 0\n",
            "storage must leave room for 10 shards, 5 clients and 3 holders together with the other constraints; "
            "got no assignment (without storage or site or holders there would be one)",
        ),
    ],
)
def test_sites_that_cannot_be_met_are_called_as_in_the_fleet_file(
    limits: str, message: str, fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_file.write_text(FLEET_FILE + limits)
    three = ("--shards", 10, "--deadline", 5, "--redundancy", 3)
    assert plan(monkeypatch, fleet_file, *three) == 2
    assert capsys.readouterr() == ("", f"fedgc: {fleet_file}: {message}\n")


def test_a_verdict_calls_sites_as_the_fleet_file_does(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_file.write_text(FLEET_FILE + "site = 0\n")
    assert plan(monkeypatch, fleet_file, *SMALL) == 0
    verdict = "redundancy is not possible: site must name at least 2 different sites, one for each holder; got 1"
    assert capsys.readouterr().out.splitlines()[-1] == verdict


def test_numbers_of_holders_that_are_not_possible_are_told(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_file.write_text(FLEET_FILE + SITES)
    asked = ("--shards", 10, "--deadline", 5, "--redundancy", 2, "--redundancy", 3)
    reason = "site must name at least 3 different sites, one for each holder; got 2"
    assert plan(monkeypatch, fleet_file, *asked) == 0
    assert f"3 holders per shard are not possible: {reason}" in capsys.readouterr().out.splitlines()
    assert plan(monkeypatch, fleet_file, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["infeasible"] == [{"redundancy": 3, "reason": reason}]


def test_codes_that_are_left_out_are_told(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--shards", 12, "--deadline", 5, "--redundancy", 1)
    remark = "codes of the literature need a multiple of the 5 clients as shards: with 12 they are left out"
    assert plan(monkeypatch, fleet_file, *asked) == 0
    assert remark in capsys.readouterr().out.splitlines()
    assert plan(monkeypatch, fleet_file, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["remarks"] == [remark]


def test_codes_that_know_no_limits_are_left_out_with_a_remark(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten shards on five clients, which codes of the literature could be dealt; the fleet's sites are limits."""
    asked = ("--shards", 10, "--deadline", 5, "--redundancy", 1)
    assert plan(monkeypatch, fleet_file, *asked, "--json") == 0
    without = json.loads(capsys.readouterr().out)
    assert "remarks" not in without and "uncoded" in {choice["code"] for choice in without["choices"]}
    fleet_file.write_text(FLEET_FILE + SITES)
    assert plan(monkeypatch, fleet_file, *asked, "--json") == 0
    limited = json.loads(capsys.readouterr().out)
    assert limited["remarks"] == ["codes of the literature know no limits: where there are some they are left out"]
    assert {choice["code"] for choice in limited["choices"]} <= {"work-lists", "fractional-repetition"}


def test_what_is_asked_for_twice_is_told_once(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, fleet_file, *SMALL, *SMALL, "--json") == 0
    twice = json.loads(capsys.readouterr().out)
    assert plan(monkeypatch, fleet_file, *SMALL, "--json") == 0
    assert twice == json.loads(capsys.readouterr().out)


def test_without_one_holder_times_are_relative_to_the_best(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, fleet_file, "--shards", 10, "--redundancy", 2, "--deadline", 5) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("one holder per shard was not tried")
    assert "1 for the best" in out
    assert "without redundancy" not in out


def test_a_fleet_that_never_does_anything_is_refused_whatever_the_deadline(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_file.write_text(FLEET_FILE.replace("0.3", "1.0"))
    assert plan(monkeypatch, fleet_file, "--redundancy", 1, "--shards", 2) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedgc: fleet must have clients that do every shard at times; got none that do by a dead")
    assert len(error.splitlines()) == 1


def test_a_fleet_that_has_become_infinitely_slow_is_refused_at_the_longest_deadline(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_file.write_text(FLEET_FILE + "drift = 10\n")
    assert plan(monkeypatch, fleet_file, "--redundancy", 1, "--shards", 5, "--server-round", 1000) == 2
    error = capsys.readouterr().err
    assert error.endswith("got none that do by a deadline of 1e+08 seconds\n")


def test_too_little_memory_is_said_in_one_line(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, hard))
        code = plan(monkeypatch, fleet_file, "--shards", 9_999_999, "--redundancy", 5, "--deadline", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert code == 2
    expected = (
        "--clients and --shards must be small enough for this computer's memory; got --clients 5, --shards 9999999"
    )
    error = capsys.readouterr().err
    assert error.startswith(f"fedgc: {expected} (")
    assert len(error.splitlines()) == 1


def test_an_unknown_fleet_ends_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = fedgc("plan", "tablets", "--plot", tmp_path / "plan.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fedgc: fleet must be one of the presets accelerators, lambda, ")
    assert done.stderr.endswith("or a readable TOML file; got 'tablets' (No such file or directory)\n")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
