"""Orders of work lists: worst case, error over time and time to a full cover, with cyclic holdings and with blocks.

Twenty clients. With cyclic holdings each holds 4 of 20 shards, with blocks three hold a block of 40 shards together.
The orders are random (the mean of ten draws), that of the worst case, and for blocks the one in use, which goes by each
client's speed and was chosen for the deadline by which all shards are expected to be done once. Errors are exact:
shards missed is the error of least squares, the odds of missing them that of the optimal unbiased decoder, both for
incoherent updates of equal energy and one sum per shard. "One sum" is least squares with one sum per client, and the
time to a full cover, both over played rounds; for cyclic holdings beside the time of the gradient code with the same
holdings that looks at finished lists only. Each random order meets rounds of its own where an interval is wanted, and
the interval is that of the means of the orders: it counts orders and draws both.

    .venv/bin/python experiments/neighbours/chunk_order.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fedgc.assignment import assign, work_while_missing, worst_case_bound, worst_case_lists
from fedgc.assignment.build import residual_error_of
from fedgc.deadline import cover_time
from fedgc.fleets import Fleet, build_fleet
from fedgc.report.rows import write_rows
from fedgc.report.style import layout, legend_outside, look_of, plain
from fedgc.report.tables import mean_and_half_width

Array = NDArray[np.float64]
Lists = list[NDArray[np.intp]]

RANDOM, WORST_CASE, IN_USE, SAME = "random", "worst case", "in use (by speed)", "by number"
#: Not an order: a client counts once it has finished its list, as in gradient codes without partial work.
FINISHED = "finished lists only"
#: Fleets: clients that are alike, whose speeds are drawn anew in every round, and clients that are not.
FLEETS: dict[str, dict[str, Any]] = {
    "alike": {"model": "shifted-exponential", "shift": 0.2, "mean": 1.0},
    "phones": {"preset": "phones", "leave_prob": 0.0},
}


@dataclass(frozen=True, eq=False)
class Setting:
    """Holdings and the orders to compare: for each order one or more sets of lists, of which the mean is taken."""

    name: str
    n_shards: int
    block_of_shard: NDArray[np.intp] | None
    orders: dict[str, list[Lists]]


def cyclic(n_clients: int, copies: int, n_random: int, rng: np.random.Generator) -> Setting:
    """Return holdings i, i + 1, ..., as those of cyclic repetition."""
    holdings = [np.sort((np.arange(copies) + client) % n_clients) for client in range(n_clients)]
    orders = {
        RANDOM: [[rng.permutation(own) for own in holdings] for _ in range(n_random)],
        SAME: [holdings],
        WORST_CASE: [worst_case_lists(holdings, n_clients, rng=rng)],
    }
    return Setting("cyclic", n_clients, None, orders)


def blocks(fleet: Fleet, n_shards: int, holders: int, n_random: int, rng: np.random.Generator) -> Setting:
    """Return blocks that are chosen for the fleet, with work lists."""
    reach = fleet.reach(cover_time(fleet, n_shards), n_shards)
    assignment = assign(reach, n_shards, holders=holders, schedule="work-list")
    lists = [own.copy() for own in assignment.lists]
    orders = {
        RANDOM: [[rng.permutation(own) for own in lists] for _ in range(n_random)],
        IN_USE: [lists],
        WORST_CASE: [worst_case_lists(lists, n_shards, rng=rng)],
    }
    return Setting("blocks", n_shards, assignment.block_of_shard, orders)


def missed(lists: Lists, reach: Array, n_shards: int) -> Array:
    """Return the exact probability that nobody has done each shard, (n_shards,)."""
    prob = np.ones(n_shards)
    for client, own in enumerate(lists):
        prob[own] *= 1.0 - reach[client, 1 : own.size + 1]
    return prob


def unbiased_error(prob: Array, block_of_shard: NDArray[np.intp] | None) -> float:
    """Return the residual error of the optimal unbiased decoder; shards of blocks change places in every round."""
    return residual_error_of(prob, np.arange(prob.size) if block_of_shard is None else block_of_shard)


def one_sum_error(lists: Lists, done: NDArray[np.intp], n_shards: int) -> float:
    """Return ``min |A' w - 1|^2`` over the number of shards where each client has sent one sum of what it has done."""
    rows = np.zeros((len(lists), n_shards))
    for client, own in enumerate(lists):
        rows[client, own[: done[client]]] = 1.0
    rows = rows[rows.any(axis=1)]
    if rows.size == 0:
        return 1.0
    weights = np.linalg.lstsq(rows.T, np.ones(n_shards), rcond=None)[0]
    return float(((rows.T @ weights - 1.0) ** 2).mean())


def played(fleet: Fleet, n_rounds: int) -> tuple[Array, Array]:
    """Return seconds before the first shard and per shard, (n_rounds, n_clients); infinite for who is not there."""
    draws = [[fleet.draw(client, number) for client in range(fleet.n_clients)] for number in range(n_rounds)]
    fixed = np.array([[np.inf if draw.leaves_after == 0.0 else draw.fixed for draw in row] for row in draws])
    return fixed, np.array([[draw.per_shard for draw in row] for row in draws])


def done_by(seconds: float, fixed: Array, per_shard: Array, lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many shards each client has done, in each round."""
    done = np.floor(np.maximum(seconds - fixed, 0.0) / per_shard * (1.0 + 1e-12))
    return np.minimum(np.where(np.isfinite(fixed), done, 0.0), lengths).astype(np.intp)


def cover_times(lists: Lists, fixed: Array, per_shard: Array, n_shards: int) -> Array:
    """Return when every shard has a copy, (n_rounds,); infinite if never."""
    first = np.full((fixed.shape[0], n_shards), np.inf)
    for client, own in enumerate(lists):
        ends = fixed[:, client, None] + per_shard[:, client, None] * np.arange(1, own.size + 1)
        first[:, own] = np.minimum(first[:, own], ends)
    return first.max(axis=1)


def compare(
    setting: Setting, fleet_name: str, fleet: Fleet, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each order and time, and one for each order."""
    lengths = np.array([own.size for own in setting.orders[WORST_CASE][0]])
    fixed, per_shard = played(fleet, args.rounds)
    each = {
        order: np.array([cover_times(one, fixed, per_shard, setting.n_shards) for one in kinds])
        for order, kinds in setting.orders.items()
    }
    cover = {order: own.mean(axis=0) for order, own in each.items()}
    if setting.block_of_shard is None:
        # Exact from any n - s finished lists.
        finish = np.sort(fixed + per_shard * lengths, axis=1)
        cover[FINISHED] = finish[:, fleet.n_clients - int(lengths[0])]
    bound = worst_case_bound(setting.orders[WORST_CASE][0], setting.n_shards)
    base = cover[RANDOM]
    covered = np.isfinite(base)
    whole = []
    for order, own in cover.items():
        both = covered & np.isfinite(own)
        ratio = own[both].mean() / base[both].mean()
        # To each random order a part of the rounds, so that their ratios are independent.
        parts = [np.flatnonzero(both)[number :: len(each[RANDOM])] for number in range(len(each[RANDOM]))]
        ratios = [own[part].mean() / one[part].mean() for part, one in zip(parts, each[RANDOM], strict=True)]
        half_width = 0.0 if order == RANDOM else mean_and_half_width(np.array(ratios))[1]
        kinds = setting.orders.get(order, [])
        worst = [int(work_while_missing(one, setting.n_shards).max()) for one in kinds]
        whole.append(
            {
                "holdings": setting.name,
                "fleet": fleet_name,
                "order": order,
                "work_while_missing": np.mean(worst) if worst else "",
                "least_possible": bound if worst else "",
                "rounds_covered": float(np.isfinite(own).mean()),
                "seconds_to_cover": float(own[both].mean()),
                "ratio_to_random": float(ratio),
                "ratio_half_width": float(half_width),
            }
        )
    end = float(np.quantile(cover[RANDOM][covered], 0.9))
    rows = []
    for seconds in end * np.linspace(0.1, 1.4, args.times):
        reach = fleet.partial_reach(seconds, lengths)
        played_done = done_by(seconds, fixed, per_shard, lengths)
        done = played_done[: args.solved]
        for order, kinds in setting.orders.items():
            prob = [missed(one, reach, setting.n_shards) for one in kinds]
            # Each needs a system of equations per round: of many orders each meets a few rounds, no two the same.
            few = -(-len(done) * min(len(kinds), 3) // len(kinds))
            means = [
                [one_sum_error(one, own, setting.n_shards) for own in played_done[number * few :][:few]]
                for number, one in enumerate(kinds)
            ]
            mean, half_width = mean_and_half_width(np.mean(means, axis=1) if len(kinds) > 1 else np.ravel(means))
            rows.append(
                {
                    "holdings": setting.name,
                    "fleet": fleet_name,
                    "order": order,
                    "seconds": float(seconds),
                    "least_squares": float(np.mean(prob)),
                    "unbiased": float(np.mean([unbiased_error(one, setting.block_of_shard) for one in prob])),
                    "one_sum": float(mean),
                    "one_sum_half_width": float(half_width),
                }
            )
        finished = np.where(done == lengths, lengths, 0)
        solved = [one_sum_error(setting.orders[WORST_CASE][0], own, setting.n_shards) for own in finished]
        mean, half_width = mean_and_half_width(np.array(solved))
        rows.append(
            {
                "holdings": setting.name,
                "fleet": fleet_name,
                "order": FINISHED,
                "seconds": float(seconds),
                "least_squares": np.nan,
                "unbiased": np.nan,
                "one_sum": float(mean),
                "one_sum_half_width": float(half_width),
            }
        )
    return rows, whole


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the errors over time: a column for each holdings and fleet, a row for each decoder."""
    columns = list(dict.fromkeys((row["holdings"], row["fleet"]) for row in rows))
    orders = [RANDOM, SAME, WORST_CASE, IN_USE, FINISHED]
    looks = {order: {**look_of(index), "ms": 4, "mec": "white", "mew": 0.5} for index, order in enumerate(orders)}
    figure = Figure(figsize=(3.1 * len(columns) + 0.6, 8.2), layout=layout())
    panels = figure.subplots(3, len(columns), sharex="col", squeeze=False)
    kinds = {
        "least_squares": "shards missed (least squares)",
        "unbiased": "residual error, unbiased",
        "one_sum": "residual error, one sum per client",
    }
    for column, (holdings, fleet) in enumerate(columns):
        for line, (kind, label) in enumerate(kinds.items()):
            axes = panels[line, column]
            for order in orders if kind == "one_sum" else orders[:-1]:
                own = [row for row in rows if (row["holdings"], row["fleet"], row["order"]) == (holdings, fleet, order)]
                axes.plot([row["seconds"] for row in own], [row[kind] for row in own], **looks[order])
            axes.set_yscale("log")
            plain(axes)
            if column == 0:
                axes.set_ylabel(label, fontsize=10)
        panels[0, column].set_title(f"{holdings}, {fleet}", fontsize=10)
        panels[-1, column].set_xlabel("seconds", fontsize=10)
    legend_outside(figure, [Line2D([], [], **looks[order]) for order in orders], orders)
    return figure


def main() -> None:
    """Compare, and write chunk_order.csv, chunk_order_cover.csv and chunk_order.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--copies", type=int, default=4, help="of each shard, with cyclic holdings")
    parser.add_argument("--shards", type=int, default=40, help="in blocks")
    parser.add_argument("--holders", type=int, default=3, help="of each block")
    parser.add_argument("--random", type=int, default=10, help="random orders to take the mean of")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--solved", type=int, default=200, help="rounds in which one sum per client is decoded")
    parser.add_argument("--times", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10 clients, 12 shards, 200 rounds, 5 times")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.clients, args.shards, args.rounds, args.solved, args.times = 10, 12, 200, 40, 5
    rows: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    for fleet_name, table in FLEETS.items():
        fleet = build_fleet({**table, "clients": args.clients}, seed=args.seed)
        rng = np.random.default_rng(args.seed)
        for setting in (
            cyclic(args.clients, args.copies, args.random, rng),
            blocks(fleet, args.shards, args.holders, args.random, rng),
        ):
            own, summary = compare(setting, fleet_name, fleet, args)
            rows += own
            whole += summary
            for row in summary:
                print(
                    f"{row['holdings']:<7} {row['fleet']:<7} {row['order']:<30} Q {row['work_while_missing']!s:>5}"
                    f" of {row['least_possible']!s:<4} covered {row['rounds_covered']:.1%}"
                    f" in {row['seconds_to_cover']:.3f} s, x {row['ratio_to_random']:.3f}"
                    f" ± {row['ratio_half_width']:.3f}",
                    flush=True,
                )
    rows.sort(key=lambda row: row["holdings"] == "blocks")
    if args.out is not None:
        for name, table in (("chunk_order", rows), ("chunk_order_cover", whole)):
            write_rows(
                args.out / f"{name}.csv",
                [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in table],
            )
        draw(rows).savefig(args.out / "chunk_order.png", dpi=110)


if __name__ == "__main__":
    main()
