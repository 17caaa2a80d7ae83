"""Flower's FedAvg in Flower's Simulation Runtime: Ray, two actors."""

from __future__ import annotations

import logging

from app import client_app, fedavg, server_app
from flwr.simulation import run_simulation
from jobs import Job, Rounds, contestant

#: Actors that work at once.
ACTORS = 2


def play(job: Job) -> Rounds:
    """Do the job."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rounds = Rounds(job)
    run_simulation(
        server_app(fedavg(job), rounds),
        client_app(job),
        num_supernodes=job.clients,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": ACTORS}},
    )
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
