"""Processes found by a variable in their environment, which those that they start inherit; and ports."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds in which a process ends by itself before it is killed.
GRACE = 5.0
#: Seconds between looks at something that is waited for.
_POLL = 0.1


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes_with(variable: str, command: str = "") -> list[int]:
    """Return the ids of the running processes with `variable`, as ``name=value``, and `command` in their command line.

    Notes
    -----
    Process groups would do without ``/proc``, but Flower's SuperLink starts its helpers in sessions of their own.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if ended or variable.encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            if command.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [process for process in found if process != os.getpid()]


def kill_all(variable: str, command: str = "") -> list[int]:
    """Kill (SIGKILL) every process that :func:`processes_with` finds, until there is none; return their ids."""
    killed = []
    while found := processes_with(variable, command):  # again, for what they have started meanwhile
        for process in found:
            _send(process, signal.SIGKILL)
        killed += [process for process in found if process not in killed]
        time.sleep(_POLL / 10)
    return killed


def end_all(variable: str) -> None:
    """End every process that was started with this variable in its environment: asked first, then made to."""
    for process in processes_with(variable):
        _send(process, signal.SIGTERM)
    wait_until(lambda: not processes_with(variable), GRACE)
    kill_all(variable)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition comes true within so many seconds."""
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(_POLL)
    return holds


def is_listening(port: int) -> bool:
    """Return whether something listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _send(process: int, what: signal.Signals) -> None:
    try:
        os.kill(process, what)
    except ProcessLookupError:
        return
