r"""A fleet with TLS and node authentication that is disturbed: nodes are killed, and half of them are cut off.

Runs the quickstart's app in the embedded runtime, on the fleet undisturbed, and on the fleet

- with a random node killed (SIGKILL) in every round, and started again;
- with a network between the server and half of the nodes that delays, loses packets, breaks connections, and is cut.

Says what became of every round, and fails if a round was lost or ended late, if accuracy was, or if what the app has
learnt of its nodes does not show which were disturbed.

    .venv/bin/python experiments/deployment/soak.py --nodes 8 --rounds 10 --cut 60 --out results/soak
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bad_network import BadNetwork
from deployment_error import exit_code
from loopback_fleet import loopback_fleet
from soak_kills import run_with_kills
from soak_network import nodes_behind, run_over_bad_network
from soak_runs import RESTART, Run, app_config, embedded_accuracy, on_the_fleet, requirements

Disturbed = Callable[[], tuple[Run, dict[str, bool]]]


def main() -> int:
    """Run it, print a table for each disturbance, and return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--disturb", nargs="+", choices=["kills", "network"], default=["kills", "network"])
    parser.add_argument("--cut", type=float, default=60.0, help="seconds for which the network is cut")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/soak"))
    args = parser.parse_args()
    config, began = app_config(args.nodes, args.rounds), time.monotonic()
    embedded = embedded_accuracy(config)
    with loopback_fleet(
        args.nodes, args.out, restart_seconds=RESTART, network=BadNetwork(), behind=nodes_behind(args.nodes)
    ) as fleet:
        undisturbed = on_the_fleet(fleet, config, "undisturbed")
        runs: dict[str, Disturbed] = {
            "kills": lambda: run_with_kills(fleet, config, undisturbed, args.seed),
            "network": lambda: run_over_bad_network(fleet, config, undisturbed, args.cut),
        }
        held: dict[str, bool] = {}
        told = {"embedded": embedded, "undisturbed": asdict(undisturbed)}
        for name in args.disturb:
            run, others = runs[name]()
            print(f"accuracy: {run.accuracy:.3f}, {undisturbed.accuracy:.3f} undisturbed, {embedded:.3f} embedded")
            for what, holds in {**requirements(run, undisturbed, embedded), **others}.items():
                print(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}", flush=True)
                held[f"{name}: {what}"] = holds
            told[name] = asdict(run)
            fleet.wait_for_nodes(150.0)
    print(f"{(time.monotonic() - began) / 60:.0f} minutes in all")
    (args.out / "soak.json").write_text(json.dumps({**told, "held": held}, indent=1))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
