r"""A fleet on one machine: Flower's own SuperLink and SuperNodes on the loopback interface, brought up and down.

Runs a Flower app on it and shows what the app prints; logs of all processes are in one folder.

    .venv/bin/python experiments/deployment/loopback_fleet.py experiments/flower_app --nodes 4 \
        --run-config "num-clients=4 num-server-rounds=5 deadline=30.0" --logs results/fleet
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Marks every process of a fleet, and those that Flower starts for it, in their environment.
_MARK = "FEDGC_LOOPBACK_FLEET"
#: Seconds in which a process ends by itself before it is killed.
_GRACE = 5.0
#: Seconds in which the SuperLink must open its port.
_START = 60.0
#: How flwr names the fleet in its configuration.
_CONNECTION = "loopback"


@dataclass(frozen=True)
class LoopbackFleet:
    """A running fleet.

    Attributes
    ----------
    logs : Path
        Folder with a log of each process, and Flower's home.
    port : int
        Port of the SuperLink.
    environment : mapping of str to str
        Environment in which ``flwr`` finds the fleet.
    nodes : tuple of subprocess.Popen
        The SuperNodes, by partition.
    """

    logs: Path
    port: int
    environment: Mapping[str, str]
    nodes: tuple[subprocess.Popen[bytes], ...]

    def run(self, app: Path, run_config: str = "", timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run a Flower app to its end; its output is shown, returned, and kept in the logs."""
        command = ["flwr", "run", str(app), _CONNECTION, "--stream"]
        command += ["--run-config", run_config] if run_config else []
        with subprocess.Popen(
            command, env=dict(self.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            # A timer, since a run that hangs prints nothing by which one could look at the clock.
            killer = threading.Timer(threading.TIMEOUT_MAX if timeout is None else timeout, process.kill)
            killer.daemon = True
            killer.start()
            lines = []
            with (self.logs / "app.log").open("w") as log:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    log.write(line)
                    lines.append(line)
            killer.cancel()
        return subprocess.CompletedProcess(command, process.returncode, "".join(lines))


@contextmanager
def loopback_fleet(n_nodes: int, logs: Path) -> Iterator[LoopbackFleet]:
    """Bring up a SuperLink and SuperNodes with partitions 0, 1, ..., and end all of them in the end.

    Parameters
    ----------
    n_nodes : int
        Number of SuperNodes.
    logs : Path
        Folder for the logs; made if need be.

    Raises
    ------
    RuntimeError
        If the SuperLink does not come up.
    """
    logs.mkdir(parents=True, exist_ok=True)
    home = logs / "home"
    home.mkdir(exist_ok=True)
    port, *node_ports = free_ports(1 + n_nodes)
    (home / "config.toml").write_text(f'[superlink.{_CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    mark = f"{os.getpid()}-{port}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        _MARK: mark,
    }

    def start(name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (logs / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    try:
        link = ["flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        superlink = start("superlink", [*link, "--disable-runtime-dependency-installation"])
        _wait_for(port, superlink, logs / "superlink.log")
        nodes = tuple(
            start(
                f"supernode-{partition}",
                [
                    *("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"),
                    *("--host", "127.0.0.1", "--port", str(node_port)),
                    *("--node-config", f"partition-id={partition} num-partitions={n_nodes}"),
                ],
            )
            for partition, node_port in enumerate(node_ports)
        )
        yield LoopbackFleet(logs, port, environment, nodes)
    finally:
        end_all(f"{_MARK}={mark}")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_all(variable: str) -> None:
    """End every process that was started with this variable in its environment: asked first, then made to."""
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _GRACE
        for process in _processes_with(variable):
            try:
                os.kill(process, attempt)
            except ProcessLookupError:
                continue
        while _processes_with(variable) and time.monotonic() < until:
            time.sleep(0.1)


def _processes_with(variable: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not ended and variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return [process for process in found if process != os.getpid()]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the SuperLink must open port {port}; got nothing in {_START:g} s, see {log}")


def main() -> int:
    """Run an app on a fleet of so many nodes and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--run-config", default="")
    parser.add_argument("--logs", type=Path, default=Path("results/fleet"))
    parser.add_argument("--timeout", type=float, help="seconds after which the run is ended")
    args = parser.parse_args()
    with loopback_fleet(args.nodes, args.logs) as fleet:
        return fleet.run(args.app, args.run_config, args.timeout).returncode


if __name__ == "__main__":
    sys.exit(main())
