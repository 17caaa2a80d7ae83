"""A SuperLink is killed in mid-round, then the ServerApp that goes on: only the rounds in flight are lost."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedgc.checkpoint import CheckpointFolder
from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from loopback_fleet import loopback_fleet  # isort: skip

APP = Path(__file__).parent / "deployed_app"
ROUNDS, N_NODES = 4, 2

pytestmark = [pytest.mark.alone, needs_proc]


def trained(output: str) -> list[int]:
    """Return the rounds that were decoded, as the log tells."""
    return [int(number) for number in re.findall(r"round (\d+): \d+ of \d+ clients came in", output)]


def test_a_run_outlives_its_superlink_and_its_server_app(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    config = f"out='{tmp_path}' store='' rounds=0 disturbed-rounds={ROUNDS} deadline=30.0 checkpoints='{folder}'"
    with loopback_fleet(N_NODES, tmp_path / "logs", database=True) as fleet:

        def after(round_done: int, action: str) -> threading.Thread:
            """Do something shortly after a round, so in the middle of the next."""

            def watch() -> None:
                deadline = time.monotonic() + 120.0
                while time.monotonic() < deadline:
                    if folder.is_dir() and round_done in CheckpointFolder(folder).rounds:
                        # Its messages are out by then. A node that was getting one waits a minute for the rest of it.
                        time.sleep(1.5)
                        getattr(fleet, action)()
                        return
                    time.sleep(0.05)

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            return thread

        thread = after(1, "kill_superlink")
        first = fleet.run(APP, config, timeout=150.0)
        thread.join(10.0)
        assert first.returncode != 0
        assert re.search(r"error: the run \d+ has an unknown end, since the SuperLink does not answer", _said(capsys))
        # What the SuperLink had not told yet is not in the log.
        assert trained(first.stdout) in ([], [1]), first.stdout
        last = CheckpointFolder(folder).rounds[-1]
        assert 1 <= last < ROUNDS - 1, first.stdout

        fleet.restart_superlink()
        thread = after(last + 1, "kill_server_app")
        # The SuperLink tells that a run has failed after two heartbeats that do not come. The next one need not wait.
        with ThreadPoolExecutor(1) as pool:
            failing = pool.submit(fleet.run, APP, config, 150.0)
            thread.join(120.0)
            newer = CheckpointFolder(folder).rounds[-1]
            third = fleet.run(APP, config, timeout=150.0)
            second = failing.result()
        assert f"Resumed after round {last};" in second.stdout, second.stdout
        assert second.returncode == 1
        assert re.search(r"error: the run \d+ has failed \(No heartbeat.*\); the logs are in", _said(capsys))
        assert last < newer < ROUNDS, second.stdout

        assert third.returncode == 0, third.stdout
        assert f"Resumed after round {newer};" in third.stdout, third.stdout
        assert trained(third.stdout) == list(range(newer + 1, ROUNDS + 1))
        found = CheckpointFolder(folder).newest()
        assert found is not None
        assert found[0] == ROUNDS
        history = found[1]["run"]["history"]
        assert [report["server_round"] for report in history] == list(range(1, ROUNDS + 1))
        assert all(report["arrived"].any() for report in history)
        assert json.loads((tmp_path / "told.json").read_text())["accuracy"][1] > 0.85


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err
