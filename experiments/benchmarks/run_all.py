"""Measure everything anew: the one command behind the tables and figures of the benchmarks.

    .venv/bin/python experiments/benchmarks/run_all.py [--quick] [--out experiments/benchmarks/results]

Takes about an hour on two cores that do nothing else; with --quick a few minutes, in which everything is small and
nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: The benchmarks that write tables and figures, and those that print theirs.
WRITING = ("runtimes/compare.py", "bandwidth.py", "growth.py", "start_up.py")
PRINTING = ("bench_server.py", "bench_round.py", "bench_assignment.py")


def main() -> None:
    """Run one after the other, each in a process of its own and with one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    quick = ["--quick"] if args.quick else []
    commands = [[script, *quick, "--out", str(args.out)] for script in WRITING]
    if not args.quick:
        commands += [[script] for script in PRINTING]
    for script, *options in commands:
        print(f"== {script}", flush=True)
        command = [sys.executable, str(HERE / script), *options]
        subprocess.run(command, check=True, env={"OMP_NUM_THREADS": "1", **os.environ})


if __name__ == "__main__":
    main()
