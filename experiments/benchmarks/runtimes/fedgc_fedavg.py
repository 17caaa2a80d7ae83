"""Flower's FedAvg in the embedded runtime: real messages, one process, virtual time."""

from __future__ import annotations

import logging

from app import client_app, fedavg, server_app
from jobs import Job, Rounds, contestant

from fedgc.fleets import build_fleet
from fedgc.simulation import run_virtual


def play(job: Job) -> Rounds:
    """Do the job."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rounds = Rounds(job)
    fleet = build_fleet({"preset": "paper", "clients": job.clients}, seed=0)
    run_virtual(server_app(fedavg(job), rounds), client_app(job), fleet)
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
