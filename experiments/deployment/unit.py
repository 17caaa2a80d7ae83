"""One service of a fleet, kept up as systemd keeps the units beside this file, and killed with all its processes."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import end_all, kill_all, processes_with

#: Seconds before a service that has ended is started again, as in the unit files.
RESTART_SECONDS = 10.0
#: Marks the processes of a unit in their environment.
_MARK = "FEDGC_UNIT"


class Unit:
    """A command that is started again whenever it ends, with all that it has started.

    Parameters
    ----------
    name : str
        Name, different for each unit of this machine.
    command : sequence of str
        Program and arguments.
    log : Path
        File to which all its output is added.
    environment : mapping of str to str
        Environment of the command.
    restart_seconds : float or None
        Seconds between its end and its next start; None for no next start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        restart_seconds: float | None = RESTART_SECONDS,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        #: How often it was started.
        self.starts = 0
        self._mark = f"{_MARK}={name}"
        self._environment = {**environment, _MARK: name}
        self._restart_seconds = restart_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        # Told whenever the unit is started or ended on purpose, so that whoever watches an earlier process lets it be.
        self._generation = 0

    def __repr__(self) -> str:
        """Return name and process id."""
        return f"Unit({self.name!r}, pid={self.pid})"

    @property
    def pid(self) -> int | None:
        """Id of the main process, None if it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process that was started last, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, unless it runs."""
        with self._lock:
            if self.pid is None:
                self._generation += 1
                self._launch()
                threading.Thread(target=self._watch, args=(self._generation,), daemon=True).start()

    def kill(self) -> None:
        """Kill all of its processes at once, as a device that loses power; it stays down until it is started."""
        with self._lock:
            self._generation += 1
            kill_all(self._mark)
            self._reap()

    def stop(self) -> None:
        """Ask it to end, as ``systemctl stop`` does; it stays down until it is started."""
        with self._lock:
            self._generation += 1
            if self.pid is not None and self._process is not None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(10.0)
            end_all(self._mark)
            self._reap()

    def processes(self, command: str = "") -> list[int]:
        """Return the ids of its running processes, of those with `command` in their command line."""
        return processes_with(self._mark, command)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)
        self.starts += 1

    def _watch(self, generation: int) -> None:
        while self._process is not None:
            self._process.wait()
            with self._lock:
                if generation != self._generation:
                    return
                # What a dead SuperNode leaves behind holds nothing but memory, for minutes: a SuperExec without parent.
                kill_all(self._mark)
            if self._restart_seconds is None:
                return
            time.sleep(self._restart_seconds)
            with self._lock:
                if generation != self._generation:
                    return
                self._launch()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
