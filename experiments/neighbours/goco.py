"""Decentralised learning with stragglers: GOCO, decentralised SGD, and settled weights of least variance.

l2-regularised multinomial regression of digits (strong convexity 0.01), shards sorted by label, twenty nodes with
random places on a ring, in a random geometric graph, or joined each with each. All methods of a cell meet the same
shards, graph, assignment and draws of the fleet; steps, deadlines and loads are chosen for each on seeds of their own.
What is shown is the excess loss F(x_i) - F*, the mean over all nodes, with 95 % intervals over seeds, and its
ratio to that of GOCO, seed by seed.

By rounds: the base paper's stragglers at tau 1.5 (60 % miss a round on average), four holders for every shard, or one;
in the long run five times as many, where bias shows, of three methods on the same redundant shards.
By virtual seconds: three fleets, on which waiting, deadlines and further copies cost what they cost; every method has
as many holders as serve it best, or one where it is named.

    .venv/bin/python experiments/neighbours/goco.py --out experiments/neighbours/results
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from fedgc.codes import Code, StochasticGradientCode, Uncoded
from fedgc.decentralised import (
    Graph,
    GraphFixedDecoder,
    NodeRounds,
    complete,
    deadline_rounds,
    gossip_descent,
    metropolis_weights,
    random_geometric,
    ring,
    second_singular_value,
    waiting_rounds,
)
from fedgc.decoders import Decoder, FixedDecoder, InverseProbabilityDecoder, SumDecoder
from fedgc.experiment.decentralised import digits_loss
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import GramModel
from fedgc.play import RoundDraws
from fedgc.report.rows import write_rows
from fedgc.report.style import look_of, plain
from fedgc.tasks.digits_data import digits_data

Array = NDArray[np.float64]

WAITS, NEIGHBOURS, IGNORES = "waits for all", "waits for its neighbours", "ignores stragglers"
GOCO, LEAST, FOR_GRAPH = "GOCO", "least-variance weights", "weights for the graph"
#: Decentralised SGD as it is usual, every shard with one node.
ONE_HOLDER = {f"{name}, one holder": name for name in (WAITS, IGNORES)}
#: GOCO with the load, deadline and step that the weights for the graph do best with: the weights are all that differs.
SAME_CHOICE = "GOCO, chosen as for the graph"
METHODS = (WAITS, NEIGHBOURS, IGNORES, GOCO, LEAST, FOR_GRAPH, SAME_CHOICE, *ONE_HOLDER)
#: Left out: by rounds all that wait are the same, and who has a load chosen; in the long run all but three.
LEFT_OUT = {
    "rounds": {NEIGHBOURS, SAME_CHOICE},
    "seconds": set[str](),
    "long": set(METHODS) - {IGNORES, GOCO, FOR_GRAPH},
}
#: What is set beside each other at the end, beside all to GOCO.
PAIRS = ((FOR_GRAPH, IGNORES), (FOR_GRAPH, SAME_CHOICE), (SAME_CHOICE, GOCO), (WAITS, GOCO), (NEIGHBOURS, GOCO))
#: Not drawn by seconds, where lines would hide each other: what is one choice of another method.
NOT_DRAWN = {SAME_CHOICE, *ONE_HOLDER}

#: Cells by virtual seconds: fleet preset, graph, and seconds of a run.
CELLS = (
    ("paper", "geometric", 240.0),
    ("lambda", "geometric", 300.0),
    ("lognormal", "geometric", 500.0),
    ("paper", "ring", 240.0),
)
GRAPHS = ("ring", "geometric", "complete")
STEPS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
#: Part of the nodes' completion times within a deadline.
QUANTILES = (0.4, 0.7, 0.95)
LOADS = (1, 2, 4)
TAU = 1.5
REGULARISATION = 0.01
#: Choices are made on seeds from here on, which results do not use.
_TUNING_SEEDS = 10_000


class HashedDraws(RoundDraws):
    """Draws that keep a fingerprint of each round, so that runs can be shown to have met the same ones."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self.prints: dict[int, str] = {}

    def of_round(self, server_round: int, now: float) -> Array:
        """Return the draws of a round."""
        drawn = super().of_round(server_round, now)
        if server_round not in self.prints:
            self.prints[server_round] = hashlib.sha256(drawn.tobytes()).hexdigest()
        return drawn


@dataclass(frozen=True)
class Choice:
    """What is chosen for a method: shards per node, deadline in seconds (none if it waits), and first step."""

    load: int
    deadline: float | None
    step: float


class World:
    """All that the methods of a cell have in common for one seed."""

    def __init__(self, preset: str, graph: str, n: int, seed: int) -> None:
        self.preset, self.n, self.seed = preset, n, seed
        rng = np.random.default_rng([seed, 83])
        # Examples of a label in the order of the data, where the runtime "decentralised" shuffles them.
        shards = np.array_split(np.argsort(digits_data().train_y, kind="stable"), n)
        self.loss = digits_loss(shards, REGULARISATION, rng)
        makers = {"ring": ring, "complete": complete}
        self.graph: Graph = makers[graph](n) if graph in makers else random_geometric(n, 0.5, rng=rng)
        self.mixing = metropolis_weights(self.graph)
        self.codes: dict[int, Code] = {load: StochasticGradientCode(n, n, load, rng=rng) for load in LOADS if load > 1}
        self.codes[1] = Uncoded(n, n)

    def draws(self) -> HashedDraws:
        """Return the fleet's draws, anew."""
        return HashedDraws(build_fleet({"preset": self.preset, "clients": self.n}, seed=self.seed))

    def deadlines(self, load: int) -> list[float]:
        """Return the deadlines to choose from: quantiles of what a node takes for so many shards."""
        fleet = self.draws().fleet
        times = [fleet.completion_time(node, t, load) for node in range(self.n) for t in range(1, 101)]
        return [float(q) for q in np.quantile(times, QUANTILES)]

    def rule(self, method: str) -> Decoder:
        """Return how a method weighs gradients."""
        if method in {GOCO, SAME_CHOICE}:
            return InverseProbabilityDecoder()
        if method == LEAST:
            return FixedDecoder()
        return GraphFixedDecoder(self.mixing) if method == FOR_GRAPH else SumDecoder()

    def play(self, method: str, choice: Choice, draws: RoundDraws, *, horizon: float, rounds: int | None) -> NodeRounds:
        """Play so many rounds, or those until the horizon."""
        loads = [self.codes[choice.load].shards_of(node).size for node in range(self.n)]
        if choice.deadline is not None:
            number = rounds if rounds is not None else int(horizon / choice.deadline)
            return deadline_rounds(draws, loads, choice.deadline, max(number, 1))
        graph, number = self.graph if method == NEIGHBOURS else None, rounds or 16
        played = waiting_rounds(draws, loads, number, graph=graph)
        while rounds is None and played.ends[-1].min() < horizon:
            number *= 2
            played = waiting_rounds(draws, loads, number, graph=graph)
        return played

    def run(
        self, method: str, choice: Choice, draws: RoundDraws, shown: Array, *, by_rounds: bool
    ) -> tuple[Array, NodeRounds]:
        """Return the excess loss, the mean over the nodes, after so many rounds or seconds, (n_shown,)."""
        last = shown[-1]
        rounds = self.play(method, choice, draws, horizon=last, rounds=int(last) if by_rounds else None)
        code, p = self.codes[choice.load], np.zeros(self.n)
        if choice.deadline is not None:
            loads = [code.shards_of(node).size for node in range(self.n)]
            p = draws.fleet.straggle_prob(choice.deadline, loads)
        decoder = self.rule(method).calibrate(code, p, GramModel.uniform(self.n, 0.0))
        number = np.arange(len(rounds.ends))
        steps = 1.0 / (1.0 / choice.step + REGULARISATION * number / 2.0)
        # Neighbours wait for each other only, so that at any instant nodes may be in different rounds.
        ends = np.repeat(number[:, None] + 1.0, self.n, axis=1) if by_rounds else rounds.ends
        done = (ends[:, None] <= shown[None, :, None] + 1e-9).sum(axis=0)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, node in np.ndindex(done.shape):
            wanted.setdefault(int(done[place, node]), []).append((place, node))
        seen = np.zeros((shown.size, self.n, self.loss.n_parameters))
        for t, models in enumerate(gossip_descent(self.loss, decoder, self.mixing, rounds.finished, steps)):
            for place, node in wanted.get(t, ()):
                seen[place, node] = models[node]
        excess = np.array([self.loss.values(models).mean() for models in seen]) - self.loss.least
        return np.where(np.isfinite(excess), excess, np.inf), rounds


def choose(worlds: Sequence[World], method: str, shown: Array, *, by_rounds: bool) -> Choice:
    """Return the choice with the least excess at the end: a step for every load and deadline, from the last one's."""
    shared = [world.draws() for world in worlds]

    def end(choice: Choice) -> float:
        ends = [
            world.run(method, choice, draws, shown[-1:], by_rounds=by_rounds)[0][-1]
            for world, draws in zip(worlds, shared, strict=True)
        ]
        return float(np.mean(ends))

    waits = ONE_HOLDER.get(method, method) in {WAITS, NEIGHBOURS}
    loads = (1,) if method in ONE_HOLDER else (4,) if by_rounds else LOADS
    found, step = [], STEPS[2]
    for load in loads:
        for deadline in (None,) if waits else (TAU,) if by_rounds else worlds[0].deadlines(load):
            found.append(climb(Choice(load, deadline, step), end))
            step = found[-1][1].step
    return min(found, key=lambda pair: pair[0])[1]


def climb(choice: Choice, end: Callable[[Choice], float]) -> tuple[float, Choice]:
    """Return excess and choice with the best step: one along the grid after another, as long as that is better."""
    known: dict[int, float] = {}
    at = STEPS.index(choice.step)
    while True:
        near = [index for index in (at, at + 1, at - 1) if 0 <= index < len(STEPS)]
        for index in near:
            if index not in known:
                known[index] = end(replace(choice, step=STEPS[index]))
        better = min(near, key=known.__getitem__)
        if better == at:
            return known[at], replace(choice, step=STEPS[at])
        at = better


def cell(
    preset: str, graph: str, shown: Array, args: argparse.Namespace, *, by: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of all methods of a cell, and those of the pairs of methods at its end."""
    by_rounds = by != "seconds"
    tuning = [World(preset, graph, args.nodes, _TUNING_SEEDS + seed) for seed in range(args.tuning)]
    worlds = [World(preset, graph, args.nodes, seed) for seed in range(args.seeds)]
    rows, prints, found = [], [dict[int, str]() for _ in worlds], dict[str, Array]()
    gaps = float(np.mean([1.0 - second_singular_value(world.mixing) for world in worlds]))
    choice = None
    for method in sorted(set(METHODS) - LEFT_OUT[by], key=lambda name: (name != GOCO, METHODS.index(name))):
        if choice is None or method != SAME_CHOICE:
            choice = choose(tuning, method, shown, by_rounds=by_rounds)
        runs, ready = [], []
        for world, known in zip(worlds, prints, strict=True):
            draws = world.draws()
            excess, rounds = world.run(method, choice, draws, shown, by_rounds=by_rounds)
            for number, fingerprint in draws.prints.items():
                assert known.setdefault(number, fingerprint) == fingerprint, (preset, graph, method, number)
            runs.append(excess)
            ready.append(float(rounds.finished.mean()))
        excess = found[method] = np.array(runs)
        half = stats.t.ppf(0.975, len(runs) - 1) / np.sqrt(len(runs)) * excess.std(axis=0, ddof=1)
        for at, mean, width, ratio in zip(shown, excess.mean(axis=0), half, over(excess, found[GOCO]).T, strict=True):
            rows.append(
                {
                    "fleet": preset, "graph": graph, "spectral_gap": gaps, "method": method, "load": choice.load,
                    "deadline": "" if choice.deadline is None else choice.deadline, "step": choice.step,
                    "ready": float(np.mean(ready)), "round" if by_rounds else "seconds": float(at),
                    "excess": float(mean), "half_width": float(width),
                    **dict(zip(("to_goco", "to_goco_low", "to_goco_high"), ratio.tolist(), strict=True)),
                }
            )  # fmt: skip
        print(*(f"{v:.4g}" if isinstance(v, float) else v for v in rows[-1].values()), flush=True)
    pairs = []
    for method, other in PAIRS:
        if method in found and other in found:
            ratio, low, high = over(found[method][:, -1:], found[other][:, -1:])[:, 0].tolist()
            pairs.append(
                {"fleet": preset, "graph": graph, "by": by, "method": method, "over": other}
                | {"ratio": ratio, "low": low, "high": high}
            )
    return rows, pairs


def over(excess: Array, other: Array) -> Array:
    """Return the geometric mean of ratios over the seeds, and its 95 % interval, (3, n_shown)."""
    logs = np.log(excess / other)
    half = stats.t.ppf(0.975, len(logs) - 1) / np.sqrt(len(logs)) * logs.std(axis=0, ddof=1)
    bounds: Array = np.exp(logs.mean(axis=0) + half * np.array([[0.0], [-1.0], [1.0]]))
    return bounds


def draw(rows: Sequence[dict[str, Any]], by: str) -> Figure:
    """Draw the excess loss of every method, above, and its ratio to GOCO's, below; a column per cell."""
    cells = list(dict.fromkeys((row["fleet"], row["graph"]) for row in rows))
    figure = Figure(figsize=(3.9 * len(cells), 7.0), layout="constrained")
    above = figure.subplots(2, len(cells), squeeze=False)
    for number, (fleet, graph) in enumerate(cells):
        own = [row for row in rows if (row["fleet"], row["graph"]) == (fleet, graph)]
        top, bottom = above[:, number]
        for index, method in enumerate(METHODS):
            of_method = [row for row in own if row["method"] == method]
            if not of_method or (by == "seconds" and method in NOT_DRAWN):
                continue
            keys = (by, "excess", "half_width", "to_goco", "to_goco_low", "to_goco_high")
            t, mean, half, *ratio = (np.array([row[key] for row in of_method]) for key in keys)
            look = {**look_of(index), "markevery": (0.03 * index, 0.2), "ms": 5, "mec": "white", "mew": 0.5}
            for axes, line, low, high in ((top, mean, mean - half, mean + half), (bottom, *ratio)):
                axes.plot(t, line, lw=1.7, label=method, **look)
                # An interval that reaches below zero leaves by the lower edge.
                axes.fill_between(t, np.maximum(low, 1e-12), high, color=look["color"], alpha=0.12, lw=0)
        # What comes to the optimum leaves by the lower edge, or the others could not be told apart.
        top.set(yscale="log", ylim=(max(min(row["excess"] for row in own) / 2.0, 1e-3), 4.0))
        bottom.set(yscale="log", ylim=(0.2, 12.0))
        top.set_title(f"{fleet}, {graph}", fontsize=10)
        for axes in (top, bottom):
            axes.set_xlim(0, None)
            plain(axes)
        bottom.set_yticks([0.2, 0.5, 1.0, 2.0, 5.0, 10.0], ["0.2", "0.5", "1", "2", "5", "10"])
        bottom.set_xlabel("round" if by == "round" else "virtual seconds", fontsize=10)
    above[0, 0].set_ylabel("excess loss, mean of the nodes", fontsize=10)
    above[1, 0].set_ylabel("its ratio to GOCO's, seed by seed", fontsize=10)
    handles, labels = above[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def main() -> None:
    """Choose, run, and write goco-rounds, goco-seconds and goco-long, as CSV and the first two as PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20, help="nodes, and shards")
    parser.add_argument("--by", choices=list(LEFT_OUT), nargs="+", default=list(LEFT_OUT))
    parser.add_argument("--rounds", type=int, default=200, help="five times as many in the long run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tuning", type=int, default=3, help="seeds on which choices are made")
    parser.add_argument("--quick", action="store_true", help="10 nodes, 40 rounds, 2 seeds, one fleet and graph")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cells, graphs = CELLS, GRAPHS
    if args.quick:
        args.nodes, args.rounds, args.seeds, args.tuning = 10, 40, 2, 1
        cells, graphs = (("paper", "geometric", 40.0),), ("geometric",)
    for by in args.by:
        so_far, pairs = list[dict[str, Any]](), list[dict[str, Any]]()
        for rows, own_pairs in seconds_cells(cells, args) if by == "seconds" else rounds_cells(graphs, args, by):
            so_far += rows
            pairs += own_pairs
            if args.out is not None:
                for name, table in ((f"goco-{by}.csv", so_far), (f"goco-{by}-pairs.csv", pairs)):
                    short = [{k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in table]
                    write_rows(args.out / name, short)
        if args.out is not None and by != "long":
            draw(so_far, "round" if by == "rounds" else by).savefig(args.out / f"goco-{by}.png", dpi=110)


def rounds_cells(
    graphs: Sequence[str], args: argparse.Namespace, by: str
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield the rows of each cell by rounds."""
    shown = np.unique(np.linspace(0, args.rounds * (5 if by == "long" else 1), 21).round())
    for graph in graphs:
        yield cell("paper", graph, shown, args, by=by)


def seconds_cells(
    cells: Sequence[tuple[str, str, float]], args: argparse.Namespace
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield the rows of each cell by virtual seconds."""
    for preset, graph, last in cells:
        yield cell(preset, graph, np.linspace(0.0, last, 21), args, by="seconds")


if __name__ == "__main__":
    main()
