"""The app in experiments/flower_app in Flower's own Simulation Runtime: SuperLink, Ray and all."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parents[1] / "experiments" / "flower_app"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes_with(variable: str) -> list[int]:
    """Ids of the processes that were started with this environment variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def flower_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An own Flower home and SuperLink, which is ended with everything that it started."""
    http, control = free_ports(2)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    (tmp_path / "flwr").mkdir()
    yield environment
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        for process in processes_with(f"FLWR_HOME={tmp_path / 'flwr'}"):
            try:
                os.kill(process, attempt)
            except ProcessLookupError:
                continue
        time.sleep(1.0)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds Flower's processes through /proc")
def test_runs_in_flowers_simulation_runtime(flower_environment: dict[str, str]) -> None:
    command = [
        *("flwr", "run", str(APP), "--stream"),
        *("--federation-config", "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=4"),
        *("--run-config", "num-server-rounds=5 num-clients=4 num-shards=8 deadline=3.0 schedule='work-list'"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=flower_environment, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert re.search(r"start: 4 of 4 nodes answered, with an overhead of [0-9.]+ s in the median", output), output
    line = r"^round (\d+): (\d) of 4 clients came, test accuracy (0\.\d+), ended ([+-]\d+) ms after its deadline"
    rounds = re.findall(line, output, re.MULTILINE)
    assert [int(number) for number, *_ in rounds] == [1, 2, 3, 4, 5], output
    # Some phones of this seed are away, the others get through a part of their lists and are heard of it in time.
    came = [int(count) for _, count, *_ in rounds]
    assert 4 * len(rounds) > sum(came) >= 2 * len(rounds), output
    assert sorted(int(over) for *_, over in rounds)[len(rounds) // 2] < 100, output
    assert float(rounds[-1][2]) > float(rounds[0][2]), output
    assert "Gradient coding, 4 rounds, means over rounds:" in output, output
