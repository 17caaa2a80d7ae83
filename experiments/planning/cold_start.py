"""What learning the straggle probabilities during the run costs in rounds, against knowing them.

Logistic regression on digits by gradient descent, on the presets paper, lambda and phones, with 50 shards on 25 pairs
of clients. All rules see the same arrivals, drawn from the fleet itself. Reported are the rounds to the loss that
gradient descent without stragglers has after 100 rounds, as a ratio to known probabilities, and the bias E[v] - 1 of
the weights in force, by quadrature and therefore exact. Who is paired with whom matters as much as the probabilities,
so "the same run with known probabilities" is read in three ways:

truth  both pair by the true probabilities, which a run that starts cold cannot do;
own    each pairs by what it believes: what a user gets. To form other pairs, clients fetch other shards, which costs
       no rounds here;
blind  both keep the pairs that are formed before anything is known.

Steps are chosen on seeds that the comparison does not see: the common one, at which known probabilities and pairs have
the least loss after 100 rounds, and for each rule its own, with which it is soonest at the common step's target. Beside
these stand the steps of the grid below and above the common one, each with its own target, and the largest that never
makes gradient descent's loss rise.
Eleven minutes on one core: `OMP_NUM_THREADS=1 .venv/bin/python experiments/planning/cold_start.py`
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from cold_start_task import DigitsTask
from cold_start_weights import FLEETS, LONGEST, N_SHARDS, Draws, Rule, Vector, Weights, deadline_of

from fedgc.report.rows import write_rows

STEPS = tuple(1.6 * 2.0 ** (k / 2) for k in range(9))
TARGET_ROUND = 100
TUNING_SEEDS = tuple(range(1000, 1008))
#: The bias scatters far less from seed to seed than the rounds.
MOST_FOR_BIAS = 16
BEST = Rule("known", "truth")
#: Each rule with the one that it is compared to.
RULES = {
    BEST: BEST,
    Rule("conditional", "truth"): BEST,
    Rule("estimated", "truth"): BEST,
    Rule("bayes", "truth"): BEST,
    Rule("estimated", "own"): BEST,
    Rule("bayes", "own"): BEST,
    Rule("known", "blind"): Rule("known", "blind"),
    Rule("estimated", "blind"): Rule("known", "blind"),
    Rule("ignoring", "truth"): BEST,
}
#: Fleets without memory, where the conditional probabilities are the known ones, and the one that `bayes` knows.
MEMORYLESS = ("paper",)

draws = cache(Draws)


class Comparison:
    """All rules on one fleet and one way of sharding."""

    def __init__(self, name: str, *, mixed: bool, seeds: int) -> None:
        self.name, self.mixed, self.seeds = name, mixed, tuple(range(seeds))
        left_out = "conditional" if name in MEMORYLESS else "bayes"
        self.rules = [rule for rule in RULES if rule.prob != left_out]
        self.task = DigitsTask(N_SHARDS, mixed=mixed)
        self.gram = self.task.gram()
        self.descents = {step: self.task.descent(step, TARGET_ROUND) for step in STEPS}
        self.weights = cache(lambda seed, rule: Weights(draws(name, seed), rule, self.gram))
        self.rounds = cache(self._rounds)

    def _rounds(self, rule: Rule, step: float, goal: float, seeds: tuple[int, ...]) -> Vector:
        """Return the rounds to what gradient descent reaches with step `goal`, (n_seeds,)."""
        target = float(self.descents[goal][-1])
        reached = [self.task.rounds_to(target, self.weights(s, rule).coverage, step, LONGEST) for s in seeds]
        return np.array(reached, dtype=np.float64)

    def steps(self) -> dict[str, dict[Rule, tuple[float, float]]]:
        """Return step and goal of each rule, by how they are chosen."""

        def loss_then(step: float) -> float:
            after = [self.weights(seed, BEST).coverage for seed in TUNING_SEEDS]
            return float(np.mean([self.task.first_losses(one, step, TARGET_ROUND)[-1] for one in after]))

        common = int(np.argmin([loss_then(step) for step in STEPS]))
        goal, near = STEPS[common], STEPS[max(common - 2, 0) : common + 3]
        steady = max(step for step, losses in self.descents.items() if (np.diff(losses) <= 0.0).all())

        def own(rule: Rule) -> float:
            return min(near, key=lambda step: (self.rounds(rule, step, goal, TUNING_SEEDS).mean(), step))

        less, more = STEPS[max(common - 1, 0)], STEPS[min(common + 1, len(STEPS) - 1)]
        fixed = {"common": goal, "one less": less, "one more": more, "steady": steady}
        chosen = {kind: dict.fromkeys(self.rules, (step, step)) for kind, step in fixed.items()}
        return chosen | {"own": {rule: (own(rule), goal) for rule in self.rules}}

    def bias(self, rule: Rule) -> dict[str, float]:
        """Return means of E[v] - 1 over rounds, shards and seeds: of its size, with sign, and per shard over time."""
        result: dict[str, float] = {}
        for kind, truth in (("bias", "known"), ("bias_given_history", "conditional")):
            of = np.array([self.weights(seed, rule).bias(truth, TARGET_ROUND) for seed in self.seeds[:MOST_FOR_BIAS]])
            for part, values in (
                ("abs", np.abs(of).mean(axis=(1, 2))),
                ("signed", of.mean(axis=(1, 2))),
                ("per_shard", np.abs(of.mean(axis=1)).mean(axis=1)),
            ):
                result[f"{kind}_{part}"], result[f"{kind}_{part}_se"] = mean_and_error(values)
            for first, last in ((0, 1), (1, 10), (10, 100)):
                result[f"{kind}_rounds_{first + 1}_to_{last}_signed"] = float(of[:, first:last].mean())
        return result

    def rows(self) -> list[dict[str, object]]:
        """Return one row per rule and choice of step."""
        steps = self.steps()
        rows: list[dict[str, object]] = []
        for rule in self.rules:
            bias = self.bias(rule)
            for kind, of in steps.items():
                rounds, base = (self.rounds(r, *of[r], self.seeds) for r in (rule, RULES[rule]))
                row: dict[str, object] = {"fleet": self.name, "shards": "mixed" if self.mixed else "sorted"}
                row |= {"method": rule.prob, "pairs": rule.pairs, "deadline": deadline_of(self.name)}
                row |= {"seeds": len(self.seeds), "step_by": kind, "step": of[rule][0]}
                row["rounds"], row["rounds_se"] = mean_and_error(rounds)
                row["ratio"], row["ratio_se"] = ratio_and_error(rounds, base)
                rows.append(row | {"unreached": int((rounds == LONGEST).sum())} | bias)
        return rows


def mean_and_error(values: Vector) -> tuple[float, float]:
    """Return the mean over seeds and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def ratio_and_error(values: Vector, base: Vector) -> tuple[float, float]:
    """Return the ratio of the means, and its standard error with equal seeds kept together."""
    ratio = float(values.mean() / base.mean())
    return ratio, float((values - ratio * base).std(ddof=1) / np.sqrt(base.size) / base.mean())


def show(row: dict[str, object]) -> str:
    """Return the line of the printed table."""
    return (
        f"{row['fleet']:7s}{row['shards']:7s}{row['method']:12s}{row['pairs']:6s}{row['step_by']:9s}{row['step']:5.1f}"
        f" {row['rounds']:6.1f}  {row['ratio']:.3f} +- {row['ratio_se']:.3f}  {row['bias_abs']:.3f} "
        f"{row['bias_per_shard']:.3f} {row['bias_signed']:+.4f} +- {row['bias_signed_se']:.4f}"
    )


def main() -> None:
    """Run the comparison, print the table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/cold_start.csv"))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--paper-seeds", type=int, default=100, help="on paper with sorted shards, which scatters most")
    parser.add_argument("--fleets", nargs="+", choices=list(FLEETS), default=list(FLEETS))
    given = parser.parse_args()
    print(f"{'fleet':7s}{'shards':7s}{'method':12s}{'pairs':6s}{'step by':9s}{'step':5s} {'rounds':6s}  ratio", end="")
    print("            |E v - 1|, per shard, E v - 1", flush=True)
    rows = []
    for name in given.fleets:
        for mixed in (False, True):
            seeds = given.paper_seeds if name == "paper" and not mixed else given.seeds
            found = Comparison(name, mixed=mixed, seeds=seeds).rows()
            print("\n".join(map(show, found)), flush=True)
            rows += found
    write_rows(given.out, rows)


if __name__ == "__main__":
    main()
