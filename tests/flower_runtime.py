"""Flower's Simulation Runtime for a test: an own home and SuperLink, ended with everything that it started."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "deployment"))
from simulation_runtime import flower_environment

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds Flower's processes through /proc"
)


@contextmanager
def flower_run_beside(app: Path, *arguments: str, folder: Path, result: Path) -> Iterator[None]:
    """Run an app beside what the block does; the block's end waits until the app has written its result, whole.

    The run's log, which Flower hands out every few seconds, is asked for only if there is no result.
    """
    command = ["flwr", "run", str(app), "--format", "json", *arguments]
    with flower_environment(folder) as environment:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield
        until = time.monotonic() + 200.0
        while not result.exists() and time.monotonic() < until:
            time.sleep(0.1)
        if not result.exists():
            show = ["flwr", "log", str(json.loads(done.stdout)["run-id"]), "--show"]
            log = subprocess.run(show, capture_output=True, text=True, timeout=60, env=environment, check=False)
            raise AssertionError(log.stdout + log.stderr)


def flower_run(app: Path, *arguments: str, folder: Path) -> str:
    """Run an app to its end and return what it printed; `folder` is for Flower's own files."""
    command = ["flwr", "run", str(app), "--stream", *arguments]
    with flower_environment(folder) as environment:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output
