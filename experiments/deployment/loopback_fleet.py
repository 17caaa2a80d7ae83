r"""A fleet on one machine: Flower's own SuperLink and SuperNodes on the loopback interface, brought up and down.

Runs a Flower app on it and shows what the app prints; logs of all processes are in one folder. TLS and node
authentication are on unless `--insecure` is given; certificates and keys are made, or taken from their folders.

    .venv/bin/python experiments/deployment/loopback_fleet.py experiments/flower_app --nodes 4 \
        --run-config "num-clients=4 num-server-rounds=5 deadline=30.0" --logs results/fleet

Without an app the fleet stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bad_network import BadNetwork, bad_network
from certificates import Certificates, make_certificates
from commands import superlink_command, supernode_command
from deployment_error import DeploymentError, exit_code, reason_of
from fleet import CONNECTION, HOST, MARK, START, LoopbackFleet
from node_keys import NodeKey, make_node_key
from own_files import check_certificates, check_node_key, check_port_free
from processes import end_all, free_ports
from unit import RESTART_SECONDS, Unit

#: Seconds in which each SuperNode must have its id, on top.
_START_NODE = 8.0


@contextmanager
def loopback_fleet(
    n_nodes: int,
    logs: Path,
    *,
    secure: bool = True,
    certificates: Path | None = None,
    keys: Path | None = None,
    port: int | None = None,
    database: bool = False,
    restart_seconds: float = RESTART_SECONDS,
    network: BadNetwork | None = None,
    behind: Collection[int] = (),
) -> Iterator[LoopbackFleet]:
    """Bring up a SuperLink and SuperNodes with partitions 0, 1, ..., and end all of them in the end.

    Parameters
    ----------
    n_nodes : int
        Number of SuperNodes.
    logs : Path
        Folder for the logs, made if need be; logs of an earlier fleet are removed.
    secure : bool
        Whether with TLS and node authentication.
    certificates, keys : Path, optional
        Folders of certificates and of the keys ``node-0``, ``node-1``, ... as the scripts beside this one make them;
        made in `logs` if not given.
    port : int, optional
        Port of the SuperLink; a free one by default.
    database : bool
        Whether the SuperLink keeps what it knows in a file in `logs`, and so survives that it is killed.
    restart_seconds : float
        Seconds before a service that has ended by itself is started again.
    network : BadNetwork, optional
        What is between the SuperLink and the SuperNodes of some partitions; the fleet's ``link`` cuts it.
    behind : collection of int
        These partitions.

    Raises
    ------
    DeploymentError
        If something is missing or does not fit, or the SuperLink or the SuperNodes do not come up.
    """
    if n_nodes < 1:
        raise DeploymentError(f"--nodes must be at least 1; got {n_nodes}")
    logs = logs.resolve()
    home = logs / "home"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeploymentError(
            f"--logs must be a folder that can be written; got {logs} ({reason_of(error)})"
        ) from error
    for old in logs.glob("*.log"):
        old.unlink()
    free, proxy, *node_ports = free_ports(2 + n_nodes)
    port = free if port is None else port
    check_port_free(HOST, port)
    files = _certificates(logs, certificates) if secure else None
    pairs = _keys(logs, keys, n_nodes) if secure else []
    (home / "config.toml").write_text(_connection(port, files))
    mark = f"{os.getpid()}-{port}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        # The devices share this machine's processors: threads of one would only wait for those of another.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        MARK: mark,
    }

    def unit(name: str, command: list[str]) -> Unit:
        log = logs / f"{name}.log"
        return Unit(f"{mark}-{name}", command, log=log, environment=environment, restart_seconds=restart_seconds)

    superlink = unit("superlink", superlink_command(port, files, logs / "superlink.db" if database else None))
    nodes = tuple(
        unit(
            f"supernode-{node}",
            supernode_command(
                proxy if node in behind else port,
                node_ports[node],
                f"partition-id={node} num-partitions={n_nodes}",
                files=files,
                key=pairs[node] if secure else None,
            ),
        )
        for node in range(n_nodes)
    )
    stack = ExitStack()
    try:
        link = None if network is None else stack.enter_context(bad_network(proxy, port, network))
        fleet = LoopbackFleet(logs, port, environment, superlink, nodes, files, link)
        fleet.restart_superlink()
        if pairs:
            fleet.register(pairs)
        for one in nodes:
            one.start()
        fleet.wait_for_nodes(START + _START_NODE * n_nodes)
        yield fleet
    finally:
        with ThreadPoolExecutor(1 + n_nodes) as pool:
            list(pool.map(Unit.stop, (superlink, *nodes)))
        end_all(f"{MARK}={mark}")
        stack.close()


def _certificates(logs: Path, folder: Path | None) -> Certificates:
    if folder is None:
        return make_certificates(logs / "certificates", [HOST])
    files = Certificates.in_folder(folder.resolve())
    check_certificates(files, HOST)
    return files


def _keys(logs: Path, folder: Path | None, n_nodes: int) -> list[NodeKey]:
    names = [f"node-{node}" for node in range(n_nodes)]
    if folder is None:
        return [make_node_key(logs / "keys", name) for name in names]
    for name in names:
        check_node_key(folder / name)
        if not (folder / f"{name}.pub").exists():
            raise DeploymentError(f"{folder / name}.pub must be the node's public key, but is missing: put it there")
    return [NodeKey((folder / name).resolve(), (folder / f"{name}.pub").resolve()) for name in names]


def _connection(port: int, files: Certificates | None) -> str:
    trust = "insecure = true" if files is None else f'root-certificates = "{files.authority}"'
    return f'[superlink.{CONNECTION}]\naddress = "{HOST}:{port}"\n{trust}\n'


def main() -> int:
    """Run an app on a fleet of so many nodes and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", type=Path, nargs="?")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--run-config", default="")
    parser.add_argument("--logs", type=Path, default=Path("results/fleet"))
    parser.add_argument("--timeout", type=float, help="seconds after which the run is ended")
    parser.add_argument("--insecure", action="store_true", help="neither TLS nor node authentication")
    parser.add_argument("--certificates", type=Path, help="folder with ca.crt, superlink.crt and superlink.key")
    parser.add_argument("--keys", type=Path, help="folder with node-0, node-0.pub, node-1, ...")
    parser.add_argument("--port", type=int, help="of the SuperLink; a free one by default")
    parser.add_argument("--database", action="store_true", help="the SuperLink keeps its state in a file")
    args = parser.parse_args()
    # So that the fleet goes down with this script; a shell has its background jobs ignore SIGINT.
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    try:
        with loopback_fleet(
            args.nodes,
            args.logs,
            secure=not args.insecure,
            certificates=args.certificates,
            keys=args.keys,
            port=args.port,
            database=args.database,
        ) as fleet:
            if args.app is not None:
                return fleet.run(args.app, args.run_config, args.timeout).returncode
            print(f"{args.nodes} SuperNodes at {HOST}:{fleet.port}, logs in {fleet.logs}; to run an app on them:")
            print(f"FLWR_HOME={fleet.environment['FLWR_HOME']} flwr run APP {CONNECTION} --stream", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
