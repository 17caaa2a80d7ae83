r"""A hostile client among eight honest ones, in a fleet with TLS and node authentication.

Runs `tests/hostile_app` twice: on the honest nodes alone, then with one more, whose client tries another thing in every
round: forged updates, random bytes, arrays that are giant or say so, NaN, claims to shards that it was not given,
paths, what cannot be read at all. Says how much memory ServerApp and SuperLink have taken at most, and fails if
accuracy is lost, if memory is not bounded, if an honest node is left out, or if the log does not name the hostile one.

    .venv/bin/python experiments/deployment/soak_hostile.py --out results/hostile
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from deployment_error import DeploymentError, exit_code
from fleet import LoopbackFleet
from loopback_fleet import loopback_fleet

APP = Path(__file__).parents[2] / "tests" / "hostile_app"
HONEST = 8
#: In every round another one; the first is that of an honest client.
ATTACKS = ["", "forged", "forged", "random bytes", "giant array", "giant header", "no bytes each", "many parts"]
ATTACKS += ["many records", "many arrays", "NaN", "absurd", "huge metrics", "huge config", "paths", "others' shards"]
ATTACKS += ["more progress", "more examples", "long reason", "not to be read"]
#: Points of accuracy that may be lost, and MB that the ServerApp may take more than before the first attack.
POINTS, MORE_MB = 0.02, 150.0


def peak_mb(process: int) -> float:
    """Return the most memory that a process has ever had resident, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def run_app(fleet: LoopbackFleet, clients: int, attacks: list[str], rounds: int, out: Path) -> tuple[Any, str]:
    """Run the app to its end; return what it tells of every round, and its output.

    Raises
    ------
    DeploymentError
        If it does not complete all rounds.
    """
    out.unlink(missing_ok=True)
    # A TOML string in double quotes, since some names have an apostrophe.
    config = f'num-clients={clients} num-rounds={rounds} num-shards=12 load=3 hostile={HONEST} out="{out}" '
    done = fleet.run(APP, config + f'attacks="{",".join(attacks)}" deadline=150.0')
    told = json.loads(out.read_text()) if out.exists() else []
    if done.returncode or len(told) != rounds + 1:
        raise DeploymentError(f"the run does not complete {rounds} rounds: {fleet.logs} tells why")
    return told, done.stdout


def main() -> int:
    """Run both, print what came of every attack, and return 1 if it did harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=len(ATTACKS))
    parser.add_argument("--out", type=Path, default=Path("results/hostile"))
    args = parser.parse_args()
    out, began = args.out.resolve(), time.monotonic()
    with loopback_fleet(HONEST + 1, out) as fleet:
        hostile = str(fleet.node_id(HONEST))
        fleet.stop(HONEST)
        alone, _ = run_app(fleet, HONEST, [""], args.rounds, out / "alone.json")
        link = fleet.superlink.pid or 0
        before = peak_mb(link)
        fleet.restart(HONEST)
        fleet.wait_for_nodes(60.0)
        told, said = run_app(fleet, HONEST + 1, ATTACKS, args.rounds, out / "told.json")
        after = peak_mb(link)

    print(f"\n{'round':>5} {'attack':>15} {'came':>7} {'accuracy':>9} {'alone':>6} {'MB':>5}  why it was left out")
    for number, (one, other) in enumerate(zip(told[1:], alone[1:], strict=True), start=1):
        why = one["rejected"].get(hostile, "not asked" if one["asked"] == HONEST else "counted")
        print(
            f"{number:>5} {ATTACKS[number - 1] or '-':>15} {one['arrived']:>2} of {one['asked']} "
            f"{one['accuracy']:>9.3f} {other['accuracy']:>6.3f} {one['peak-mb']:>5.0f}  {why[:90]}"
        )
    named = re.findall(rf"round \d+: nodes? .*\b{hostile}\b.*", said)
    print(f"\n{len(named)} lines of the log name the hostile node:", *(line[:150] for line in named), sep="\n  ")
    best, last, grown = alone[-1]["accuracy"], told[-1]["accuracy"], told[-1]["peak-mb"] - told[1]["peak-mb"]
    print(f"accuracy: {last:.3f}, {best:.3f} without the hostile client")
    print(f"most memory of the ServerApp: {told[-1]['peak-mb']:.0f} MB, {alone[-1]['peak-mb']:.0f} MB without it;")
    minutes = (time.monotonic() - began) / 60
    print(f"of the SuperLink: {after:.0f} MB, {before:.0f} MB before; {minutes:.0f} minutes in all")
    held = {
        f"accuracy within {POINTS} of that without the hostile client": best - last <= POINTS,
        f"the ServerApp takes less than {MORE_MB:g} MB more than before the first attack": grown < MORE_MB,
        "no honest node is left out": {node for one in told[1:] for node in one["rejected"]} <= {hostile},
        "the log names the hostile node": bool(named),
    }
    for what, holds in held.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
