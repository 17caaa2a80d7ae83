"""What remembering past updates and capping weights are worth: rounds to a target, by decoder.

Balanced pairs (load 2) of the base paper's straggler model train multinomial regression on digits, label-sorted shards,
each combination with the step that suits it best. The targets are the losses of 100 and of 400 rounds of full descent.

    .venv/bin/python experiments/planning/memory.py --out results/memory.csv [--clients 100] [--tau 1.5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from digits_replay import STEPS, Digits

from fedgc.codes import Uncoded
from fedgc.decoders import DECODERS, CappedDecoder, Decoder
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.report.rows import write_rows
from fedgc.schemes import fractional_repetition_blocks

#: Descents whose loss is the target, and rounds after which a run is given up.
TARGETS, MOST = (100, 400), 800
#: Decoders by name; each is tried with one holder and with pairs.
RULES = ("optimal-unbiased", "fixed", "least-squares", "first-arrival")


def rounds_to_targets(
    task: Digits, decoder: Decoder, prob: np.ndarray[tuple[int], np.dtype[np.float64]], *, load: int, memory: bool
) -> list[float]:
    """Return the rounds to each target with the best step for each, infinite if never."""
    n = prob.size
    code = Uncoded(n, n) if load == 1 else fractional_repetition_blocks(prob, n, load)
    calibrated = decoder.calibrate(code, prob, GramModel.uniform(n, 0.0))
    arrived = np.random.default_rng(1).random((MOST, n)) >= prob
    coverage = np.array([calibrated.decode(one).coverage for one in arrived])
    targets = [task.loss_of_descent(rounds) for rounds in TARGETS]
    found = np.full(len(targets), np.inf)
    for number, loss in enumerate(task.losses(coverage, STEPS, memory=memory)):
        there = np.isinf(found) & (loss.min() <= np.array(targets))
        found[there] = number
        if np.isfinite(found).all() or number == MOST or np.isinf(loss).all():
            return found.tolist()
    raise AssertionError("losses go on without end")


def main() -> None:
    """Race the combinations and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--tau", type=float, action="append")
    parser.add_argument("--cap", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    task, rows = Digits(args.clients), []
    for tau in args.tau or (1.5, 1.1):
        for seed in range(1, args.seeds + 1):
            prob = build_fleet({"preset": "paper", "clients": args.clients}, seed=seed).straggle_prob(
                tau, np.ones(args.clients)
            )
            for load in (1, 2):
                for name in RULES:
                    for cap in (None, args.cap):
                        decoder = DECODERS[name]() if cap is None else CappedDecoder(DECODERS[name](), cap)
                        for memory in (False, True):
                            found = rounds_to_targets(task, decoder, prob, load=load, memory=memory)
                            row = {"tau": tau, "seed": seed, "load": load, "decoder": name, "cap": cap or "none"}
                            rows.append({**row, "memory": memory} | dict(zip(map(str, TARGETS), found, strict=True)))
                            print(*rows[-1].values(), flush=True)
    if args.out is not None:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
