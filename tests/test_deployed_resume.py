"""A ServerApp is killed in mid-round, then the SuperLink under it: the run goes on, and only these rounds are lost."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from fedgc.checkpoint import CheckpointFolder
from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from loopback_fleet import loopback_fleet  # isort: skip

APP = Path(__file__).parents[1] / "experiments" / "flower_app"
ROUNDS, N_NODES = 6, 2

pytestmark = [pytest.mark.alone, needs_proc]


def trained(output: str) -> list[int]:
    """Return the rounds that were decoded, as the log tells."""
    return [int(number) for number in re.findall(r"round (\d+): \d+ of \d+ clients came in", output)]


def test_a_run_outlives_its_server_app_and_its_superlink(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    config = (
        f"num-clients={N_NODES} num-shards=4 num-server-rounds={ROUNDS} deadline=4.0 "
        f"seconds-per-second=0.01 checkpoints='{folder}'"
    )
    with loopback_fleet(N_NODES, tmp_path / "logs", database=True) as fleet:

        def after(round_done: int, action: str) -> threading.Thread:
            """Do something shortly after a round, so in the middle of the next."""

            def watch() -> None:
                deadline = time.monotonic() + 200.0
                while time.monotonic() < deadline:
                    if folder.is_dir() and round_done in CheckpointFolder(folder).rounds:
                        time.sleep(0.2)
                        getattr(fleet, action)()
                        return
                    time.sleep(0.05)

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            return thread

        thread = after(2, "kill_server_app")
        first = fleet.run(APP, config, timeout=250.0)
        thread.join(10.0)
        assert trained(first.stdout)[:2] == [1, 2], first.stdout
        last = CheckpointFolder(folder).rounds[-1]
        assert 2 <= last < ROUNDS, first.stdout

        thread = after(last + 1, "kill_superlink")
        second = fleet.run(APP, config, timeout=250.0)
        thread.join(10.0)
        assert f"Resumed after round {last};" in second.stdout, second.stdout
        # What the SuperLink had not told yet is not in the log.
        assert trained(second.stdout) in ([], [last + 1], [last + 1, last + 2]), second.stdout
        newer = CheckpointFolder(folder).rounds[-1]
        assert last < newer < ROUNDS, second.stdout

        fleet.restart_superlink()
        third = fleet.run(APP, config, timeout=250.0)
        assert third.returncode == 0, third.stdout
        assert f"Resumed after round {newer};" in third.stdout, third.stdout
        assert trained(third.stdout) == list(range(newer + 1, ROUNDS + 1))
        found = CheckpointFolder(folder).newest()
        assert found is not None
        assert found[0] == ROUNDS
        assert [report["server_round"] for report in found[1]["run"]["history"]] == list(range(1, ROUNDS + 1))
