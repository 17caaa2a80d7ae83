"""Federated averaging on pfl-research's SimulatedBackend, the clients divided between two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from jobs import Job, Rounds, contestant


def play(job: Job) -> Rounds:
    """Do the job: this process is the first, and the second one does `pfl_simulated.py` with another rank."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ["PFL_WORKER_ADDRESSES"] = f"localhost:{port},localhost:{port + 1}"
    command = [sys.executable, str(Path(__file__).with_name("pfl_simulated.py")), job.name]
    command += ["--clients", str(job.clients), "--rounds", str(job.rounds)]
    other = subprocess.Popen(command, env={**os.environ, "PFL_WORKER_RANK": "1"}, stdout=subprocess.DEVNULL)
    try:
        os.environ["PFL_WORKER_RANK"] = "0"
        import pfl_simulated  # noqa: PLC0415  (joins the other as it is imported)

        rounds = pfl_simulated.play(job)
        if other.wait(timeout=60):
            raise RuntimeError(f"the second process ended with {other.returncode}")
        return rounds
    finally:
        other.kill()


if __name__ == "__main__":
    contestant(__doc__, play)
