"""Benchmarks in small: their tables have the shape that is told of them, and contestants do the same work."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
#: Contestants that need no further package and no processes of their own.
AT_HAND = ("fedgc_coded", "fedgc_fedavg", "plain_loop", "lean_loop", "fedgc_replay", "vectorised")


def table_of(script: str, out: Path, *options: str) -> list[dict[str, str]]:
    """Run a script as its command would, quickly, and return its table."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *options, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (table,) = out.glob("*.csv")
    with table.open() as file:
        return list(csv.DictReader(file))


def test_contestants_end_at_the_same_loss(tmp_path: Path) -> None:
    rows = table_of("runtimes/compare.py", tmp_path, "--jobs", "J2", "--only", *AT_HAND)
    assert [(row["job"], row["contestant"]) for row in rows] == [("J2", name) for name in AT_HAND]
    losses = [float(row["loss"]) for row in rows]
    assert max(losses) - min(losses) < 1e-5
    assert 0.0 < losses[0] < 2.3, "it has trained"
    for row in rows:
        assert float(row["milliseconds"]) > 0.0
        assert float(row["seconds"]) > 4e-3 * float(row["milliseconds"]) / 2
        if row["contestant"] == "fedgc_fedavg":
            assert float(row["milliseconds_ratio"]) == float(row["seconds_ratio"]) == 1.0
    assert (tmp_path / "runtimes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.alone
def test_peers_end_at_the_same_loss(tmp_path: Path) -> None:
    """Flower's Simulation Runtime, and pfl where it is installed; what is not installed is left out in one line."""
    peers = ("flower_simulation", "pfl_simulated", "pfl_two_processes", "lean_loop")
    rows = table_of("runtimes/compare.py", tmp_path, "--jobs", "J1", "--only", *peers)
    losses = {row["contestant"]: float(row["loss"]) for row in rows}
    assert {"flower_simulation", "lean_loop"} <= losses.keys()
    assert max(losses.values()) - min(losses.values()) < 1e-5


def test_decoding_is_measured_beside_numpy(tmp_path: Path) -> None:
    rows = table_of("bandwidth.py", tmp_path)
    ways = ["fedgc, as replies come", "numpy's weighted sum", "two of these sums", "copy"]
    assert [row["way"] for row in rows] == [*ways, *ways]
    assert {float(row["relative_to_numpy"]) for row in rows if row["way"].startswith("numpy")} == {1.0}


def test_start_up_is_measured(tmp_path: Path) -> None:
    rows = table_of("start_up.py", tmp_path)
    assert [row["command"] for row in rows] == ["fedgc --help", "fedgc run, one round", "import torch, flwr.app"]
    assert all(float(row["seconds"]) > 0.0 for row in rows)


def test_growth_has_an_exponent_for_each_sweep(tmp_path: Path) -> None:
    rows = table_of("growth.py", tmp_path)
    assert {row["by"] for row in rows} == {"clients", "shards", "parameters"}
    for name in {row["what"] for row in rows}:
        small, large = (row for row in rows if row["what"] == name)
        assert int(large["size"]) == 10 * int(small["size"])
        assert small["exponent"] == large["exponent"]
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_bytes_a_round_are_counted_and_the_error_is_measured() -> None:
    small = ["--rounds", "2", "--seeds", "1", "--shards", "20", "--clients", "5"]
    command = [sys.executable, str(BENCHMARKS / "bytes_per_round.py"), *small]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shard" in done.stdout
