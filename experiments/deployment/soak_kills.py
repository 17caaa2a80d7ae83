"""A soak's run with kills: a random node is killed (SIGKILL) in every round, at a random instant, and started again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from fleet import LoopbackFleet
from kills import KillEveryRound
from soak_runs import Run, on_the_fleet, print_rounds


def run_with_kills(
    fleet: LoopbackFleet, config: dict[str, Any], undisturbed: Run, seed: int
) -> tuple[Run, dict[str, bool]]:
    """Run the app, print what became of every round; return that, and what must hold beside what all runs must keep."""
    rng, n_nodes, n_rounds = np.random.default_rng(seed), len(fleet.nodes), len(undisturbed.rounds)
    usual = max(one.seconds for one in undisturbed.rounds)
    kills = KillEveryRound(
        fleet, rng.integers(n_nodes, size=n_rounds).tolist(), rng.uniform(0.0, usual, n_rounds).tolist()
    )
    run = on_the_fleet(fleet, {**config, "deadline": undisturbed.next_deadline}, "kills", on_line=kills)
    print_rounds(run, undisturbed, "killed", {number: f"node {node}" for number, node, _ in kills.killed})
    counts = Counter(node for _, node, _ in kills.killed)
    print(f"killed: {', '.join(f'node {node} {times} times' for node, times in sorted(counts.items()))}")
    print(f"starts of each node, refused ones included: {[node.starts for node in fleet.nodes]}")
    killed = [value for node, value in run.straggle_prob.items() if node in counts]
    spared = [value for node, value in run.straggle_prob.items() if node not in counts]
    return run, {
        "a kill in every round": len(kills.killed) == n_rounds,
        "every killed node counts as less reliable than every other": not spared or min(killed) > max(spared),
    }
