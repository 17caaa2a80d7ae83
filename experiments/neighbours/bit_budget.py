"""What a budget of bits is worth: variance of the decoded sum in the star code, by how the budget is divided.

Twenty clients that miss the deadline as in the base paper's fleet at tau = 1.5, ten fleets. All send the same sum, an
update of the digits network, rounded to the bits that they are given; the variance of rounding is that of this update,
in closed form, not assumed (``rounding_factors.csv``). The variance of what is decoded, relative to the sum's energy,
is 1 / sum q / (p + omega) with the weights that know the rounding, and sum Y^2 (p + omega) / q with the blind ones Y,
which are best without it.

    .venv/bin/python experiments/neighbours/bit_budget.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedgc.codes import optimal_row_sums
from fedgc.protocol import SHARD_SEED
from fedgc.quantisers import (
    QUANTISERS,
    BitAllocation,
    allocate_bits,
    allocate_bits_by_bisection,
    allocate_bits_exactly,
    equal_bits,
)
from fedgc.report.rows import write_rows
from fedgc.report.style import legend_outside, look_of, plain
from fedgc.report.tables import mean_and_half_width
from fedgc.tasks import build_task

Vector = NDArray[np.float64]

CLIENTS, FLEETS, TAU = 20, 10, 1.5
#: Bits per client on average.
MEANS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
WAYS = ("exact optimum", "prefix method", "the paper's bisection", "equal bits", "equal bits and blind weights")


def update_of_the_digits_network() -> list[Vector]:
    """Return how a pass over one shard changes the model, array by array."""
    task = build_task("digits", seed=1, shards=CLIENTS)
    initial = task.initial_arrays()
    update = task.train_shard(0, initial, ConfigRecord({SHARD_SEED: 1}))
    return [(update.arrays[key].numpy() - initial[key].numpy()).ravel().astype(float) for key in initial]


def factors(quantiser: str, vector: Vector) -> Vector:
    """Return omega(b) of this vector for 0 to 16 bits."""
    return np.array([np.inf, *(QUANTISERS[quantiser](bits).variance_factor(vector) for bits in range(1, 17))])


def variances(straggle_prob: Vector, omega: Vector, budget: int) -> list[float]:
    """Return the relative variance of the decoded sum for each of the ways to divide the budget."""
    found: list[BitAllocation] = [
        divide(straggle_prob, omega, budget)
        for divide in (allocate_bits_exactly, allocate_bits, allocate_bits_by_bisection, equal_bits)
    ]
    sent = omega[found[-1].bits]
    blind = optimal_row_sums(straggle_prob, 1)
    # Who is given no bits sends nothing, and weights that do not know it leave the sum biased: there is no variance.
    blindly = (
        float((blind**2 * (straggle_prob + sent) / (1.0 - straggle_prob)).sum()) if (sent < np.inf).all() else np.inf
    )
    return [*(1.0 / one.objective for one in found), blindly]


def rounding_factors(arrays: list[Vector]) -> list[dict[str, object]]:
    """Return the variance of rounding over the update's energy, all arrays as one vector and each by itself."""
    vector, energy = np.concatenate(arrays), sum(array @ array for array in arrays)
    rows: list[dict[str, object]] = []
    for name, bits in product(QUANTISERS, (2, 4, 8)):
        quantiser = QUANTISERS[name](bits)
        apart = sum(quantiser.variance_factor(array) * (array @ array) for array in arrays) / energy
        as_one = quantiser.variance_factor(vector)
        rows.append(
            {"quantiser": name, "bits": bits, "as_one_vector": f"{as_one:.3g}", "array_by_array": f"{apart:.3g}"}
        )
    return rows


def measure(vector: Vector, seed: int) -> list[dict[str, object]]:
    """Return a row for each quantiser, budget and way: means over the fleets, and the interval of the last."""
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng([seed])
    fleets = [np.exp(-rng.uniform(0.1, 2.0, CLIENTS) * (TAU - 1.0)) for _ in range(FLEETS)]
    for quantiser in QUANTISERS:
        omega = factors(quantiser, vector)
        for mean in MEANS:
            found = np.array([variances(prob, omega, round(mean * CLIENTS)) for prob in fleets])
            exactly = np.array([1.0 / ((1.0 - prob) / prob).sum() for prob in fleets])
            for number, way in enumerate(WAYS):
                ratio = found[:, number] / found[:, 0]
                over, half = mean_and_half_width(ratio)
                rows.append(
                    {
                        "quantiser": quantiser,
                        "bits_per_client": mean,
                        "way": way,
                        "variance": f"{found[:, number].mean():.6g}",
                        "over_no_rounding": f"{(found[:, number] / exactly).mean():.6g}",
                        "over_optimum": f"{over:.6g}",
                        "half_interval": f"{half:.3g}",
                    }
                )
    return rows


def draw(rows: list[dict[str, object]]) -> Figure:
    """Draw the variance, relative to that without rounding, against the bits per client."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    panels = figure.subplots(1, len(QUANTISERS), sharey=True)
    for axes, quantiser in zip(panels, QUANTISERS, strict=True):
        for number, way in enumerate(WAYS):
            chosen = [row for row in rows if (row["quantiser"], row["way"]) == (quantiser, way)]
            axes.plot(MEANS, [float(str(row["over_no_rounding"])) for row in chosen], label=way, **look_of(number))
        axes.set(yscale="log", xlabel="bits per client, on average", title=quantiser)
        plain(axes)
    panels[0].set_ylabel("variance over that without rounding")
    legend_outside(figure, *panels[0].get_legend_handles_labels())
    return figure


def main() -> None:
    """Measure and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    arrays = update_of_the_digits_network()
    write_rows(args.out / "rounding_factors.csv", rounding_factors(arrays))
    rows = measure(np.concatenate(arrays), args.seed)
    write_rows(args.out / "bit_budget.csv", rows)
    draw(rows).savefig(args.out / "bit_budget.png", dpi=150)


if __name__ == "__main__":
    main()
