"""The app in experiments/flower_app in Flower's own Simulation Runtime: SuperLink, Ray and all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.flower_runtime import flower_run, needs_proc

pytestmark = pytest.mark.alone

APP = Path(__file__).parents[1] / "experiments" / "flower_app"


@needs_proc
def test_runs_in_flowers_simulation_runtime(tmp_path: Path) -> None:
    output = flower_run(
        APP,
        *("--federation-config", "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=4"),
        *("--run-config", "num-server-rounds=5 num-clients=4 num-shards=8 deadline=3.0 schedule='work-list'"),
        folder=tmp_path,
    )
    assert re.search(r"start: 4 of 4 nodes answered, with an overhead of [0-9.]+ s in the median", output), output
    line = r"^round (\d+): (\d) of 4 clients came, test accuracy (0\.\d+), ended ([+-]\d+) ms after its deadline"
    rounds = re.findall(line, output, re.MULTILINE)
    assert [int(number) for number, *_ in rounds] == [1, 2, 3, 4, 5], output
    # Some phones of this seed are away, the others get through a part of their lists and are heard of it in time.
    came = [int(count) for _, count, *_ in rounds]
    assert 4 * len(rounds) > sum(came) >= 2 * len(rounds), output
    assert sorted(int(over) for *_, over in rounds)[len(rounds) // 2] < 100, output
    assert float(rounds[-1][2]) > float(rounds[0][2]), output
    assert "Gradient coding, 5 rounds, means over rounds:" in output, output
