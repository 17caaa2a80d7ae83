r"""A fleet with TLS and node authentication in which a random node is killed (SIGKILL) and restarted in every round.

Runs the quickstart's app three times: in the embedded runtime, on the fleet undisturbed, and on the fleet with kills.
Says what became of every round, and fails if a round was lost or ended late, if accuracy was, or if the nodes that the
app takes for the least reliable were not those that were killed.

    .venv/bin/python experiments/deployment/soak.py --nodes 8 --rounds 10 --out results/soak
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from deployment_error import DeploymentError, exit_code
from fleet import LoopbackFleet
from kills import KillEveryRound
from loopback_fleet import loopback_fleet

APP = Path(__file__).parents[1] / "flower_app"
#: Seconds by which a round may end after its deadline, and points of accuracy that may be lost.
OVERSHOOT, POINTS = 0.5, 0.02
#: An undisturbed round may take so many seconds; a disturbed one gets its longest time, so much longer, and some more.
LONG, LONGER, MORE = 150.0, 1.3, 3.0


@dataclass(frozen=True)
class Round:
    """What the app says of a round.

    Attributes
    ----------
    came, asked : int
        Clients.
    seconds, deadline : float
        How long it lasted, and might last.
    accuracy : float
        On the test set, afterwards.
    """

    came: int
    asked: int
    seconds: float
    deadline: float
    accuracy: float


def rounds_in(output: str) -> list[Round]:
    """Return the rounds that the app's output tells of."""
    number = r"([0-9.e+]+)"
    timed = re.findall(rf"round (\d+): (\d+) of (\d+) clients came in {number} of {number} s \(", output)
    scored = dict(re.findall(r"round (\d+): .* came, test accuracy ([0-9.]+), ended", output))
    over = dict(re.findall(r"round (\d+): .* came, test accuracy .*, ended ([+-]\d+) ms after its deadline", output))
    return [
        Round(int(came), int(asked), float(lasted), float(deadline), float(scored[index]))
        if abs(float(lasted) - float(deadline)) > 1.0
        # The log rounds to three digits; the app tells by how many milliseconds.
        else Round(
            int(came), int(asked), float(deadline) + int(over[index]) / 1000.0, float(deadline), float(scored[index])
        )
        for index, came, asked, lasted, deadline in timed
    ]


def embedded_accuracy(config: dict[str, Any]) -> float:
    """Return the app's final accuracy in the embedded runtime."""
    sys.path.insert(0, str(APP))
    from digits_app import client_app, server_app, task  # noqa: PLC0415

    from fedgc.simulation import run_virtual  # noqa: PLC0415

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run_virtual(server_app.app, client_app.app, task.fleet_of(config), run_config=config)
    return float(re.findall(r"test accuracy ([0-9.]+)", said.getvalue())[-1])


def on_the_fleet(fleet: LoopbackFleet, config: dict[str, Any], name: str, **options: Any) -> tuple[str, list[Round]]:  # noqa: ANN401
    """Run the app to its end; return its output and its rounds."""
    text = " ".join(f"{key}={value!r}" for key, value in config.items())
    done = fleet.run(APP, text, **options)
    (fleet.logs / f"{name}.log").write_text(done.stdout)
    rounds = rounds_in(done.stdout)
    if done.returncode or len(rounds) < config["num-server-rounds"]:
        raise DeploymentError(
            f"the {name} run ends after {len(rounds)} of {config['num-server-rounds']} rounds: {fleet.logs} tells why"
        )
    return done.stdout, rounds


def unreliable(output: str) -> dict[int, tuple[int, float]]:
    """Return whom the run's summary names as least reliable: in how many rounds each came, its straggle probability."""
    named = re.findall(r"node (\d+) \(came in (\d+) of \d+; straggle probability ([0-9.]+)\)", output)
    return {int(node): (int(came), float(prob)) for node, came, prob in named}


def main() -> int:
    """Run it, print a table, and return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/soak"))
    args = parser.parse_args()
    config: dict[str, Any] = {
        "num-server-rounds": args.rounds,
        "num-clients": args.nodes,
        "num-shards": 2 * args.nodes,
        "deadline": LONG,
        # Nobody straggles but who is killed.
        "fleet": "lognormal",
        "seconds-per-second": 0.01,
    }
    rng = np.random.default_rng(args.seed)
    defaults = {"load": 2, "decoder": "optimal-unbiased", "schedule": "full", "seed": 1}
    embedded = embedded_accuracy(defaults | config)
    with loopback_fleet(args.nodes, args.out) as fleet:
        ids = [fleet.node_id(node) for node in range(args.nodes)]
        _, undisturbed = on_the_fleet(fleet, config, "undisturbed")
        # The first round is the longest: nodes are sent the app.
        usual = max(one.seconds for one in undisturbed)
        victims = rng.integers(args.nodes, size=args.rounds).tolist()
        kills = KillEveryRound(fleet, victims, rng.uniform(0.0, usual, args.rounds).tolist())
        output, disturbed = on_the_fleet(
            fleet, {**config, "deadline": round(LONGER * usual + MORE, 1)}, "disturbed", on_line=kills
        )
        starts = [node.starts for node in fleet.nodes]

    print(
        f"\n{'round':>5} {'killed':>7} {'came':>7} {'seconds':>8} {'deadline':>9} {'accuracy':>9} {'undisturbed':>12}"
    )
    for index, (one, other) in enumerate(zip(disturbed, undisturbed, strict=True), start=1):
        killed = ", ".join(str(node) for number, node, _ in kills.killed if number == index)
        print(
            f"{index:>5} {killed:>7} {one.came:>4} of {one.asked} {one.seconds:>8.2f} {one.deadline:>9.1f} "
            f"{one.accuracy:>9.3f} {other.accuracy:>12.3f}"
        )
    counts = Counter(node for _, node, _ in kills.killed)
    named = unreliable(output)
    print(f"\nkilled: {', '.join(f'node {node} {times} times' for node, times in sorted(counts.items()))}")
    for node_id, (came, prob) in named.items():
        print(f"least reliable: node {ids.index(node_id)}, came in {came} rounds, straggle probability {prob}")
    print(f"starts of each node, refused ones included: {starts}")
    over = max(one.seconds - one.deadline for one in disturbed)
    last = disturbed[-1].accuracy
    print(f"latest end of a round: {over:+.2f} s after its deadline")
    print(f"accuracy: {last:.3f} with kills, {undisturbed[-1].accuracy:.3f} without, {embedded:.3f} embedded")
    held = {
        "a kill in every round": len(kills.killed) == args.rounds,
        f"rounds end by their deadline and {OVERSHOOT} s": over <= OVERSHOOT,
        "somebody came in every round": all(one.came > 0 for one in disturbed),
        f"undisturbed accuracy within {POINTS} of the embedded runtime's": abs(undisturbed[-1].accuracy - embedded)
        <= POINTS,
        f"accuracy within {POINTS} of the undisturbed run's": undisturbed[-1].accuracy - last <= POINTS,
        "the least reliable nodes are killed ones": bool(named) and {ids.index(node) for node in named} <= set(counts),
    }
    for what, holds in held.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}")
    told = {"disturbed": [asdict(one) for one in disturbed], "undisturbed": [asdict(one) for one in undisturbed]}
    (args.out / "soak.json").write_text(json.dumps({**told, "embedded": embedded, "killed": kills.killed}, indent=1))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
