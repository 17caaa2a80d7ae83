"""Run a Flower app on a SuperLink, and end as it does: with code 0 only if the run has completed.

``flwr run --stream`` ends with code 0 also if the ServerApp has failed or was killed. This asks the SuperLink how the
run ended, and says so in one line unless it completed:

    .venv/bin/python experiments/deployment/run_app.py experiments/flower_app fleet --run-config "num-clients=8"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from deployment_error import exit_code


def run_app(
    app: Path,
    connection: str,
    run_config: str = "",
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    logs: str = "flwr log shows more",
) -> subprocess.CompletedProcess[str]:
    """Run an app to its end; its output is shown and returned.

    Parameters
    ----------
    app : Path
        The app's folder.
    connection : str
        How Flower's configuration names the SuperLink.
    run_config : str
        What ``flwr run --run-config`` gets.
    timeout : float, optional
        Seconds after which the run is not waited for any more.
    environment : mapping of str to str, optional
        Environment of ``flwr``; that of this process by default.
    on_line : callable
        Called with each line as it comes.
    logs : str
        What to say of where more can be read.

    Returns
    -------
    CompletedProcess
        Its code is 0 only if the run completed; otherwise a line on stderr says how it ended.
    """
    own = dict(os.environ if environment is None else environment)
    command = ["flwr", "run", str(app), connection, "--stream"]
    command += ["--run-config", run_config] if run_config else []
    with subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        # A timer, since a run that hangs prints nothing by which one could look at the clock.
        killer = threading.Timer(threading.TIMEOUT_MAX if timeout is None else timeout, process.kill)
        killer.daemon = True
        killer.start()
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
            on_line(line)
        timed_out = not killer.is_alive()
        killer.cancel()
    output, code = "".join(lines), process.returncode
    how = f"was not over after {timeout:g} s" if timeout is not None and timed_out else None
    how = how or _failure(output, code, connection, own)
    if how is not None:
        print(f"error: the run {how}; {logs}", file=sys.stderr, flush=True)
    return subprocess.CompletedProcess(command, code or int(how is not None), output)


def _failure(output: str, code: int, connection: str, environment: dict[str, str]) -> str | None:
    """Return how a run ended that `flwr run` has told of, None if it completed."""
    started = re.search(r"Successfully started run (\d+)", output)
    if started is None:
        return f"did not start (flwr run ends with code {code})"
    ask = ["flwr", "list", connection, "--run-id", started[1], "--format", "json"]
    done = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False)
    try:
        runs = json.loads(done.stdout).get("runs", [])
    except ValueError:
        runs = []
    if not runs:  # in this format flwr list ends with code 0 also if nobody answers
        return f"{started[1]} has an unknown end, since the SuperLink does not answer"
    (run,) = runs
    if run["status"] == "finished:completed":
        return None if code == 0 else f"{started[1]} completed, but flwr run ends with code {code}"
    _, finished, end = run["status"].rpartition("finished:")
    # Of an error in the ServerApp the SuperLink tells no more than that there was one.
    raised = re.findall(r"^(?:\w+\.)*(\w*Error: .*)$", output, re.MULTILINE)
    why = raised[-1] if raised else run["status-details"]
    details = f" ({why})" if why else ""
    return f"{started[1]} {'has' if finished else 'is'} {end}{details}"


def main() -> int:
    """Run an app and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", type=Path)
    parser.add_argument("connection", help="the SuperLink's name in ~/.flwr/config.toml")
    parser.add_argument("--run-config", default="")
    parser.add_argument("--timeout", type=float, help="seconds after which the run is not waited for any more")
    args = parser.parse_args()
    return run_app(args.app, args.connection, args.run_config, timeout=args.timeout).returncode


if __name__ == "__main__":
    sys.exit(exit_code(main))
