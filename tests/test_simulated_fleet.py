"""Many nodes in Flower's Simulation Runtime that fail at random: the run completes, and its error is as predicted."""

from __future__ import annotations

from pathlib import Path

from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from simulated_fleet import MOST, run_simulated, standard_errors  # isort: skip

NODES, ROUNDS, FAIL = 80, 12, 0.3


@needs_proc
def test_the_residual_error_is_as_predicted(tmp_path: Path) -> None:
    told = run_simulated(NODES, ROUNDS, FAIL, tmp_path, cpus=2, seed=1)
    assert len(told) == ROUNDS
    came = sum(one["came"] for one in told) / sum(one["asked"] for one in told)
    assert abs(came - (1.0 - FAIL)) < 4.0 * (FAIL * (1.0 - FAIL) / (NODES * ROUNDS)) ** 0.5
    predicted, observed, apart = standard_errors(told)
    assert abs(apart) < MOST, (predicted, observed)
    # Were the failures not learnt of, the prediction would be about none of it.
    assert 0.5 < predicted / observed < 2.0
    assert told[-1]["accuracy"] > 0.8
