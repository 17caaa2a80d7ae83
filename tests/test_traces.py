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
    'client,round,seconds\n0,1,2\n0,2,"2\n0,3,"2"\n': "row 3: must be CSV, with quotes closed on their own row; got "
    "unexpected end of data",
    'client,round,seconds\n0,1,"2"x\n0,2,2\n': "row 2: must be CSV, with quotes closed on their own row; got "
    "',' expected after '\"'",
    '"client,round,seconds\n0,1,2\n': "row 1: must be CSV, with quotes closed on their own row; got "
    "unexpected end of data",
    'client,round,seconds\n0,1,2"\n': "row 2: seconds must be a finite number of at least 0, or 'missed'; got '2\"'",
    "client,round,seconds\n0,1,2\n\n0,2,\0\n": "row 4: must be text in UTF-8; got the byte 0x00",
    "client,round,seconds\n\0\0\n0,1,2\n": "row 2: must be text in UTF-8; got the byte 0x00",
    "client,round,seconds\n0,1,\u0663\n": "row 2: seconds must be a finite number of at least 0, or 'missed'; "
    "got '\u0663'",
    f"client,round,seconds\n0,1,{'9' * 200_000}\n": "row 2: must be CSV, with quotes closed on their own row; got "
    "field larger than field limit (131072)",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=map(str, range(len(BAD))))
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
    with pytest.raises(ConfigError, match=r"^trace must be a .csv or .parquet file; got 'a\\x00.csv'$"):
        read_trace("a\0.csv")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}: trace must be|^trace must be a .csv or "):
        read_trace(tmp_path)
    for folder in ("folder.csv", "folder.parquet"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match=r"folder.csv: trace must be a readable file; Is a directory$"):
        read_trace(tmp_path / "folder.csv")


HEADER = b"client,round,seconds\n"
BYTES = {
    "latin": (HEADER + b"0,1,2\n0,2,\xe9\n0,3,2\n", "row 3: must be text in UTF-8; got the byte 0xe9"),
    "far down": (
        HEADER + b"\n" * 9000 + b"0,1,\xff",
        "row 9002: must be text in UTF-8; got the byte 0xff",
    ),
    "old Macintosh": (HEADER[:-1] + b"\r0,1,2\r0,2,\xff\r", "row 3: must be text in UTF-8; got the byte 0xff"),
    "only spaces": (HEADER + b"0,1,2\n\xa0\n", "row 3: must be text in UTF-8; got the byte 0xa0"),
    "cut off": (HEADER + b"0,1,2\n0,2,\xe2\x82", "row 3: must be text in UTF-8; got the byte 0xe2"),
    "surrogates": (HEADER + b"0,1,\xed\xb2\x80\n", "row 2: must be text in UTF-8; got the byte 0xed"),
    "UTF-16": ("client,round,seconds\n0,1,2\n".encode("utf-16-le"), "row 1: must be text in UTF-8; got the byte 0x00"),
    "UTF-16 with a mark": (
        b"\xff\xfe" + "client".encode("utf-16-le"),
        "row 1: must be text in UTF-8; got the byte 0xff",
    ),
}


@pytest.mark.parametrize(("raw", "message"), BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_text_name_file_row_and_byte(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}, {message}')}$"):
        build_fleet({"model": "trace", "trace": str(path)}, seed=1)


def test_text_beyond_ascii_is_text(tmp_path: Path) -> None:
    path = write(tmp_path, "client,round,seconds\n0,1,\u00a02.5\n")
    assert read_trace(path).seconds.tolist() == [[2.5]]


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


def test_a_fleet_file_is_named_if_what_it_names_cannot_be_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shown in (("trace", "'trace'"), ("a\\u0000.csv", r"'a\\x00.csv'"), ("", "'.'")):
        write(tmp_path, f'model = "trace"\ntrace = "{name}"\n', "fleet.toml")
        with pytest.raises(ConfigError, match=rf"^fleet.toml: trace must be a .csv or .parquet file; got {shown}$"):
            load_fleet("fleet.toml", seed=1)


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
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: header must name .*; 'round' is missing$"):
        read_trace(path)
    # Not UTF-8, in a column that says it is text.
    offsets, characters = (pyarrow.py_buffer(raw) for raw in (np.array([0, 1, 2], dtype=np.int32).tobytes(), b"1\xff"))
    text = pyarrow.StringArray.from_buffers(2, offsets, characters)
    parquet.write_table(pyarrow.table({"client": [0, 0], "round": [1, 2], "seconds": text}), path)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}, row 2: must be numbers, or text in UTF-8; "):
        read_trace(path)
    with pytest.raises(ConfigError, match=r"none.parquet: trace must be a readable file; No such file"):
        read_trace(tmp_path / "none.parquet")


def test_broken_parquet_files_are_refused_in_one_line_with_the_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "trace.parquet"
    columns = {"client": [0] * 900, "round": list(range(900)), "seconds": np.linspace(0.0, 1.0, 900)}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=300, compression="zstd")
    whole = path.read_bytes()
    footer = whole.index(b"pandas") if b"pandas" in whole else len(whole) - 200
    broken = {
        "empty": b"",
        "text": GOOD.encode(),
        "no content": b"PAR1 between PAR1",
        **{f"first {size} bytes": whole[:size] for size in range(4, len(whole), 97)},
        "no end": whole[:-1],
        "zeros for data": whole[:4] + bytes(footer // 2) + whole[4 + footer // 2 :],
        "zeros in the footer": whole[:-60] + bytes(40) + whole[-20:],
    }
    for name, raw in broken.items():
        path.write_bytes(raw)
        with pytest.raises(ConfigError) as caught:
            read_trace(path)
        assert str(caught.value).startswith(f"{path}: trace must be a whole Parquet file; "), name
        assert "\n" not in str(caught.value), name
    path.write_bytes(whole)
    assert read_trace(path).seconds.shape == (1, 900)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"reading Parquet files needs pyarrow: pip install 'fedgc\[parquet\]'$"):
        read_trace(tmp_path / "trace.parquet")
