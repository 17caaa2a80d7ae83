"""Fleet files: presets by name, tables per client, limits, and errors that name file, row and reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.errors import ConfigError
from fedgc.fleets import build_fleet, load_fleet, presets

CLIENTS = """
[[client]]
id = 2
median = 8.0
storage = 40
computation = 4

[[client]]
id = 0
site = 3

[[client]]
id = 1
dropout = 0.5
"""


def write(path: Path, text: str) -> Path:
    (path / "fleet.toml").write_text(text, encoding="utf-8")
    return path / "fleet.toml"


@pytest.mark.parametrize("text", ["{}{}", "[fleet]\n{}{}", "name = 'x'\n[fleet]\n{}[[strategies]]\nkind = 1\n{}"])
def test_clients_have_tables_of_their_own(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text.format('model = "log-normal"\nmedian = 2.0\ndropout = 0.1\n', CLIENTS))
    fleet = load_fleet(path, seed=1)
    assert fleet.n_clients == 3
    assert fleet.parameters["median"].tolist() == [2.0, 2.0, 8.0]
    assert fleet.parameters["dropout"].tolist() == [0.1, 0.5, 0.1]
    limits = {name: None if value is None else value.tolist() for name, value in fleet.limits.items()}
    assert limits == {"storage": [np.inf, np.inf, 40], "computation": [np.inf, np.inf, 4], "site": [3, -1, -1]}


def test_tables_of_some_clients_come_after_groups(tmp_path: Path) -> None:
    text = 'preset = "phones"\nclients = 4\nstorage = 9\n[[groups]]\nshare = 1.0\nmedian = 7.0\n'
    fleet = load_fleet(write(tmp_path, text + "[[client]]\nid = 3\nmedian = 1\n"), seed=1)
    assert fleet.parameters["median"].tolist() == [7.0, 7.0, 7.0, 1.0]
    assert fleet.limits["site"] is None
    assert fleet.limits["storage"] is not None
    assert fleet.limits["storage"].tolist() == [9, 9, 9, 9]
    larger = load_fleet(tmp_path / "fleet.toml", clients=9, seed=1)
    assert larger.parameters["median"].tolist() == [7.0] * 3 + [1.0] + [7.0] * 5


def test_a_file_means_what_its_table_means(tmp_path: Path) -> None:
    fleet = load_fleet(write(tmp_path, 'model = "pareto"\nclients = 3\nalpha = [1, 2, 3]\n'), seed=7)
    table = build_fleet({"model": "pareto", "clients": 3, "alpha": [1, 2, 3]}, seed=7)
    assert [fleet.draw(c, r) for c in range(3) for r in range(5)] == [
        table.draw(c, r) for c in range(3) for r in range(5)
    ]
    for name in presets():
        assert load_fleet(name, clients=3, seed=2).draw(1, 1) == build_fleet(
            {"preset": name, "clients": 3}, seed=2
        ).draw(1, 1)


def test_a_client_without_psi_draws_it_as_all_others_do(tmp_path: Path) -> None:
    text = 'model = "paper"\nclients = 3\n[[client]]\nid = 1\npsi = 9.0\n'
    drawn = build_fleet({"model": "paper", "clients": 3}, seed=5).parameters["psi"]
    assert load_fleet(write(tmp_path, text), seed=5).parameters["psi"].tolist() == [drawn[0], 9.0, drawn[2]]


TOP = 'model = "log-normal"\n'
FULL = f"{TOP}clients = 2\n"
BAD = {
    f"{FULL}speed = 1\n": "speed must be one of change_after, ",
    f"{FULL}colour = 'red'\n": "colour must be one of change_after, ",
    f"{FULL}overhead = -1\n": "overhead must lie in [0, inf); got -1 for client 0",
    f"{FULL}overhead = nan\n": "overhead must not be NaN; got nan",
    f"{FULL}median = [1, nan]\n": "median must not be NaN; got nan for client 1",
    f"{FULL}dropout_persistence = 1.0\n": "dropout_persistence must lie in [0, 1); got 1 for client 0",
    f"{FULL}site = 0.5\n": "site must be an integer; got 0.5 for client 0",
    f"{FULL}session_on = 0\n": "session_on must lie in [0.001, inf); got 0 for client 0",
    f"{FULL}storage = -1\n": "storage must lie in [0, inf); got -1 for client 0",
    f"{FULL}storage = [4, 2.5]\n": "storage must be an integer; got 2.5 for client 1",
    f"{FULL}computation = [4]\n": "computation must be one number, or one for each of 2 clients; got 1 numbers",
    f"{FULL}computation = 'few'\n": "computation must be a number or a list of numbers; got 'few'",
    f"{FULL}site = 'Ulm'\n": "site must be a number or a list of numbers; got 'Ulm'",
    f"{FULL}site = 1e10\n": "site must lie in [-1, 1e+09]; got 1e+10 for client 0",
    f"{FULL}storage = {'9' * 400}\n": "storage must be a number or a list of numbers; "
    f"got {'9' * 60}... (400 characters)",
    f"{FULL}median = [1, -{'9' * 400}]\n": "median must be a number or a list of numbers; got [1, -9999",
    f"{FULL}median = {'9' * 5000}\n": "must be valid TOML; Exceeds the limit (4300 digits) for integer",
    f"{FULL}median = {'[' * 5000}{']' * 5000}\n": "must be valid TOML; got tables or lists nested too deeply",
    f"{FULL}loss_detection = {'9' * 400}\n": "loss_detection must be a finite number above 0; got 9999",
    f"{FULL}[[groups]]\nshare = 0.5\nstorage = -4\n": "groups.0.storage must lie in [0, inf); got -4",
    f"{FULL}[[groups]]\nshare = 0.5\n[[groups]]\nshare = 0.5\ncomputation = 0.5\n": "groups.1.computation must be an "
    "integer; got 0.5",
    f"{FULL}[[groups]]\nshare = 0.5\nsite = [1]\n": "groups.0.site must be a number; got [1]",
    f"{FULL}[[groups]]\nshare = 0.5\nmedian = nan\n": "groups.0.median must not be NaN; got nan",
    f"{FULL}[[groups]]\nshare = 0.5\nmedian = inf\n": "groups.0.median must lie in [0, inf); got inf",
    f"{FULL}[[client]]\nid = 1\nsite = true\n": "client table 1: site must be a number; got True",
    f"{FULL}[[client]]\nid = 1\nmedian = {'9' * 400}\n": "client table 1: median must be a number; got 9999",
    f"{FULL}[[client]]\nid = {'9' * 400}\n": "client table 1: id must be an integer from 0 to 1; got 9999",
    "": "model must be given, or preset in its place; got neither",
    "client = 3\n[fleet]\nmodel = 'pareto'\n": "client must be a list of tables; got 3",
    f"{TOP}": "clients must be an integer from 1 to 10000000; got None",
    f"{FULL}client = 3\n": "client must be a list of tables; got 3",
    f"{TOP}[[client]]\nid = 0\n[[client]]\nid = 0\n": "client table 2: id must be given once; client table 1 has 0 too",
    f"{TOP}[[client]]\nid = 1\n": "client table 1: id must be an integer from 0 to 0; got 1",
    f"{TOP}[[client]]\nmedian = 1\n": "client table 1: id must be an integer from 0 to 0; got None",
    f"{TOP}[[client]]\nid = true\n": "client table 1: id must be an integer from 0 to 0; got True",
    f"{TOP}[[client]]\nid = 0.0\n": "client table 1: id must be an integer from 0 to 0; got 0.0",
    f"{FULL}[[client]]\nid = 1\nspeed = 2\n": "client table 1: speed must be one of change_after, ",
    f"{FULL}[[client]]\nid = 1\n[[client]]\nid = 0\noverhead = -2.0\n": "client table 2: overhead must lie in "
    "[0, inf); got -2",
    f"{FULL}[[client]]\nid = 1\nmedian = nan\n": "client table 1: median must not be NaN; got nan",
    f"{FULL}[[client]]\nid = 1\nmedian = inf\n": "client table 1: median must lie in [0, inf); got inf",
    f"{FULL}[[client]]\nid = 1\nmedian = 'x'\n": "client table 1: median must be a number; got 'x'",
    f"{FULL}[[client]]\nid = 1\nmedian = [1.0]\n": "client table 1: median must be a number; got [1.0]",
    f"{FULL}[[client]]\nid = 1\nstorage = 1.5\n": "client table 1: storage must be an integer; got 1.5",
    f"{FULL}[[client]]\nid = 1\ncomputation = -1\n": "client table 1: computation must lie in [0, inf); got -1",
    f"{FULL}[[client]]\nid = 1\nsite = -2\n": "client table 1: site must lie in [-1, 1e+09]; got -2",
    "fleet = 3\n": "fleet must be a table; got 3",
    "[fleet]\nmodel = 'paper'\n[[fleet.client]]\nid = 0\n[[client]]\nid = 0\n": "client tables must stand in one place",
    "model = \n": "must be valid TOML; Invalid value (at line 1, column 9)",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=map(str, range(len(BAD))))
def test_bad_files_name_file_row_and_reason(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {message}')}") as caught:
        load_fleet(path, seed=1)
    assert "\n" not in str(caught.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"\xef\xbb\xbf" + f"{FULL}median = 3\n".encode())
    assert load_fleet(path, seed=1).parameters["median"].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("source", ["tablets", Path("tablets.toml"), "."])
def test_what_is_neither_preset_nor_file(source: Any) -> None:
    names = ", ".join(sorted(presets()))
    message = f"fleet must be one of the presets {names} or a readable TOML file; got {str(source)!r} ("
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load_fleet(source, clients=3, seed=1)
    with pytest.raises(ConfigError, match=r"^fleet.clients must be an integer from 1 to 10000000; got None$"):
        load_fleet("phones", seed=1)
