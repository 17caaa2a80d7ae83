"""How good the predicted chances are to be in time, on every preset: against each client's own past frequency.

Every round is predicted from the rounds before it and then scored: who will have done its load by the deadline, or how
many shards of a work list. The frequency is that of the client's own rounds with the same load and deadline, add-one.
Standard errors are over clients, of the difference.

    .venv/bin/python experiments/planning/time_scores.py [--preset paper] [--case steady] [--out results/scores.csv]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.fleets import Fleet, WorkDraw, build_fleet, presets
from fedgc.report.rows import write_rows
from fedgc.scoring import reliability_diagram

Vector = NDArray[np.float64]
#: One load and deadline, that a quarter or a half of those who are there miss; three deadlines; three loads as well;
#: work lists.
CASES = ("steady", "half late", "deadlines", "loads", "work lists")
LOADS, LIST, MISSED = (1, 2, 4), 6, (0.15, 0.4, 0.65)


@dataclass(frozen=True)
class Rounds:
    """What was predicted and what came of it, each (n_rounds, n_clients, n_events)."""

    predicted: Vector
    frequency: Vector
    happened: NDArray[np.bool_]

    def scores(self) -> dict[str, float]:
        """Return Brier and log scores, what predictions gain, with standard errors, and calibration errors."""
        found: dict[str, float] = {}
        for name, score in (("Brier", _brier), ("log", _log)):
            one, other = score(self.predicted, self.happened), score(self.frequency, self.happened)
            gain = (one - other).mean(axis=(0, 2)) * (1.0 if name == "log" else -1.0)
            found[name], found[f"{name} of frequency"] = float(one.mean()), float(other.mean())
            found[f"{name} gain"] = float(gain.mean())
            found[f"{name} error"] = float(gain.std(ddof=1) / np.sqrt(gain.size))
        diagrams = [reliability_diagram(p.ravel(), self.happened.ravel()) for p in (self.predicted, self.frequency)]
        found["calibration"], found["calibration of frequency"] = (one.calibration_error for one in diagrams)
        # Normal deviations have this mean absolute value if every prediction is right and outcomes are independent.
        chance = np.sqrt(2.0 / np.pi) * np.nan_to_num(diagrams[0].standard_error)
        found["calibration by chance"] = float(chance @ diagrams[0].count / diagrams[0].count.sum())
        return found


def deadline(fleet: Fleet, missed: float, load: int = 2) -> float:
    """Return the seconds that this share misses of those who are there."""
    away = float(fleet.straggle_prob(1e6, load).mean())
    share = away + missed * (1.0 - away)
    return float(brentq(lambda seconds: fleet.straggle_prob(seconds, load).mean() - share, 1e-3, 1e4))


def play(name: str, case: str, *, n_clients: int = 100, n_rounds: int = 60, seed: int = 0) -> Rounds:
    """Play rounds one after the other on a preset, predicting each from those before it."""
    fleet, rng = build_fleet({"preset": name, "clients": n_clients}, seed=seed), np.random.default_rng([seed, 7])
    nodes, now, times = range(n_clients), 0.0, CompletionTimes()
    several = [deadline(fleet, share) for share in MISSED]
    steady = deadline(fleet, {"half late": 0.5, "work lists": 0.4}.get(case, 0.25))
    counts: dict[tuple[int, int, float], list[float]] = {}
    told: list[list[Vector]] = [[], [], []]
    for server_round in range(n_rounds):
        seconds = float(rng.choice(several)) if case in ("deadlines", "loads") else steady
        loads = rng.choice(LOADS, n_clients) if case == "loads" else np.full(n_clients, 2)
        draws = [fleet.draw(client, server_round, now=now) for client in nodes]
        now += seconds
        if case == "work lists":
            events = [np.arange(1, LIST + 1)] * n_clients
            predicted = times.reach(nodes, LIST, seconds)[:, 1:]
            seen = [_partial(client, draw, seconds) for client, draw in enumerate(draws)]
        else:
            events = [np.array([load]) for load in loads]
            predicted = times.in_time_prob(nodes, loads, seconds)[:, None]
            seen = [_whole(client, draw, int(loads[client]), seconds) for client, draw in enumerate(draws)]
        done = [0 if one.censored else int(one.shards) for one in seen]
        happened = np.array([own <= reached for own, reached in zip(events, done, strict=True)])
        own = [[counts.setdefault((i, int(k), seconds), [1.0, 2.0]) for k in events[i]] for i in nodes]
        frequency = np.array([[hits / tries for hits, tries in row] for row in own])
        for row, came in zip(own, happened, strict=True):
            for count, hit in zip(row, came, strict=True):
                count[0] += float(hit)
                count[1] += 1.0
        if server_round > 0:
            for part, value in zip(told, (predicted, frequency, happened), strict=True):
                part.append(value)
        times = times.update(seen)
    return Rounds(np.array(told[0]), np.array(told[1]), np.array(told[2], dtype=np.bool_))


def _whole(client: int, draw: WorkDraw, load: int, seconds: float) -> TimeObservation:
    """Tell when all of the load was done, or that it was not."""
    took = draw.completion_time(load)
    return TimeObservation(client, load, min(took, seconds), censored=took > seconds)


def _partial(client: int, draw: WorkDraw, seconds: float) -> TimeObservation:
    """Tell what is done of the list by the deadline, if the client is there then, and the fixed part."""
    left = seconds - draw.fixed
    done = LIST if left >= LIST * draw.per_shard else max(int(left / max(draw.per_shard, 1e-300)), 0)
    end = draw.fixed + done * draw.per_shard
    if draw.leaves_after < (end if done == LIST else seconds):
        return TimeObservation(client, 1, seconds, censored=True)
    if not done:
        return TimeObservation(client, 1, seconds, censored=True, complete=False, there=True)
    fixed = draw.fixed if draw.fixed < end else None
    return TimeObservation(client, done, end, fixed_seconds=fixed, complete=False)


def _brier(prob: Vector, happened: NDArray[np.bool_]) -> Vector:
    return (prob - happened) ** 2


def _log(prob: Vector, happened: NDArray[np.bool_]) -> Vector:
    inside = np.clip(prob, 1e-6, 1.0 - 1e-6)
    return np.where(happened, np.log(inside), np.log1p(-inside))


def main(argv: Sequence[str] | None = None) -> None:
    """Score the presets and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    rows = []
    print(f"{'preset':13s} {'case':10s}   Brier   freq.      log    freq.     gain  (error) calibration (freq.)")
    for name in args.preset or presets():
        for case in args.case or CASES:
            found = play(name, case, n_clients=args.clients, n_rounds=args.rounds, seed=args.seed).scores()
            rows.append({"preset": name, "case": case, **found})
            print(
                f"{name:13s} {case:10s} {found['Brier']:7.4f} {found['Brier of frequency']:7.4f} {found['log']:8.4f}"
                f" {found['log of frequency']:8.4f} {found['log gain']:+8.4f} ({found['log error']:.4f})"
                f" {found['calibration']:.3f} ({found['calibration of frequency']:.3f})",
                flush=True,
            )
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
