r"""Whether the residual error is as predicted when many nodes of Flower's Simulation Runtime fail at random.

Runs `experiments/failing_app`, in which a client raises an error with a probability that the server is not told. Before
each round the strategy predicts, from what it has learnt of who comes and how much updates are alike, how far the
decoded step will be from that of all shards; the app computes the latter and compares. Fails if the run does not
complete, or if the mean of the errors is more than three standard errors from that of the predictions. The first round,
before which nothing has been learnt, is shown and not counted.

    .venv/bin/python experiments/deployment/simulated_fleet.py --nodes 200 --rounds 20 --fail 0.3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from deployment_error import DeploymentError, exit_code
from simulation_runtime import flower_environment

APP = Path(__file__).parents[1] / "failing_app"
#: Standard errors by which predicted and observed may differ.
MOST = 3.0


def run_simulated(nodes: int, rounds: int, fail: float, folder: Path, *, cpus: int, seed: int) -> list[dict[str, Any]]:
    """Run the app to its end and return what it tells of each round.

    Raises
    ------
    DeploymentError
        If it does not complete all rounds.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "rounds.json"
    out.unlink(missing_ok=True)
    config = f"num-clients={nodes} num-server-rounds={rounds} fail-prob={fail} seed={seed} out='{out}'"
    federation = f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={cpus}"
    command = ["flwr", "run", str(APP), "--stream", "--run-config", config, "--federation-config", federation]
    with flower_environment(folder) as environment, (folder / "app.log").open("w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    told: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    if len(told) != rounds:
        raise DeploymentError(f"the run does not complete {rounds} rounds: {folder / 'app.log'} tells why")
    return told


def standard_errors(told: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Return the mean predicted and observed error after round 1, and by how many standard errors they differ."""
    predicted, observed = (np.array([one[name] for one in told[1:]]) for name in ("predicted", "observed"))
    gap = observed - predicted
    return predicted.mean(), observed.mean(), float(gap.mean() / (gap.std(ddof=1) / np.sqrt(gap.size)))


def main() -> int:
    """Run it, print a table, and return 1 if the error is not as predicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fail", type=float, default=0.3, help="probability that a client fails in a round")
    parser.add_argument("--cpus", type=int, default=2, help="processes of the simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/simulated"))
    args = parser.parse_args()
    began = time.monotonic()
    told = run_simulated(args.nodes, args.rounds, args.fail, args.out, cpus=args.cpus, seed=args.seed)
    print(f"{'round':>5} {'came':>10} {'seconds':>8} {'predicted':>10} {'observed':>9} {'accuracy':>9}")
    for number, one in enumerate(told, start=1):
        print(
            f"{number:>5} {one['came']:>3} of {one['asked']:>3} {one['seconds']:>8.2f} {one['predicted']:>10.5f} "
            f"{one['observed']:>9.5f} {one['accuracy']:>9.3f}"
        )
    predicted, observed, apart = standard_errors(told)
    failed = 1.0 - sum(one["came"] for one in told) / sum(one["asked"] for one in told)
    print(f"{failed:.1%} of the replies were errors; {time.monotonic() - began:.0f} s in all")
    print(f"residual error: {predicted:.5f} predicted, {observed:.5f} observed, {apart:+.1f} standard errors apart")
    return 0 if abs(apart) <= MOST else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
