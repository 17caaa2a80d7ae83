"""What planning a round and learning from it take, without training and without Flower: by fleet, schedule and rule.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/benchmarks/bench_round.py [--clients 20 200 1000] [--rounds 31]

Clients of the preset `lambda`, as many shards, two copies of each, an update of eight numbers. Told are
milliseconds of processor time: the mean of planning and of learning in the later two thirds of the rounds, and the
worst round of all. Deadlines, lists and fits are thought over after every fifth round only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import WorkLists
from fedgc.deadline import AutomaticDeadline, DeadlineRule, FixedDeadline, QuantileDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.round import CodedUpdate, Planning, RoundPlan, RoundState, finish_round, plan_round

RULES: dict[str, DeadlineRule] = {
    "fixed": FixedDeadline(10.0),
    "quantile": QuantileDeadline(0.7, initial=10.0, longest=60.0),
    "auto": AutomaticDeadline(initial=10.0, longest=60.0),
}
ARRAYS = {"w": np.zeros(8)}


def replies_to(plan: RoundPlan, fleet: Fleet, server_round: int) -> dict[int, CodedUpdate]:
    """Return what clients have done by the deadline: of a work list a part, of a block all or nothing."""
    found, deadline, row = {}, float(plan.deadline or 0.0), 0
    partial = isinstance(plan.code, WorkLists)
    for client, node in enumerate(plan.node_ids):
        draw, shards = fleet.draw(node, server_round, now=60.0 * server_round), plan.code.shards_of(client)
        done, first = int(shards.size), row
        row += done if partial else 1
        if partial:
            done = min(done, int(max(deadline - draw.fixed, 0.0) / max(draw.per_shard, 1e-300)))
        took = draw.completion_time(done)
        if done and took <= deadline:
            sums = dict.fromkeys(range(first, first + (done if partial else 1)), ARRAYS)
            found[client] = CodedUpdate(sums, shards[:done], np.ones(done), took, took - draw.fixed, took - draw.fixed)
    return found


def seconds_of(n_clients: int, schedule: str, rule: DeadlineRule, n_rounds: int) -> NDArray[np.float64]:
    """Return the seconds of planning and of learning, (n_rounds, 2)."""
    fleet = build_fleet({"preset": "lambda", "clients": n_clients}, seed=0)
    planning = Planning(load=2, decoder=OptimalUnbiasedDecoder(), schedule=schedule, deadline=rule)
    state, told = RoundState(np.ones(n_clients)), list[tuple[float, float]]()
    for server_round in range(n_rounds):
        start = time.process_time()
        plan = plan_round(state, range(n_clients), planning)
        planned = time.process_time()
        replies = replies_to(plan, fleet, server_round)
        came = time.process_time()
        state, _ = finish_round(state, plan, replies, arrays=ARRAYS, waited=0.9 * float(plan.deadline or 0.0))
        told.append((planned - start, time.process_time() - came))
    return np.array(told)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 200, 1000])
    parser.add_argument("--schedules", nargs="+", default=["full", "work-list"], choices=["full", "work-list"])
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args(argv)
    print("clients  schedule   deadline  planning ms  learning ms  worst round ms")
    for n_clients in args.clients:
        for schedule in args.schedules:
            for name, rule in RULES.items():
                took = 1e3 * seconds_of(n_clients, schedule, rule, args.rounds)
                plan, learn = took[args.rounds // 3 :].mean(axis=0)
                worst = took.sum(axis=1).max()
                print(f"{n_clients:7d}  {schedule:9s}  {name:8s} {plan:12.1f} {learn:12.1f} {worst:15.1f}", flush=True)


if __name__ == "__main__":
    main()
