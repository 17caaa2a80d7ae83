"""A running fleet: a SuperLink and SuperNodes whose processes can be killed and started one by one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bad_network import Link
from certificates import Certificates
from deployment_error import DeploymentError
from node_keys import NodeKey
from processes import is_listening, kill_all, wait_until
from run_app import run_app
from unit import Unit

#: Marks every process of a fleet, and those that Flower starts for it, in their environment.
MARK = "FEDGC_LOOPBACK_FLEET"
#: How flwr names the fleet in its configuration.
CONNECTION = "loopback"
HOST = "127.0.0.1"
#: Seconds in which the SuperLink must open its port.
START = 60.0


@dataclass(frozen=True)
class LoopbackFleet:
    """A running fleet.

    Attributes
    ----------
    logs : Path
        Folder with a log of each process, Flower's home, and certificates and keys if they were made for the fleet.
    port : int
        Port of the SuperLink.
    environment : mapping of str to str
        Environment in which ``flwr`` finds the fleet.
    superlink : Unit
        The SuperLink.
    nodes : tuple of Unit
        The SuperNodes, by partition.
    certificates : Certificates or None
        Those of the SuperLink, None without TLS.
    link : Link or None
        The bad network between the SuperLink and some of the nodes, if there is one.
    """

    logs: Path
    port: int
    environment: Mapping[str, str]
    superlink: Unit
    nodes: tuple[Unit, ...]
    certificates: Certificates | None = None
    link: Link | None = None

    def run(
        self,
        app: Path,
        run_config: str = "",
        timeout: float | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a Flower app to its end; its output is shown, returned, and kept in the logs.

        Its exit code is not 0 unless it completed, see :func:`run_app.run_app`.

        Parameters
        ----------
        app : Path
            The app's folder.
        run_config : str
            What ``flwr run --run-config`` gets.
        timeout : float, optional
            Seconds after which the run is ended.
        on_line : callable
            Called with each line as it comes.
        """
        with (self.logs / "app.log").open("a") as log:

            def keep(line: str) -> None:
                log.write(line)
                on_line(line)

            return run_app(
                app,
                CONNECTION,
                run_config,
                timeout=timeout,
                environment=self.environment,
                on_line=keep,
                logs=f"the logs are in {self.logs}",
            )

    def flwr(self, *arguments: str) -> str:
        """Run another command of flwr to its end and return its output.

        Raises
        ------
        DeploymentError
            If it fails.
        """
        return self._call(["flwr", *arguments])

    def register(self, keys: Sequence[NodeKey]) -> None:
        """Tell the SuperLink nodes' public keys, unless it knows them from its database.

        Raises
        ------
        DeploymentError
            If it does not take one.
        """
        script = Path(__file__).with_name("register.py")
        self._call([sys.executable, str(script), CONNECTION, *(str(key.public) for key in keys)])

    def _call(self, command: list[str]) -> str:
        done = subprocess.run(command, env=dict(self.environment), capture_output=True, text=True, check=False)
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())
            raise DeploymentError(f"{' '.join(command)} fails: {said}")
        return done.stdout

    def kill(self, node: int) -> None:
        """Kill a SuperNode and its client, as a device that loses power; it stays down until it is restarted."""
        self.nodes[node].kill()

    def stop(self, node: int) -> None:
        """Ask a SuperNode to end, so that it takes leave of the SuperLink."""
        self.nodes[node].stop()

    def restart(self, node: int) -> None:
        """Start a SuperNode that is down, with its key and partition.

        With node authentication the SuperLink refuses it for up to a minute after a kill, since it takes the node for
        alive; the unit tries again until it is let in.
        """
        self.nodes[node].start()

    def kill_superlink(self) -> None:
        """Kill the SuperLink and the ServerApps that it runs; it stays down until it is restarted."""
        self.superlink.kill()

    def restart_superlink(self) -> None:
        """Start the SuperLink on the same port and wait for it; with a database it knows its nodes and runs.

        Raises
        ------
        DeploymentError
            If it does not open its port.
        """
        self.superlink.start()
        wait_until(lambda: is_listening(self.port) or self.superlink.pid is None, START)
        if self.superlink.pid is None or not is_listening(self.port):
            raise DeploymentError(
                f"the SuperLink does not open port {self.port} within {START:g} s: {self.superlink.log} tells why"
            )

    def kill_server_app(self) -> list[int]:
        """Kill the processes of the ServerApps that run, and return their ids."""
        return kill_all(f"{MARK}={self.environment[MARK]}", "flwr-serverapp")

    def node_id(self, node: int) -> int | None:
        """Return the id that the SuperLink knows a SuperNode by, None if it has told none since its last start."""
        said = self.nodes[node].log.read_text(errors="replace").rpartition("Starting Flower SuperNode")[-1]
        found = re.search(r"SuperNode ID: (\d+)", said)
        return int(found[1]) if found else None

    def wait_for_nodes(self, seconds: float, nodes: Sequence[int] | None = None) -> None:
        """Wait until SuperNodes, all by default, are known to the SuperLink.

        Raises
        ------
        DeploymentError
            If they are not within so many seconds.
        """
        asked = range(len(self.nodes)) if nodes is None else nodes
        if not wait_until(lambda: all(self.node_id(node) is not None for node in asked), seconds):
            missing = [self.nodes[node].log for node in asked if self.node_id(node) is None]
            raise DeploymentError(
                f"{len(missing)} of {len(asked)} SuperNodes are not let in after {seconds:g} s: {missing[0]} tells why"
            )
