"""Clients that go down together, and a decoder that takes them for independent: bias and residual error, exactly.

Twelve clients at four sites, twelve shards in four blocks; a client misses the deadline in 30 % of the rounds in which
its site is up. Blocks either are the sites or have members of three different ones. Each time the optimal unbiased
decoder is calibrated with the sites known, and with independent clients of the same marginal probabilities; what each
then does is enumerated over all 4096 sets of arrivals.

    .venv/bin/python experiments/neighbours/outages.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedgc.arrivals import DomainArrivals, IndependentArrivals
from fedgc.codes import FractionalRepetition
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from fedgc.report.rows import write_rows
from fedgc.report.style import legend_outside, look_of, plain

SITE = np.repeat(np.arange(4), 3)
BLOCKS = {"blocks are sites": SITE, "blocks across sites": np.tile(np.arange(4), 3)}
STRAGGLE_PROB, COHERENCE = 0.3, 0.3
OUTAGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
COLUMNS = ("blocks", "outage_prob", "taken_for", "bias", "error_predicted", "error")


def moments(decoder: CalibratedDecoder, arrivals: DomainArrivals, gram: GramModel) -> tuple[float, float]:
    """Return the largest bias of a shard and the residual error, over all sets of arrivals."""
    mean, error = np.zeros(gram.incoherent.size), 0.0
    for sets, weights in arrivals.sets():
        for arrived, weight in zip(sets, weights, strict=True):
            coverage = decoder.decode(arrived).coverage
            mean += weight * coverage
            error += weight * gram.residual_error(coverage)
    return float(np.abs(mean - 1.0).max()), error


def measure() -> list[dict[str, object]]:
    """Return a row for every kind of blocks, outage probability and calibration."""
    gram, rows = GramModel.uniform(SITE.size, COHERENCE), []
    for name, of_client in BLOCKS.items():
        code = FractionalRepetition(of_client, np.repeat(np.arange(4), 3))
        for outage in OUTAGES:
            truth = DomainArrivals(np.full(SITE.size, STRAGGLE_PROB), SITE, np.full(4, outage))
            for taken_for, model in (("sites", truth), ("independent", IndependentArrivals(1 - truth.row_probability))):
                decoder = OptimalUnbiasedDecoder().calibrate(code, model, gram)
                bias, error = moments(decoder, truth, gram)
                row = name, outage, taken_for, bias, decoder.residual_error, error
                rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def draw(rows: list[dict[str, object]]) -> Figure:
    """Draw bias and residual error against the probability of an outage."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, what, title in zip(panels, ("bias", "error"), ("bias of a shard", "residual error"), strict=True):
        for number, (blocks, taken_for) in enumerate((b, t) for b in BLOCKS for t in ("sites", "independent")):
            chosen = [row for row in rows if (row["blocks"], row["taken_for"]) == (blocks, taken_for)]
            label = f"{blocks}, {'known' if taken_for == 'sites' else 'taken for independent'}"
            axes.plot(OUTAGES, [row[what] for row in chosen], label=label, **look_of(number))
        axes.set_xlabel("probability that a site is down")
        axes.set_title(title)
        axes.set_ylim(bottom=-0.01)
        plain(axes)
    legend_outside(figure, *panels[0].get_legend_handles_labels())
    return figure


def main() -> None:
    """Measure and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = measure()
    write_rows(args.out / "outages.csv", rows)
    draw(rows).savefig(args.out / "outages.png", dpi=150)


if __name__ == "__main__":
    main()
