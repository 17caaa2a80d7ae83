"""Traces: what was recorded is replayed, and files with gaps or slips are refused before anything is used."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fedgc.errors import ConfigError
from fedgc.fleets import build_fleet, load_fleet
from fedgc.fleets.trace_file import read_trace

GOOD = """client,round,seconds
0,1,2.5
0,2,missed
0,3,4
1,1,1.0
1,2,1.5
1,3,8
"""


def write(path: Path, text: str, name: str = "trace.csv") -> str:
    (path / name).write_text(text, encoding="utf-8")
    return str(path / name)


def test_a_trace_is_replayed_and_repeats(tmp_path: Path) -> None:
    fleet = build_fleet({"model": "trace", "trace": write(tmp_path, GOOD)}, seed=1)
    assert fleet.n_clients == 2
    expected = {0: [2.5, np.inf, 4.0], 1: [1.0, 1.5, 8.0]}
    for client, seconds in expected.items():
        assert [fleet.completion_time(client, r, 1) for r in range(1, 10)] == seconds * 3
        assert fleet.completion_time(client, 0, 1) == seconds[2]
    assert fleet.draw(0, 2).leaves_after == 0.0
    assert fleet.completion_time(0, 2, 0) == np.inf  # who missed the round does not evaluate in it either
    assert fleet.completion_time(0, 1, 0) == 0.0


def test_time_grows_with_the_load_after_the_overhead(tmp_path: Path) -> None:
    table = {"model": "trace", "trace": write(tmp_path, GOOD), "overhead": 0.5, "load": 4}
    fleet = build_fleet(table, seed=1)
    assert [fleet.completion_time(0, 1, load) for load in (0, 1, 4, 8)] == [0.5, 1.0, 2.5, 4.5]


def test_probabilities_are_the_recorded_shares(tmp_path: Path) -> None:
    fleet = build_fleet(
        {"model": "trace", "trace": write(tmp_path, GOOD), "slow_prob": 0.5, "slow_factor": 2.0}, seed=1
    )
    # Within 4 seconds, usual or slow: client 0 in 2 or 0 of 3 rounds (2.5 and 4, then 5 and 8), client 1 in 2 of 3.
    np.testing.assert_allclose(fleet.straggle_prob(4.0, 1), [1 - (2 + 0) / 6, 1 - (2 + 2) / 6], rtol=1e-12)
    np.testing.assert_allclose(fleet.reach(4.0, 2)[:, 1:], [[2 / 6, 0], [4 / 6, (2 + 1) / 6]], rtol=1e-12)
    long = build_fleet({"model": "trace", "trace": str(tmp_path / "trace.csv"), "session_on": 100.0}, seed=1)
    # Sessions of 100 seconds within 20 %: a client that needs t < 80 stays for them with probability 1 - t / 100.
    np.testing.assert_allclose(1 - long.straggle_prob(4.0, 1), [(0.975 + 0.96) / 3, (0.99 + 0.985) / 3], rtol=1e-12)


def test_columns_come_in_any_order_with_spaces_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeffseconds, round,client\r\n"2.5",7,0\r\n\r\nmissed ,8, 0\r\n'
    trace = read_trace(write(tmp_path, text))
    assert (trace.first_round, trace.seconds.tolist()) == (7, [[2.5, np.inf]])


BAD = {
    "": "trace must have the header client,round,seconds; the file is empty",
    "client,round,seconds\n": "trace must have at least one row below the header; got none",
    "client,round\n0,1\n": "row 1: header must name the columns client, round, seconds; 'seconds' is missing",
    "client,round,seconds,site\n": "row 1: header must name the columns client, round, seconds and no other; "
    "got 'site'",
    "client,round,round,seconds\n": "row 1: header must name the columns client, round, seconds, each once; "
    "got 'round' 2 times",
    "0,1,2.5\n": "row 1: header must name the columns client, round, seconds and no other; got '0'",
    "client,round,seconds\n0,1\n": "row 2: must have 3 cells; got 2",
    "client,round,seconds\n0.5,1,2\n": "row 2: client must be an integer from 0 to 9999999; got '0.5'",
    "client,round,seconds\n0,1,2\n\nx,1,2\n": "row 4: client must be an integer from 0 to 9999999; got 'x'",
    "client,round,seconds\n-1,1,2\n": "row 2: client must be an integer from 0 to 9999999; got '-1'",
    "client,round,seconds\n0,1.0,2\n": "row 2: round must be an integer from 0 to 9999999; got '1.0'",
    "client,round,seconds\n0,1_0,2\n": "row 2: round must be an integer from 0 to 9999999; got '1_0'",
    "client,round,seconds\n0,99999999999999999999,2\n": "row 2: round must be an integer from 0 to 9999999; "
    "got '99999999999999999999'",
    "client,round,seconds\n0,1,-2\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; got '-2'",
    "client,round,seconds\n0,1,nan\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; got 'nan'",
    "client,round,seconds\n0,1,inf\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; got 'inf'",
    "client,round,seconds\n0,1,\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; got ''",
    "client,round,seconds\n0,1,lost\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; got 'lost'",
    "client,round,seconds\n0,1,2\n0,2,2\n0,1,3\n": "row 4: client 0 in round 1 must be given once; row 2 has it too",
    "client,round,seconds\n0,1,2\n0,2,2\n1,2,3\n": "every client from 0 to 1 needs every round from 1 to 2; "
    "client 1 has no round 1",
    "client,round,seconds\n1,1,2\n": "every client from 0 to 1 needs every round from 1 to 1; client 0 has no round 1",
    "client,round,seconds\n9999999,9999999,2\n": "every client from 0 to 9999999 needs every round from 9999999 to "
    "9999999; client 0 has no round 9999999",
    'client,round,seconds\n0,1,"2\n': "trace must be a CSV file in UTF-8; unexpected end of data",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_bad_traces_name_file_row_and_reason(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        build_fleet({"model": "trace", "trace": path}, seed=1)
    assert str(caught.value) == f"{path}{', ' if message.startswith('row') else ': '}{message}"


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    for trace, message in (
        (str(tmp_path / "none.csv"), "none.csv: trace must be a readable file; No such file or directory"),
        (write(tmp_path, GOOD, "trace.txt"), r"^trace must be a .csv or .parquet file; got '.*trace.txt'"),
        (7, r"^fleet.trace must be the name of a .csv or .parquet file; got 7"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_fleet({"model": "trace", "trace": trace}, seed=1)
    (tmp_path / "latin.csv").write_bytes(b"client,round,seconds\n0,1,\xff\n")
    with pytest.raises(ConfigError, match=r"latin.csv: trace must be a CSV file in UTF-8; 'utf-8' codec"):
        read_trace(tmp_path / "latin.csv")


def test_options_that_do_not_fit_the_trace(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for options, message in (
        ({"clients": 3}, f"{path}: clients must be at most 2, the clients of the trace; got 3"),
        ({"overhead": 1.2}, f"{path}: overhead must be at most the recorded seconds, 1 for client 1; got 1.2"),
        ({"load": 0}, "fleet.load must lie in [1e-09, inf); got 0 for client 0"),
        ({"median": 2}, "fleet.median must be one of "),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            build_fleet({"model": "trace", "trace": path, **options}, seed=1)
    assert build_fleet({"model": "trace", "trace": path, "clients": 1}, seed=1).straggle_prob(9.0, 1) == pytest.approx(
        1 / 3
    )


def test_fleet_files_name_traces_relative_to_themselves(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    fleet = load_fleet(write(tmp_path, 'model = "trace"\ntrace = "trace.csv"\n', "fleet.toml"), seed=1)
    assert fleet.completion_time(1, 3, 1) == 8.0
    path = write(tmp_path, GOOD.replace("1.5", "x"))
    with pytest.raises(ConfigError, match=f"^{re.escape(path)}, row 6: seconds must be a finite number"):
        load_fleet(tmp_path / "fleet.toml", seed=1)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [line.split(",") for line in GOOD.splitlines()[1:]]
    columns = {
        "seconds": [row[2] for row in rows],
        "client": [int(row[0]) for row in rows],
        "round": [int(row[1]) for row in rows],
    }
    path = tmp_path / "trace.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    expected, found = read_trace(write(tmp_path, GOOD)), read_trace(path)
    assert found.first_round == expected.first_round
    assert np.array_equal(found.seconds, expected.seconds)

    for name, values, message in (
        ("seconds", [1.0, 2.0, float("nan"), 4.0, 5.0, 6.0], "row 3: seconds must be a finite number of .*; got nan"),
        ("seconds", [1.0, None, 3.0, 4.0, 5.0, 6.0], "row 2: seconds must be a finite number .*; got None"),
        ("client", [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "row 1: client must be an integer .*; got 0.0"),
        ("round", [1, 2, 2, 1, 2, 3], "row 3: client 0 in round 2 must be given once; row 2 has it too"),
    ):
        parquet.write_table(pyarrow.table({**columns, name: values}), path)
        with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}, {message}"):
            read_trace(path)
    parquet.write_table(pyarrow.table({"client": [0]}), path)
    with pytest.raises(ConfigError, match=r"header: header must name .*; 'round' is missing|header must name"):
        read_trace(path)
    with pytest.raises(ConfigError, match=r"trace must be a Parquet file; "):
        read_trace(write(tmp_path, "no parquet", "broken.parquet"))
    with pytest.raises(ConfigError, match=r"none.parquet: trace must be a readable file; No such file"):
        read_trace(tmp_path / "none.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"reading Parquet files needs pyarrow: pip install 'fedgc\[parquet\]'$"):
        read_trace(tmp_path / "trace.parquet")
