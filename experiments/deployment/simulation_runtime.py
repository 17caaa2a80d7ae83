"""Flower's Simulation Runtime for scripts and tests: an own home and SuperLink, ended with all that it has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import end_all, free_ports


@contextmanager
def flower_environment(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment variables of Flower's commands; Flower's own files go into a folder."""
    http, control = free_ports(2)
    home = folder / "flwr"
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    try:
        yield environment
    finally:
        end_all(f"FLWR_HOME={home}")
