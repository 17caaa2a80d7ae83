"""Convergence stays below its bounds, and residual errors are those predicted, in small versions of the experiments."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

THEORY = Path(__file__).parents[1] / "experiments" / "theory"


def rows_of(script: str, out: Path) -> list[dict[str, str]]:
    """Run a script as its command would, quickly, and return its table."""
    command = [sys.executable, str(THEORY / f"{script}.py"), "--quick", "--out", str(out)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert (out / f"{script}.png").read_bytes().startswith(b"\x89PNG")
    with (out / f"{script}.csv").open() as file:
        return list(csv.DictReader(file))


def test_descent_stays_below_its_bounds(tmp_path: Path) -> None:
    rows = rows_of("bounds", tmp_path)
    groups = {(row["tau"], row["scheme"], row["theorem"]) for row in rows}
    assert len(groups) == 2 * 3 * 3
    for row in rows:
        assert float(row["observed"]) + float(row["half_width"]) <= float(row["bound"]), row
    for group in groups:
        own = [row for row in rows if (row["tau"], row["scheme"], row["theorem"]) == group]
        assert [int(row["round"]) for row in own][:: len(own) - 1] == [1, 100]
        if group[2] != "gradient":
            # It goes down as the bound does, or the bound would be above it for nothing.
            peak = max(float(row["observed"]) for row in own)
            assert float(own[-1]["observed"]) < peak / 20.0, group
    # What is planned to lose less is nearer to the optimum in the end.
    for tau in ("1.1", "1.5"):
        ends = {
            row["scheme"]: (float(row["residual_error"]), float(row["observed"]))
            for row in rows
            if (row["tau"], row["theorem"], row["round"]) == (tau, "distance", "100")
        }
        assert [ends[name] for name in sorted(ends, key=lambda name: ends[name][0])] == sorted(ends.values())
        assert ends["Scheme I, fixed weights"] == max(ends.values(), key=lambda pair: pair[1])


def test_residual_errors_are_those_predicted(tmp_path: Path) -> None:
    rows = rows_of("calibration", tmp_path)
    assert len({row["preset"] for row in rows}) == 7
    assert {row["schedule"] for row in rows} == {"full", "work-list"}
    assert {row["decoder"] for row in rows} == {"fixed", "inverse-probability", "optimal-unbiased"}
    z = np.abs([float(row["error_z"]) for row in rows])
    # 171 choices whose seeds are fixed; normal means go beyond 4 once in a hundred such tests.
    assert len(z) > 150 and z.max() < 4.0
    assert (z > 2.0).mean() < 0.05
    telling = [row for row in rows if row["telling"] == "True"]
    assert len(telling) > 0.7 * len(rows)
    ratio = [float(row["error"]) / float(row["error_predicted"]) for row in telling]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)


def test_the_noise_is_that_of_the_coverages() -> None:
    """The exact covariance is the one that played rounds have, and its trace the planned residual error."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from bounds import SCHEMES, covariance_of
from fedgc.arrivals import IndependentArrivals
from fedgc.decoders import DECODERS
from fedgc.gram import GramModel
from fedgc.schemes import CODES
prob = np.linspace(0.2, 0.7, 12)
arrivals = IndependentArrivals(prob)
for code, rule in SCHEMES.values():
    matrix = CODES[code](prob, 2, np.random.default_rng(0))
    decoder = DECODERS[rule]().calibrate(matrix, arrivals, GramModel.uniform(12, 0.0))
    covariance = covariance_of(decoder, arrivals)
    np.testing.assert_allclose(np.trace(covariance) / 12, decoder.residual_error, rtol=1e-10)
    exact = np.zeros((12, 12))
    for sets, weights in arrivals.sets():
        off = np.array([decoder.decode(one).coverage for one in sets]) - 1.0
        exact += (weights[:, None] * off).T @ off
    np.testing.assert_allclose(covariance, exact, rtol=1e-9, atol=1e-12)
"""
    done = subprocess.run([sys.executable, "-c", script, str(THEORY)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
