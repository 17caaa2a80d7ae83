"""What learning the straggle probabilities during the run costs in rounds, against knowing them.

Logistic regression on digits by gradient descent, on the presets paper, lambda and phones, with 50 shards on 25 pairs
of clients. Four rules see the same arrivals, drawn from the fleet itself: the optimal decoder with the stationary
straggle probabilities (known), with those given all earlier outcomes (conditional, where they differ), with estimates
from a cold start (estimated), and adding up what came as if nobody straggled (ignoring). Reported are the rounds to the
loss that gradient descent without stragglers has after 100 rounds, as a ratio to known, and the bias E[v] - 1 of the
weights in force, by quadrature and therefore exact. Four minutes on one core:
`OMP_NUM_THREADS=1 .venv/bin/python experiments/planning/cold_start.py --out results/cold_start.csv`
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.datasets import load_digits

from fedgc.assignment import fractional_repetition_blocks
from fedgc.calibration.quadrature import exponential_nodes
from fedgc.codes import Code
from fedgc.decoders import DECODERS
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import CoherenceEstimate, GramModel
from fedgc.reliability import ReliabilityPosterior

Vector = NDArray[np.float64]

N_CLIENTS, N_SHARDS, LOAD = 50, 50, 2
#: Deadline in seconds, or the share of the clients' rounds that shall miss it.
FLEETS = {"paper": {"deadline": 1.5}, "lambda": {"missed": 0.22}, "phones": {"missed": 0.3}}
METHODS = ("known", "conditional", "estimated", "ignoring")
#: Fleets without memory, where the conditional probabilities are the known ones.
MEMORYLESS = ("paper",)
STEPS = tuple(0.2 * 2.0**k for k in range(8))
TARGET_ROUND, LONGEST = 100, 200
#: Steps are chosen on seeds that the comparison does not see.
TUNING_SEEDS = tuple(range(1000, 1004))


@dataclass
class Task:
    """Multinomial logistic regression; `shard` is each example's shard."""

    x: Vector
    labels: NDArray[np.intp]
    shard: NDArray[np.intp]

    @classmethod
    def digits(cls, *, mixed: bool) -> Task:
        """Shards of equal size, of examples sorted by label or shuffled."""
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(7).permutation(labels.size)
        if not mixed:
            order = order[np.argsort(labels[order], kind="stable")]
        x = np.column_stack([images / 16.0, np.ones(labels.size)])[order]
        return cls(x, labels[order].astype(np.intp), np.arange(labels.size) * N_SHARDS // labels.size)

    def gram(self) -> GramModel:
        """Return the Gram model with the coherence of the shards' gradients at the start."""
        gap = np.full((self.labels.size, 10), 0.1)
        gap[np.arange(self.labels.size), self.labels] -= 1.0
        shards = [self.shard == j for j in range(N_SHARDS)]
        gradients = np.array([(self.x[rows].T @ gap[rows]).ravel() / rows.sum() for rows in shards])
        measured = CoherenceEstimate().update((gradients**2).sum(axis=1), float((gradients.sum(axis=0) ** 2).sum()))
        return measured.gram([N_SHARDS * rows.mean() for rows in shards])

    def losses(self, coverage: Vector, steps: Vector) -> Iterator[Vector]:
        """Yield the loss before each round, one per model; coverage of shape (n_rounds, n_models, n_shards)."""
        n, models = self.labels.size, steps.size
        every = np.arange(n)
        weights = np.zeros((self.x.shape[1], models, 10))
        for of_shard in coverage:
            score = (self.x @ weights.reshape(-1, 10 * models)).reshape(n, models, 10)
            score -= score.max(axis=2, keepdims=True)
            own = score[every, :, self.labels]
            np.exp(score, out=score)
            total = score.sum(axis=2)
            yield (np.log(total) - own).mean(axis=0)
            score /= total[:, :, None]
            score[every, :, self.labels] -= 1.0
            score *= of_shard.T[self.shard][:, :, None]
            gradient = (self.x.T @ score.reshape(n, -1)).reshape(weights.shape) / n
            weights -= steps[None, :, None] * gradient


@cache
def deadline_of(name: str) -> float:
    """Return the deadline in seconds, the same for every seed: that of a large fleet."""
    if "deadline" in FLEETS[name]:
        return FLEETS[name]["deadline"]
    large = build_fleet({"preset": name, "clients": 4000}, seed=0)
    return float(brentq(lambda t: large.straggle_prob(t, LOAD).mean() - FLEETS[name]["missed"], 0.1, 1e3, xtol=1e-4))


@dataclass
class Draws:
    """What happens on one fleet: arrivals and straggle probabilities of each method, (n_rounds, n_clients) each."""

    code: Code
    arrived: NDArray[np.bool_]
    straggle_prob: dict[str, Vector]


@cache
def draw(name: str, seed: int) -> Draws:
    """Play the rounds; the estimate of a round knows the rounds before it."""
    fleet, deadline = build_fleet({"preset": name, "clients": N_CLIENTS}, seed=seed), deadline_of(name)
    arrived = np.array(
        [[fleet.completion_time(i, t, LOAD) <= deadline for i in range(N_CLIENTS)] for t in range(LONGEST)]
    )
    known = fleet.straggle_prob(deadline, LOAD)
    estimated, posterior = np.empty(arrived.shape), ReliabilityPosterior()
    for t, came in enumerate(arrived):
        estimated[t] = posterior.straggle_prob(range(N_CLIENTS))
        posterior = posterior.update(dict(enumerate(came.tolist())))
    prob = {
        "known": np.tile(known, (LONGEST, 1)),
        "conditional": given_history(fleet, deadline, arrived),
        "estimated": estimated,
    }
    return Draws(fractional_repetition_blocks(known, N_SHARDS, LOAD), arrived, prob)


def given_history(fleet: Fleet, deadline: float, arrived: NDArray[np.bool_]) -> Vector:
    """Return the probability to miss given all earlier outcomes, by the forward filter, (n_rounds, n_clients).

    Exact: absence and slowness are chains that copy their last state or draw it anew, so that absent/there x slow/not
    are four hidden states, and given these the outcomes are independent.
    """
    own = fleet.parameters
    missed, chains = [], []
    for slow in (0.0, 1.0):
        there = type(fleet)(fleet.n_clients, seed=fleet.seed, **{**own, "dropout": 0.0, "slow_prob": slow})
        missed.append(there.straggle_prob(deadline, LOAD))
    miss = np.stack([*missed, *(np.ones(fleet.n_clients),) * 2], axis=1)
    for prob, persistence in (("dropout", "dropout_persistence"), ("slow_prob", "slow_persistence")):
        stationary, again = np.stack([1.0 - own[prob], own[prob]], axis=1), own[persistence][:, None, None]
        chains.append(again * np.eye(2) + (1.0 - again) * stationary[:, None, :])
    start = np.einsum("ia,is->ias", *(np.stack([1.0 - own[p], own[p]], axis=1) for p in ("dropout", "slow_prob")))
    state = start.reshape(-1, 4)
    result = np.empty(arrived.shape)
    for t, came in enumerate(arrived):
        result[t] = (state * miss).sum(axis=1)
        state = state * np.where(came[:, None], 1.0 - miss, miss)
        state /= state.sum(axis=1, keepdims=True)
        state = np.einsum("ias,iab,isc->ibc", state.reshape(-1, 2, 2), *chains).reshape(-1, 4)
    return result


def weigh(draws: Draws, method: str, gram: GramModel) -> tuple[Vector, Vector]:
    """Return the coverage of every round, and what it would be if all came, (n_rounds, n_shards) each."""
    decoder = DECODERS["first-arrival" if method == "ignoring" else "optimal-unbiased"]()
    prob = draws.straggle_prob["known" if method == "ignoring" else method]
    coverage, target = np.empty((LONGEST, N_SHARDS)), np.empty((LONGEST, N_SHARDS))
    calibrated = None
    for t, came in enumerate(draws.arrived):
        if calibrated is None or (prob[t] != prob[t - 1]).any():
            calibrated = decoder.calibrate(draws.code, prob[t], gram)
        coverage[t] = calibrated.decode(came).coverage
        target[t] = calibrated.decode(np.ones(N_CLIENTS, dtype=bool)).coverage
    return coverage, target


def bias(draws: Draws, method: str, target: Vector, gram: GramModel, truth: str) -> Vector:
    """Return E[v] - 1 of the first rounds' weights if clients miss with the probabilities `truth`, exactly.

    With t the coverage when everything comes, ``E[v_g] = q_g t_g + (r_g / d_g) sum over h != g of r_h t_h E[g came, h
    missing, 1 / (1 + X)]``, where X sums ``x_g = r_g^2 / d_g`` over what came, and 1 / (1 + X) is an integral over
    exp(-s (1 + X)), whose expectation is a product over the blocks.
    """
    of_client, of_shard, n_blocks = draws.code.blocks
    merged = gram.merge(of_shard, n_blocks)
    d, r = merged.incoherent, merged.coherent
    first = np.unique(of_shard, return_index=True)[1]
    s, weight = exponential_nodes(float((r**2 / d).sum()))
    fade = np.exp(-np.outer(s, r**2 / d))
    result = np.empty((TARGET_ROUND, n_blocks))
    for t in range(TARGET_ROUND):
        p = np.ones(n_blocks)
        np.multiply.at(p, of_client, draws.straggle_prob[truth][t])
        of_block = target[t][first]
        if method == "ignoring":
            result[t] = -p
            continue
        phi = p + (1.0 - p) * fade
        came, missing = (r / d) * (1.0 - p) * fade / phi, r * p / phi
        pairs = np.einsum("k,kg,kh->gh", weight * np.exp(-s) * phi.prod(axis=1), came, missing, optimize=True)
        np.fill_diagonal(pairs, 0.0)
        result[t] = (1.0 - p) * of_block + pairs @ of_block - 1.0
    return result[:, of_shard]


def rounds_to(task: Task, coverage: Vector, steps: Vector, target: Vector) -> tuple[Vector, Vector]:
    """Return the rounds until the loss is at most `target`, LONGEST if it never is, and the loss at TARGET_ROUND."""
    reached = np.full(steps.size, float(LONGEST))
    loss_then = np.full(steps.size, np.nan)
    for t, loss in enumerate(task.losses(coverage, steps)):
        reached = np.where((loss <= target) & (reached == LONGEST), t, reached)
        if t == TARGET_ROUND:
            loss_then = loss
        if t >= TARGET_ROUND and (reached < LONGEST).all():
            break
    return reached, loss_then


def mean_and_error(values: Vector) -> tuple[float, float]:
    """Return the mean over seeds and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def ratio_and_error(values: Vector, base: Vector) -> tuple[float, float]:
    """Return the ratio of the means, and its standard error with pairs kept together."""
    ratio = float(values.mean() / base.mean())
    return ratio, float((values - ratio * base).std(ddof=1) / np.sqrt(base.size) / base.mean())


def compare(name: str, *, mixed: bool, seeds: range) -> list[dict[str, object]]:
    """Return one row per method."""
    task = Task.digits(mixed=mixed)
    methods = [method for method in METHODS if method != "conditional" or name not in MEMORYLESS]
    gram, grid = task.gram(), np.array(STEPS)
    descent = np.array(list(task.losses(np.ones((TARGET_ROUND + 1, grid.size, N_SHARDS)), grid)))
    goals, rises = descent[-1], (np.diff(descent, axis=0) > 0.0).any(axis=0)

    @cache
    def weighed(seed: int, method: str) -> tuple[Vector, Vector]:
        return weigh(draw(name, seed), method, gram)

    def run(seed: int, pairs: list[tuple[str, int]], goal: Vector) -> tuple[Vector, Vector]:
        coverage = np.stack([weighed(seed, method)[0] for method, _ in pairs], axis=1)
        return rounds_to(task, coverage, grid[[k for _, k in pairs]], goal)

    # Every loss is below infinity: these runs only tell the loss at TARGET_ROUND.
    known_only = [("known", k) for k in range(grid.size)]
    common = int(np.argmin(sum(run(seed, known_only, np.full(grid.size, np.inf))[1] for seed in TUNING_SEEDS)))
    # The largest step at which plain gradient descent never makes the loss rise.
    steady = int(np.flatnonzero(~rises).max())
    near = [(method, k) for method in methods for k in range(max(common - 1, 0), min(common + 2, grid.size))]
    tuned = sum(run(seed, near, np.full(len(near), goals[common]))[0] for seed in TUNING_SEEDS)
    own = {method: min((tuned[i], k) for i, (m, k) in enumerate(near) if m == method)[1] for method in methods}

    pairs = [(method, k) for method in methods for k in sorted({common, own[method]})]
    even = [(method, steady) for method in methods]
    goal = np.array([goals[common]] * len(pairs) + [goals[steady]] * len(even))
    reached = np.array([run(seed, pairs + even, goal)[0] for seed in seeds])
    settings = {
        "": {method: pairs.index((method, common)) for method in methods},
        "own_": {method: pairs.index((method, own[method])) for method in methods},
        "steady_": {method: len(pairs) + even.index((method, steady)) for method in methods},
    }
    rows = []
    for method in methods:
        row: dict[str, object] = {"fleet": name, "shards": "mixed" if mixed else "sorted", "method": method}
        row |= {"deadline": deadline_of(name), "seeds": len(seeds), "coherence": coherence(gram)}
        for kind, column in settings.items():
            rounds = reached[:, column[method]]
            row[f"{kind}step"] = float(grid[(pairs + even)[column[method]][1]])
            row[f"{kind}rounds"], row[f"{kind}rounds_se"] = mean_and_error(rounds)
            row[f"{kind}ratio"], row[f"{kind}ratio_se"] = ratio_and_error(rounds, reached[:, column["known"]])
            row[f"{kind}unreached"] = int((rounds == LONGEST).sum())
        for kind, truth in (("bias", "known"), ("bias_given_history", "conditional")):
            of = np.array([bias(draw(name, s), method, weighed(s, method)[1], gram, truth) for s in seeds])
            row[f"{kind}_abs"], row[f"{kind}_abs_se"] = mean_and_error(np.abs(of).mean(axis=(1, 2)))
            row[f"{kind}_signed"], row[f"{kind}_signed_se"] = mean_and_error(of.mean(axis=(1, 2)))
            row[f"{kind}_per_shard"], row[f"{kind}_per_shard_se"] = mean_and_error(np.abs(of.mean(axis=1)).mean(axis=1))
            for first, last in ((0, 1), (1, 10), (10, 100)):
                part, label = of[:, first:last], f"{kind}_rounds_{first + 1}_to_{last}"
                row[f"{label}_abs"], row[f"{label}_signed"] = float(np.abs(part).mean()), float(part.mean())
        rows.append(row)
    return rows


def coherence(gram: GramModel) -> float:
    """Return the share of the shards' energy that all have in common."""
    return float((gram.coherent**2).sum() / (gram.coherent**2 + gram.incoherent).sum())


def show(row: dict[str, object]) -> str:
    """Return the line of the printed table."""
    numbers = [
        *(
            f"{row[f'{kind}step']:4.1f} {row[f'{kind}rounds']:6.1f} {row[f'{kind}ratio']:.3f} +- "
            f"{row[f'{kind}ratio_se']:.3f}"
            for kind in ("", "own_", "steady_")
        ),
        *(
            f"{row[f'{kind}_abs']:.3f} +- {row[f'{kind}_abs_se']:.3f} {row[f'{kind}_signed']:+.4f} +- "
            f"{row[f'{kind}_signed_se']:.4f}"
            for kind in ("bias", "bias_given_history")
        ),
    ]
    return f"{row['fleet']:7s}{row['shards']:7s}{row['method']:12s}" + " | ".join(numbers)


def main() -> None:
    """Run the comparison, print the table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/cold_start.csv"))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--fleets", nargs="+", choices=list(FLEETS), default=list(FLEETS))
    given = parser.parse_args()
    header = "tuned step, rounds, ratio | each its best step | steady step | |E v - 1|, E v - 1 | given history"
    print(f"{'fleet':7s}{'shards':7s}{'method':12s}{header}", flush=True)
    rows = []
    for name in given.fleets:
        for mixed in (False, True):
            found = compare(name, mixed=mixed, seeds=range(given.seeds))
            print("\n".join(map(show, found)), flush=True)
            rows += found
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
