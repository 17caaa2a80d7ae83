"""Does the plan tell the truth? Predictions of ``fedgc plan`` against the virtual-time runtime, on every preset fleet.

Every choice of the plan is played with the runtime's own draws and decoding, without its messages: see
:mod:`fedgc.play`, and tests/test_plan_check.py for that both give the same. Round time and residual error
are compared with what was predicted. The coverages that came about are then replayed on multinomial regression of
scikit-learn's digits, label-sorted shards, with the step tuned for each choice: the observed time to target. A replay
ends once it has taken a quarter longer than the best one so far; the best are run again in other rounds.

    .venv/bin/python experiments/planning/check_plan.py --out results/check_plan.csv [--preset uneven] [--rounds 1000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from digits_replay import STEPS, Digits, Vector
from numpy.typing import NDArray
from plan_errors import batch_standard_error, plan_moments
from run_choices import PreparedChoice, prepare

from fedgc.fleets import Fleet, build_fleet, presets
from fedgc.planning import Choice, FleetPlan, constraints_of, plan_fleet
from fedgc.play import PlayedRounds, RoundDraws
from fedgc.report.rows import write_rows

#: A replay is given up for good once it has taken so many times as long as the best one so far.
_CLOSE = 1.25
#: At most so many choices are run again, beside the recommended one.
_FINALISTS = 6
#: Such a run lasts so many times as long as the best first run.
_GIVEN_UP = 2.0
#: Where absence or slowness persists, more rounds are played, up to so many times as many.
_MOST_TIMES = 6.0
#: Where clients come and go in virtual time, so many seconds are played: 111 sessions of the preset that has some.
_LEAST_SECONDS = 100_000.0


def rounds_for(fleet: Fleet, choice: Choice, rounds: int) -> int:
    """Return how many rounds to play: enough for batches of them to have little to do with each other.

    Where states persist with autocorrelation rho, ``(1 + rho) / (1 - rho)`` rounds tell as much as an independent one.
    """
    own = fleet.parameters
    rho = max(
        float(np.where(own[f"{state}"] > 0.0, own[f"{persistence}"], 0.0).max())
        for state, persistence in (("dropout", "dropout_persistence"), ("slow_prob", "slow_persistence"))
    )
    needed = rounds * min((1.0 + rho) / (1.0 - rho), _MOST_TIMES)
    if np.isfinite(own["session_on"]).any():
        needed = max(needed, _LEAST_SECONDS / choice.round_time)
    return int(np.ceil(needed))


def play(prepared: PreparedChoice, draws: RoundDraws, rounds: int) -> dict[str, Any]:
    """Play a choice and return predictions and observations, with the rounds to replay under "coverage" and "seconds".

    The standard error is the larger one of that from batch means and that which independent rounds would have under the
    plan: losses that never occurred leave no trace in the batches. It tells nothing where it is of the order of the
    error itself.
    """
    choice = prepared.choice
    played = prepared.play(draws, rounds_for(draws.fleet, choice, rounds))
    errors = ((played.coverage - 1.0) ** 2).mean(axis=1)
    _, variance = plan_moments(prepared.decoder, prepared.arrivals)
    spread = batch_standard_error(errors), float(np.sqrt(variance / errors.size))
    return {
        "redundancy": choice.redundancy,
        "schedule": choice.schedule,
        "code": choice.code,
        "decoder": choice.decoder,
        "deadline": choice.deadline,
        "rounds": errors.size,
        "round_time_predicted": choice.round_time,
        "round_time": float(played.seconds.mean()),
        "round_time_standard_error": batch_standard_error(played.seconds),
        "round_time_gap": float(played.seconds.mean() / choice.round_time - 1.0),
        "error_predicted": choice.residual_error,
        "error": float(errors.mean()),
        "error_standard_error_batches": spread[0],
        "error_standard_error_plan": spread[1],
        "error_z": float((errors.mean() - choice.residual_error) / max(*spread, 1e-12 + 1e-9 * choice.residual_error)),
        "relative_predicted": choice.relative_time_to_target,
        "coverage": by_shard(prepared, played),
        "seconds": played.seconds,
    }


def by_shard(prepared: PreparedChoice, played: PlayedRounds) -> Vector:
    """Return coverages by shard: a column of a code of the literature stands for several."""
    return played.coverage.repeat(prepared.candidate.unit, axis=1)


def replay(rows: Sequence[dict[str, Any]], task: Digits, target: float) -> None:
    """Set the observed time to target of each row; the rows come in the order of the predicted one.

    A time of a row that is `proven_worse` is only a lower bound.
    """
    best = np.inf
    for row in rows:
        budget = min(_CLOSE * best, float(row["seconds"].sum()))
        found, _ = task.time_of_soonest(target, row["coverage"], row["seconds"], budget)
        row["proven_worse"] = found == np.inf
        row["time_to_target"] = budget if row["proven_worse"] else found
        best = min(best, found)


def run_again(
    rows: Sequence[dict[str, Any]],
    prepared: Sequence[PreparedChoice],
    draws: RoundDraws,
    *,
    task: Digits,
    target: float,
    runs: int,
) -> None:
    """Run the best rows and the recommended one again, each with the one step that suits its first half of runs best.

    Sets `first_time`, the median time to target of the first half of the runs with the step that suits them best, and
    `last_times`, the times of the last half with that step. What is best by the first half is judged by the last one.
    Medians, since steps of about the size that descent bears at most make single runs erratic. Choices whose coverages
    are the same are run once.
    """
    order = sorted(range(len(rows)), key=lambda index: (rows[index]["proven_worse"], rows[index]["time_to_target"]))
    finalists: dict[bytes, list[int]] = {}
    for index in [*(i for i, row in enumerate(rows) if row["recommended"]), *order]:
        row = rows[index]
        same = finalists.setdefault(row["coverage"][:100].tobytes(), [])
        if row["recommended"] or (not row["proven_worse"] and len(finalists) <= _FINALISTS):
            same.append(index)
    budget = _GIVEN_UP * rows[order[0]]["time_to_target"]
    for members in finalists.values():
        if not members:
            continue
        row, one = rows[members[0]], prepared[members[0]]
        n_rounds = int(budget / row["round_time"])
        times = np.empty((runs, STEPS.size))
        for run in range(runs):
            coverage = by_shard(one, one.play(draws, n_rounds, run=run + 1))
            losses = np.array(list(islice(task.losses(coverage, STEPS), n_rounds)))
            times[run] = row["round_time"] * rounds_until(losses <= target)
        first, last = np.split(times, [runs // 2])
        step = int(np.median(first, axis=0).argmin())
        for index in members:
            rows[index]["first_time"], rows[index]["step"] = float(np.median(first[:, step])), float(STEPS[step])
            rows[index]["last_times"] = last[:, step]


def rounds_until(there: NDArray[np.bool_]) -> Vector:
    """Return the first round at which each column is true, the number of rounds where none is."""
    return np.where(there.any(axis=0), there.argmax(axis=0), there.shape[0]).astype(np.float64)


def check(preset: str, seed: int, args: argparse.Namespace, task: Digits, target: float) -> list[dict[str, Any]]:
    """Compare predictions and observations of every choice on one fleet."""
    began = time.perf_counter()
    # Nobody leaves for good: what a plan says of a round holds while the fleet is the one that it was made for.
    fleet = build_fleet({"preset": preset, "clients": args.clients, "leave_prob": 0.0}, seed=seed)
    plan = plan_fleet(
        fleet,
        n_shards=args.shards,
        redundancies=args.redundancies,
        cover=args.cover,
        noise_sensitivity=args.noise_sensitivity,
        constraints=constraints_of(fleet),
    )
    place = {choice: index for index, choice in enumerate(plan.choices)}
    prepared = sorted(prepare(fleet, plan.choices, args.shards), key=lambda one: place[one.choice])
    draws = RoundDraws(fleet)
    planned = time.perf_counter()
    rows = [play(one, draws, args.rounds) for one in prepared]
    done = time.perf_counter()
    for one, row in zip(prepared, rows, strict=True):
        row["recommended"] = one.choice == plan.recommended
    replay(rows, task, target)
    run_again(rows, prepared, draws, task=task, target=target, runs=args.runs)
    print(
        f"{preset}, seed {seed}: planned in {planned - began:.0f} s, played in {done - planned:.0f} s, "
        f"replayed in {time.perf_counter() - done:.0f} s"
    )
    summarise(plan, rows)
    kept = {"coverage", "seconds", "last_times"}
    names = list(dict.fromkeys(name for row in rows for name in row if name not in kept))
    return [{"preset": preset, "seed": seed, **{name: row.get(name, "") for name in names}} for row in rows]


def summarise(plan: FleetPlan, rows: Sequence[dict[str, Any]]) -> None:
    """Print the worst gaps of a fleet, every choice that is off, and how the recommended choice compares."""
    gaps = np.array([row["round_time_gap"] for row in rows])
    z = np.array([row["error_z"] for row in rows])
    noise = np.array([max(row["error_standard_error_batches"], row["error_standard_error_plan"]) for row in rows])
    blind = noise > np.array([row["error_predicted"] for row in rows]) / 3.0
    for row in rows:
        if abs(row["round_time_gap"]) > 0.1 or abs(row["error_z"]) > 3.0:
            print(
                f"  off: {describe(row)} round time {row['round_time_gap']:+.1%}"
                f" (± {row['round_time_standard_error'] / row['round_time']:.1%}), residual error {row['error']:.4g}"
                f" against {row['error_predicted']:.4g} ({row['error_z']:+.1f} s.e.)"
            )
    finalists = [row for row in rows if "last_times" in row]
    best = min(finalists, key=lambda row: row["first_time"])
    own = next(row for row in finalists if row["recommended"])
    ratio, error = ratio_of_medians(own["last_times"], best["last_times"])
    near = sum(not row["proven_worse"] for row in rows)
    print(
        f"  {len(rows)} choices; round time: worst gap {gaps[np.abs(gaps).argmax()]:+.1%}, {(abs(gaps) > 0.1).sum()} "
        f"beyond 10 %; residual error: {(abs(z) > 3).sum()} ({(abs(z) > 3).mean():.1%}) beyond 3 s.e., worst "
        f"{z[np.abs(z).argmax()]:+.1f}, and {blind.sum()} whose s.e. is above a third of the prediction\n"
        f"  time to target: the recommended {describe(own)} takes {ratio - 1.0:+.1%} (± {error:.1%}) of the best"
        f", {describe(best)}; {near} choices came within a quarter of the best so far\n  {plan.verdict}",
        flush=True,
    )


def ratio_of_medians(times: Vector, others: Vector) -> tuple[float, float]:
    """Return the ratio of the medians of paired samples, and its standard error by the bootstrap."""
    pick = np.random.default_rng(0).integers(times.size, size=(1000, times.size))
    again = np.median(times[pick], axis=1) / np.median(others[pick], axis=1)
    return float(np.median(times) / np.median(others)), float(again.std())


def describe(row: dict[str, Any]) -> str:
    """Return a row's choice in words."""
    return f"{row['redundancy']} x {row['schedule']}, {row['code']}, {row['decoder']}, T = {row['deadline']:.3g}"


def main() -> None:
    """Check the presets and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--shards", type=int, default=80, help="a multiple of the clients")
    parser.add_argument("--redundancies", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--rounds", type=int, default=1000, help="rounds per choice, more where they are correlated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=16, help="more runs of the choices that come close to the best")
    parser.add_argument("--cover", action=argparse.BooleanOptionalAction, default=True, help="see fedgc plan")
    parser.add_argument("--noise-sensitivity", type=float, default=1.0, help="see fedgc plan")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.runs < 4:
        parser.error(f"--runs must be at least 4, two to choose by and two to judge by; got {args.runs}")
    task = Digits(args.shards)
    target = task.loss_of_descent(100)
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        for preset in args.preset or presets():
            rows += check(preset, seed, args, task, target)
            if args.out is not None:
                write_rows(args.out, rows)  # after each fleet, since all of them take hours


if __name__ == "__main__":
    main()
