"""GradientCoding without redundancy in the embedded runtime: FedAvg's work, with planning, decoding and learning."""

from __future__ import annotations

import logging

from app import fedavg, loaded, server_app, step
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from jobs import Job, Rounds, contestant

from fedgc.deadline import WAIT_FOR_EVERYONE
from fedgc.fleets import build_fleet
from fedgc.simulation import run_virtual


def coded_client_app(job: Job) -> ClientApp:
    """Return a ClientApp whose train function is about a shard."""
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=job.clients)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        model, n_examples = step(job, shard_id, arrays)
        return ShardUpdate(n_examples, arrays=model.state_dict())

    return app


def play(job: Job) -> Rounds:
    """Do the job."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rounds = Rounds(job)
    fleet = build_fleet({"preset": "paper", "clients": job.clients}, seed=0)
    strategy = GradientCoding(
        fedavg(job),
        num_shards=job.clients,
        load=1,
        code="uncoded",
        decoder="least-squares",
        deadline=WAIT_FOR_EVERYONE,
        shard_examples=[len(y) for _, y in loaded(job)[0]],
    )
    run_virtual(server_app(strategy, rounds), coded_client_app(job), fleet, num_shards=job.clients)
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
