"""Mean runtime of block-coordinate gradient coding against codes with one redundancy and others, by number of clients.

Seconds per unit of work are shifted exponential, 50 + 1000 E, independent among clients and rounds; 20,000 coordinates.
All splits are rounded to whole coordinates and meet the same draws. The means are over fresh draws, which no split was
chosen by; over these draws no split whatever is below the lower bound. At the end a gradient is encoded with the
optimal split and decoded at its runtime, for some of the draws.

    .venv/bin/python experiments/neighbours/block_coordinates.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fedgc.block_coordinates import (
    BlockCoordinateCode,
    ShiftedExponentialTimes,
    best_single_layer,
    equalising_split,
    hierarchical_split,
    mean_runtime_bound,
    optimal_split,
    runtime,
    single_layer,
    two_layers,
    whole_coordinates,
)
from fedgc.report.rows import write_rows
from fedgc.report.style import layout, legend_outside, legend_width, look_of, plain

Array = NDArray[np.float64]

OPTIMUM = "optimum (subgradient)"
#: Of a ratio of two means over the same draws, and of a mean: the normal quantile of a 95 % interval.
_95 = 1.96


def splits(times: ShiftedExponentialTimes, n: int, coordinates: int, *, seed: int, steps: int) -> dict[str, Array]:
    """Return the split of each scheme for n clients."""
    means = times.order_means(n)
    closed = equalising_split(means, coordinates)
    rng = np.random.default_rng([seed, n])
    slowdown = float(means[-1] / means[0])
    # The number of stragglers is not given with the two layers: that of the least mean runtime over draws of its own.
    drawn = times.draw(n, 5000, rng)
    layered = [two_layers(n, coordinates, s, slowdown) for s in range(1, n)]
    return {
        OPTIMUM: optimal_split(
            lambda k, rng: times.draw(n, k, rng), coordinates, start=closed, rng=rng, n_steps=steps, draws_per_step=500
        ),
        "closed form, E[T]": closed,
        "closed form, 1 / E[1 / T]": equalising_split(1.0 / times.order_inverse_means(n), coordinates),
        "single layer, the best": best_single_layer(means, coordinates),
        "Tandon, partial stragglers": min(layered, key=lambda split: float(runtime(split, drawn).mean())),
        "Tandon, s = 1": single_layer(n, coordinates, 1),
        "Tandon, s = N / 2": single_layer(n, coordinates, n // 2),
        "Ferdinand, L layers": hierarchical_split(means, coordinates, coordinates),
        "Ferdinand, 5 layers": hierarchical_split(means, coordinates, 5),
        "uncoded": single_layer(n, coordinates, 0),
    }


def compare(times: ShiftedExponentialTimes, n: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each scheme with n clients."""
    drawn = times.draw(n, args.draws, np.random.default_rng([args.seed, n, 1]))
    sizes = {
        name: whole_coordinates(split, args.coordinates)
        for name, split in splits(times, n, args.coordinates, seed=args.seed, steps=args.steps).items()
    }
    seconds = {name: runtime(own, drawn) for name, own in sizes.items()}
    least = seconds[OPTIMUM]
    bound = mean_runtime_bound(sizes[OPTIMUM], drawn)
    off = decoded_error(sizes[OPTIMUM], drawn[: args.decoded], np.random.default_rng([args.seed, n, 2]))
    rows = []
    for name, own in seconds.items():
        ratio = own.mean() / least.mean()
        rows.append(
            {
                "clients": n,
                "scheme": name,
                "runtime": own.mean(),
                "half_width": _95 * own.std() / np.sqrt(own.size),
                "ratio_to_optimum": ratio,
                "ratio_half_width": _95 * (own - ratio * least).std() / np.sqrt(own.size) / least.mean(),
                "lower_bound": bound,
                "decoded_off_by": off if name == OPTIMUM else "",
                "coordinates_by_copies": " ".join(map(str, sizes[name].tolist())),
            }
        )
    return rows


def decoded_error(sizes: NDArray[np.intp], times: Array, rng: np.random.Generator) -> float:
    """Return how far decoded gradients are off at most, over these rows of times, relative to their largest entry."""
    code = BlockCoordinateCode(sizes, rng=rng)
    worst = 0.0
    for own in times:
        gradients = rng.standard_normal((sizes.size, code.n_coordinates))
        exact = gradients.sum(axis=0)
        sent = np.stack([code.encode(client, gradients) for client in range(sizes.size)])
        done = code.done_at(runtime(sizes, own).item(), own)
        # What has not been sent by then cannot be looked at.
        ends = np.concatenate(([0], np.cumsum(sizes)))[done]
        sent[np.arange(code.n_coordinates) >= ends[:, None]] = np.nan
        worst = max(worst, float(np.abs(code.decode(sent, done) - exact).max() / np.abs(exact).max()))
    return worst


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw mean runtimes, and their ratios to the optimum's, by number of clients."""
    names = list(dict.fromkeys(row["scheme"] for row in rows))
    figure = Figure(figsize=(9.5 + legend_width(names), 4.4), layout=layout())
    left, right = figure.subplots(1, 2)
    looks = {name: {**look_of(index), "ms": 5, "mec": "white", "mew": 0.5} for index, name in enumerate(names)}
    for name in names:
        own = [row for row in rows if row["scheme"] == name]
        clients = [row["clients"] for row in own]
        for axes, value, half in (
            (left, "runtime", "half_width"),
            (right, "ratio_to_optimum", "ratio_half_width"),
        ):
            axes.errorbar(
                clients, [row[value] for row in own], yerr=[row[half] for row in own], capsize=2, **looks[name]
            )
    left.set(yscale="log", xlabel="clients, N")
    left.set_ylabel("mean runtime (seconds)", fontsize=10)
    right.set(yscale="log", xlabel="clients, N")
    right.set_ylabel("ratio to the optimum's", fontsize=10)
    ticks = [1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0]
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.set_yticks([], minor=True)
    for axes in (left, right):
        plain(axes)
        axes.set_xticks(list(dict.fromkeys(row["clients"] for row in rows)))
    legend_outside(figure, [Line2D([], [], **looks[name]) for name in names], names)
    return figure


def main() -> None:
    """Compare, and write block_coordinates.csv and block_coordinates.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 20, 30, 40, 50])
    parser.add_argument("--coordinates", type=int, default=20_000)
    parser.add_argument("--shift", type=float, default=50.0)
    parser.add_argument("--mean", type=float, default=1000.0)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=16_000, help="of the subgradient method")
    parser.add_argument("--decoded", type=int, default=5, help="rounds in which a gradient is encoded and decoded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10 and 20 clients, 5000 draws, 2000 steps, 1 round")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.clients, args.draws, args.steps, args.decoded = args.clients[:2], 5000, 2000, 1
    times = ShiftedExponentialTimes(args.shift, args.mean)
    rows: list[dict[str, Any]] = []
    for n in args.clients:
        own = compare(times, n, args)
        rows += own
        print(f"{n} clients, decoded to within {own[0]['decoded_off_by']:.1e}, bound {own[0]['lower_bound']:.4g} s")
        for row in own:
            print(
                f"  {row['scheme']:<27} {row['runtime']:.4g} ± {row['half_width']:.2g} s"
                f"   x {row['ratio_to_optimum']:.3f} ± {row['ratio_half_width']:.3f}",
                flush=True,
            )
    if args.out is not None:
        write_rows(
            args.out / "block_coordinates.csv",
            [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows],
        )
        draw(rows).savefig(args.out / "block_coordinates.png", dpi=110)


if __name__ == "__main__":
    main()
