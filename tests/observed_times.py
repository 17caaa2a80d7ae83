"""Completion times as a fleet shows them."""

from __future__ import annotations

import numpy as np

from fedgc.completion_times import TimeObservation


def observed(rng, n_clients=30, n_rounds=12, *, fixed=0.0, absent=0.1, deadline=6.0, report=False):
    median = np.exp(0.5 * rng.standard_normal(n_clients))
    rounds = []
    for server_round in range(n_rounds):
        for node in range(n_clients):
            load = 1 + (node + server_round) % 3
            seconds = fixed + load * median[node] * float(np.exp(0.3 * rng.standard_normal()))
            if rng.random() < absent or seconds > deadline:
                rounds.append(TimeObservation(node, load, deadline, censored=True))
            else:
                rounds.append(TimeObservation(node, load, seconds, fixed_seconds=fixed if report else None))
    return rounds
