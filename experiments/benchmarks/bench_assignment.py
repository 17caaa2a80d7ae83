"""What it takes to choose who holds which shards, by the number of clients.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/benchmarks/bench_assignment.py [--clients 1000 10000 100000]

Clients of the preset `lognormal`, four shards each, two or three holders per shard, twice the deadline by which every
shard can be done once. Told are the seconds of the processor and of the clock, without and with limits: storage for ten
shards, four sites of which a shard is to lie on several, and as many shards as a tenth of the clients tied to these.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from fedgc.assignment import AssignmentConstraints, assign
from fedgc.deadline import cover_time
from fedgc.fleets import build_fleet
from fedgc.planning.timing import AtRound

_SHARDS_PER_CLIENT, _STORAGE, _SITES, _TIED = 4, 10, 4, 10


def limits(n_clients: int) -> AssignmentConstraints:
    """Return the limits of the second line of each size."""
    few = range(n_clients // _TIED)
    return AssignmentConstraints(
        storage=np.full(n_clients, _STORAGE), domain=np.arange(n_clients) % _SITES, residency=[(few, few)]
    )


def main() -> None:
    """Assign and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    args = parser.parse_args()
    for n_clients in args.clients:
        n_shards = _SHARDS_PER_CLIENT * n_clients
        timing = AtRound(build_fleet({"preset": "lognormal", "clients": n_clients}, seed=0), 0)
        deadline = 2.0 * cover_time(timing, n_shards)
        for schedule in ("full", "work-list"):
            reach = timing.reach(deadline, 3 * _SHARDS_PER_CLIENT)
            for name, constraints in (("none", None), ("storage, sites, residency", limits(n_clients))):
                wall, processor = time.perf_counter(), time.process_time()
                found = assign(reach, n_shards, holders=(2, 3), schedule=schedule, constraints=constraints)
                print(
                    f"{n_clients:>8} clients, {schedule:9s}, limits: {name:26s} {time.process_time() - processor:6.2f}"
                    f" s of processor, {time.perf_counter() - wall:6.2f} s; {len(found.blocks)} blocks"
                )


if __name__ == "__main__":
    main()
