"""The neighbours' systems do in small what their experiments claim."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedgc.experiment.target import Target
from fedgc.report.read import Results, Run

NEIGHBOURS = Path(__file__).parents[1] / "experiments" / "neighbours"


def tables_of(
    script: str, out: Path, *names: str, options: tuple[str, ...] = ("--quick",)
) -> list[list[dict[str, str]]]:
    """Run a script as its command would, quickly, and return its tables."""
    command = [sys.executable, str(NEIGHBOURS / f"{script}.py"), *options, "--out", str(out)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert (out / f"{script}.png").read_bytes().startswith(b"\x89PNG")
    tables = []
    for name in (script, *names):
        with (out / f"{name}.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    return tables


def test_the_optimal_split_is_ahead_of_all_others(tmp_path: Path) -> None:
    (rows,) = tables_of("block_coordinates", tmp_path)
    for clients in ("10", "20"):
        own = {row["scheme"]: row for row in rows if row["clients"] == clients}
        assert len(own) == 10
        least = own.pop("optimum (subgradient)")
        # Over 5000 draws the bound is as loose as the means of single blocks are uncertain.
        assert 0.9 * float(least["runtime"]) < float(least["lower_bound"]) <= float(least["runtime"])
        assert float(least["decoded_off_by"]) < 1e-10
        for name, row in own.items():
            assert float(row["ratio_to_optimum"]) - float(row["ratio_half_width"]) > 1.0, name
            if name.startswith("closed form"):
                assert float(row["ratio_to_optimum"]) < 1.2
            assert sum(map(int, row["coordinates_by_copies"].split())) == 20_000


def test_the_worst_case_order_is_ahead_of_random_orders(tmp_path: Path) -> None:
    rows, whole = tables_of("chunk_order", tmp_path, "chunk_order_cover")
    assert len(whole) == 2 * (4 + 3)
    for row in whole:
        if row["order"] == "worst case":
            assert row["work_while_missing"] == row["least_possible"]
            assert float(row["ratio_to_random"]) + float(row["ratio_half_width"]) < 1.0
        elif row["order"] == "finished lists only":
            assert float(row["ratio_to_random"]) - float(row["ratio_half_width"]) > 1.5
        else:
            assert float(row["work_while_missing"]) >= float(row["least_possible"])
    for holdings in ("cyclic", "blocks"):
        own = {
            order: [row for row in rows if (row["holdings"], row["fleet"], row["order"]) == (holdings, "alike", order)]
            for order in ("random", "worst case")
        }
        for random, best in zip(own["random"], own["worst case"], strict=True):
            assert float(best["least_squares"]) < float(random["least_squares"])
            assert float(best["unbiased"]) < float(random["unbiased"]) or random["unbiased"] == "inf"


def test_the_table_of_bits_for_a_budget_is_what_its_command_writes(tmp_path: Path) -> None:
    rows, factors = tables_of("bit_budget", tmp_path, "rounding_factors", options=())
    with (NEIGHBOURS / "results" / "rounding_factors.csv").open() as file:
        for factor, known in zip(factors, csv.DictReader(file), strict=True):
            assert (factor["quantiser"], factor["bits"]) == (known["quantiser"], known["bits"])
            for key in ("as_one_vector", "array_by_array"):
                assert float(factor[key]) == pytest.approx(float(known[key]), rel=0.01)
    with (NEIGHBOURS / "results" / "bit_budget.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert len(rows) == len(kept) == 3 * 8 * 5
    for row, other in zip(rows, kept, strict=True):
        assert [row[key] for key in ("quantiser", "bits_per_client", "way")] == [
            other[key] for key in ("quantiser", "bits_per_client", "way")
        ]
        for key in ("variance", "over_no_rounding", "over_optimum", "half_interval"):
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-3, abs=1e-9, nan_ok=True)
        assert np.isnan(float(row["half_interval"])) == (row["over_optimum"] == "inf")
        if row["way"] == "prefix method":
            assert float(row["over_optimum"]) == pytest.approx(1.0, abs=1e-12)


def test_who_takes_clients_of_a_site_for_independent_is_biased_and_expects_less_error(tmp_path: Path) -> None:
    (rows,) = tables_of("outages", tmp_path, options=())
    assert len(rows) == 2 * 6 * 2
    for row in rows:
        outage, bias = float(row["outage_prob"]), float(row["bias"])
        predicted, error = float(row["error_predicted"]), float(row["error"])
        if row["taken_for"] == "sites" or outage == 0.0:
            assert bias < 1e-12
            assert predicted == pytest.approx(error, rel=1e-12)
        else:
            assert bias > (0.1 * outage if row["blocks"] == "blocks are sites" else 0.0)
            assert predicted < error


def test_a_run_that_knows_its_sites_expects_what_it_loses(tmp_path: Path) -> None:
    (rows,) = tables_of("outages_learnt", tmp_path)
    known, unknown = rows
    assert (known["sites"], unknown["sites"]) == ("known", "not known")
    assert float(unknown["error"]) > 1.5 * float(unknown["error_predicted"])
    assert float(known["error_predicted"]) > 1.5 * float(unknown["error_predicted"])


def test_exact_errors_are_those_of_played_rounds(tmp_path: Path) -> None:
    """Shards that are missed, counted in rounds of the fleet's own draws; all orders meet the same rounds."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from chunk_order import *
for name, table in FLEETS.items():
    fleet = build_fleet({**table, "clients": 6}, seed=1)
    setting = cyclic(6, 3, 1, np.random.default_rng(0))
    lists = setting.orders[WORST_CASE][0]
    fixed, per_shard = played(fleet, 4000)
    lengths = np.full(6, 3)
    for seconds in (0.7, 1.5, 8.0, 20.0):
        done = done_by(seconds, fixed, per_shard, lengths)
        had = np.zeros((4000, 6), dtype=bool)
        for client, own in enumerate(lists):
            had[:, own] |= done[:, client, None] > np.arange(3)
        assert (had.all(axis=1) == (cover_times(lists, fixed, per_shard, 6) <= seconds)).all()
        exact = missed(lists, fleet.partial_reach(seconds, lengths), 6)
        print(name, seconds, *(float(v) for v in (1.0 - had.mean(axis=0) - exact)), *map(float, exact))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(NEIGHBOURS)], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [np.array(line.split()[2:], dtype=float).reshape(2, 6) for line in done.stdout.splitlines()]
    assert len(lines) == 8
    for off, exact in lines:
        # Rounds of phones are correlated, which at most doubles the standard error.
        assert np.abs(off).max() < 8.0 * np.sqrt(exact * (1.0 - exact) / 4000 + 1e-7).max()
        assert off == pytest.approx(0.0, abs=0.05)


def test_rounds_are_held_against_those_of_the_decoded_square_seed_by_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(NEIGHBOURS))
    module = importlib.import_module("draw_adam")

    def run(method: str, seed: int, rounds: float) -> Run:
        ends = np.array([0.0, rounds])
        nothing = np.full(2, np.nan)
        loss = np.array([2.0, 0.05 if np.isfinite(rounds) else 1.0])
        choice = {"server_learning_rate": "0.2"}
        return Run(method, {}, choice, seed, ends, ends, nothing, loss, *[nothing] * 5)

    decoded, scaled = {1: 50.0, 2: 70.0, 3: 60.0}, {3: 59.0, 1: 47.0, 2: np.inf}
    runs = [run("decoded", *one) for one in decoded.items()] + [run("scaled", *one) for one in scaled.items()]
    results = Results(tmp_path, "adam", Target("loss", 0.1), {}, {}, None, tuple(runs))
    assert module.more_than_decoded(results) == [
        {"second_moment": "scaled", "step": 0.2, "seeds": 2, "rounds_more": -2.0, "half_interval": 12.7}
    ]
