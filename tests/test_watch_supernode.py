"""A SuperNode that has given up and does not end is ended, and everything else is left to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

SCRIPT = Path(__file__).parents[1] / "experiments" / "deployment" / "watch_supernode.py"
#: What flower-supernode comes to: its main thread has ended, another one has not.
HANGS = """
import threading, time
threading.Thread(target=time.sleep, args=(100.0,)).start()
print("SSL/TLS handshake error detected.", flush=True)
raise SystemExit(0)
"""


def watched(code: str) -> subprocess.Popen[str]:
    program = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import watch_supernode as w; "
    program += f"sys.exit(w.main([sys.executable, '-c', {code!r}], grace=1.0))"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_what_hangs_is_killed_for_systemd_to_start_it_again() -> None:
    began = time.monotonic()
    process = watched(HANGS)
    said, _ = process.communicate(timeout=30.0)
    assert process.returncode == signal.SIGKILL
    assert "still there after 1 s: killed" in said
    assert time.monotonic() - began < 20.0


def test_output_and_exit_code_are_passed_on() -> None:
    process = watched("print('SSL/TLS handshake error detected.'); raise SystemExit(3)")
    said, _ = process.communicate(timeout=30.0)
    assert (said, process.returncode) == ("SSL/TLS handshake error detected.\n", 3)


def test_it_ends_with_its_watcher() -> None:
    process = watched("import time; print('up', flush=True); time.sleep(100.0)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(20.0) == signal.SIGTERM
    process.stdout.close()
