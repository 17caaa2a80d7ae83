r"""Run flower-supernode so that it ends when it cannot go on, for systemd to start it again.

Flower 1.41 gives up when a TLS handshake fails or takes too long, as one does that is begun while the network is cut.
Its main thread ends then, but a server that it has started keeps the process there, which does nothing any more.

    .venv/bin/python experiments/deployment/watch_supernode.py flower-supernode --superlink localhost:9092 ...
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from types import FrameType

#: What it says when it gives up.
GIVES_UP = "SSL/TLS handshake error detected"
#: Seconds in which it must have ended then.
GRACE = 15.0


def main(command: list[str], grace: float = GRACE) -> int:
    """Run the command, show what it says, and return its exit code; not 0 if it had to be killed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    def end(number: int, frame: FrameType | None) -> None:
        process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)

    def look_after() -> None:
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            print(f"It has given up and is still there after {grace:g} s: killed, to be started again", flush=True)
            process.kill()

    def show() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if GIVES_UP in line:
                threading.Thread(target=look_after, daemon=True).start()

    # Beside it, since its helper may hold the output open for minutes after its end.
    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    code = process.wait()
    shown.join(1.0)
    return abs(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
