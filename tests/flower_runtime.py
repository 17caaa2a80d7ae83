"""Flower's Simulation Runtime for a test: an own home and SuperLink, ended with everything that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds Flower's processes through /proc"
)


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


@contextmanager
def flower_environment(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment variables of Flower's commands."""
    http, control = free_ports(2)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    (folder / "flwr").mkdir()
    yield environment
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        for process in processes_with(f"FLWR_HOME={folder / 'flwr'}"):
            try:
                os.kill(process, attempt)
            except ProcessLookupError:
                continue
        time.sleep(1.0)


def flower_run(app: Path, *arguments: str, folder: Path) -> str:
    """Run an app to its end and return what it printed; `folder` is for Flower's own files."""
    command = ["flwr", "run", str(app), "--stream", *arguments]
    with flower_environment(folder) as environment:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output
