"""Do work lists cost nothing, and what do they gain? One holder per shard against several, in virtual time.

Every arm works with partial work until the deadline; each takes the deadline that suits it best, and for each deadline
its best step. "by speed" is the plain form of load 1: shares in proportion to speed, in a fixed order. "1" is what
fedgc assigns to one holder: shares that minimise the predicted error, whose shards change places every round. 2, 3 and
5 are its work lists. With and without memory.

    .venv/bin/python experiments/planning/work_lists.py --out results/work_lists.csv [--preset uneven] [--seeds 3]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from digits_replay import STEPS, Digits
from numpy.typing import NDArray

from fedgc.assignment import assign, longest_list, with_backups
from fedgc.codes import WorkLists
from fedgc.deadline import cover_time
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.fleets import Fleet, build_fleet, presets
from fedgc.forecast import arrivals_by_deadline
from fedgc.gram import GramModel
from fedgc.play import RoundDraws, play_rounds
from fedgc.report.rows import write_rows

ARMS = ("by speed", "1", "2", "3", "5")
#: Deadlines, relative to the one by which the fleet can do every shard once.
SHARES = (0.06, 0.12, 0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.3, 1.6)
#: Rounds played, and predicted residual error up to which a deadline is tried: beyond, nothing converged in trials.
ROUNDS, HOPELESS = 1000, 30.0


def shares_by_speed(fleet: Fleet, n_shards: int) -> list[list[list[int]]]:
    """Return every client's shards, their numbers in proportion to its speed, by the largest remainders."""
    pace = [[fleet.draw(client, number).per_shard for number in range(40)] for client in range(fleet.n_clients)]
    # Where times do not grow with the load all clients are alike.
    speed = 1.0 / np.maximum(np.median(pace, axis=1), 1e-9)
    quota = n_shards * speed / speed.sum()
    size = np.floor(quota).astype(int)
    size[np.argsort(size - quota, kind="stable")[: n_shards - size.sum()]] += 1
    ends = np.concatenate(([0], np.cumsum(size)))
    return [[[shard] for shard in range(a, b)] for a, b in itertools.pairwise(ends.tolist())]


def lists_of(arm: str, fleet: Fleet, n_shards: int, deadline: float) -> tuple[WorkLists, NDArray[np.intp]]:
    """Return the arm's code and the clients that have a list."""
    if arm == "by speed":
        lists = shares_by_speed(fleet, n_shards)
        return WorkLists([own for own in lists if own], n_shards), np.flatnonzero([bool(own) for own in lists])
    holders = int(arm)
    reach = fleet.reach(deadline, longest_list(n_shards, fleet.n_clients, holders))
    found = assign(reach, n_shards, holders=holders, schedule="work-list", rng=0)
    code, active = (with_backups(found, reach) if holders > 1 else found).code(segments="shard")
    assert isinstance(code, WorkLists)
    return code, active


def calibrated(fleet: Fleet, code: WorkLists, active: NDArray[np.intp], deadline: float) -> CalibratedDecoder | None:
    """Return the decoder, None if it has no use."""
    lengths = np.zeros(fleet.n_clients, dtype=np.intp)
    lengths[active] = [code.shards_of(client).size for client in range(code.n_clients)]
    reach = fleet.partial_reach(deadline, np.maximum(lengths, 1))[active]
    try:
        decoder = OptimalUnbiasedDecoder().calibrate(
            code, arrivals_by_deadline(code, reach), GramModel.uniform(code.n_shards, 0.0)
        )
    except NoUnbiasedDecoderError:
        return None
    return decoder if decoder.residual_error is not None and decoder.residual_error < HOPELESS else None


def time_to_target(
    task: Digits, coverage: NDArray[np.float64], elapsed: NDArray[np.float64], target: float, memory: bool
) -> float:
    """Return the seconds until the loss of the best step is at the target; infinite if that is later than `elapsed`."""
    for seconds, loss in zip(elapsed, task.losses(coverage, STEPS, memory=memory), strict=False):
        if (loss <= target).any():
            return float(seconds)
        if np.isinf(loss).all():
            break
    return np.inf


def race(preset: str, seed: int, task: Digits, target: float, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield a row for each arm and deadline."""
    fleet = build_fleet({"preset": preset, "clients": args.clients}, seed=seed)
    cover, draws = cover_time(fleet, args.shards), RoundDraws(fleet)
    for arm in ARMS:
        # What cannot be sooner than the arm's best so far need not be run to its end.
        soonest = {(memory, covers): np.inf for memory in (False, True) for covers in (False, True)}
        for share in SHARES:
            code, active = lists_of(arm, fleet, args.shards, share * cover)
            decoder = calibrated(fleet, code, active, share * cover)
            if decoder is None:
                continue
            played = play_rounds(draws, decoder, share * cover, ROUNDS, clients=active)
            elapsed = np.concatenate(([0.0], np.cumsum(played.seconds)))
            for memory in (False, True):
                covers = share >= 1.0
                limit = soonest[memory, covers]
                seconds = time_to_target(task, played.coverage, elapsed[elapsed <= limit], target, memory)
                soonest[memory, covers] = min(limit, seconds)
                yield {
                    "preset": preset,
                    "seed": seed,
                    "memory": memory,
                    "arm": arm,
                    "deadline": share,
                    "residual_error": decoder.residual_error,
                    "time_to_target": seconds,
                }


def best(rows: list[dict[str, object]], arm: str, *, memory: bool, least: float) -> NDArray[np.float64]:
    """Return the arm's time at its best deadline of at least `least` covers, by seed."""
    seeds = sorted({int(str(row["seed"])) for row in rows})
    return np.array(
        [
            min(
                (
                    float(str(row["time_to_target"]))
                    for row in rows
                    if (row["seed"], row["arm"], row["memory"]) == (seed, arm, memory)
                    and float(str(row["deadline"])) >= least
                ),
                default=np.inf,
            )
            for seed in seeds
        ]
    )


def main() -> None:
    """Race the arms on fleets and print how many times as soon as load 1 each is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--descent", type=int, default=100, help="the target is gradient descent's loss by then")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    task = Digits(args.shards)
    target = task.loss_of_descent(args.descent)
    table: list[dict[str, object]] = []
    for preset in args.preset or presets():
        rows = [row for seed in range(1, args.seeds + 1) for row in race(preset, seed, task, target, args)]
        table += rows
        for memory in (False, True):
            for least in (0.0, 1.0):
                times = {arm: best(rows, arm, memory=memory, least=least) for arm in ARMS}
                line = ", ".join(
                    f"{arm} {np.mean(times[arm]):.4g} s x{np.mean(times['by speed'] / times[arm]):.2f}"
                    f" (of one holder x{np.mean(times['1'] / times[arm]):.2f}"
                    f" from {np.min(times['1'] / times[arm]):.2f})"
                    for arm in ARMS
                )
                print(f"{preset}, {'memory' if memory else 'no memory'}, deadlines from {least:g}: {line}", flush=True)
    if args.out is not None:
        write_rows(args.out, table)


if __name__ == "__main__":
    main()
