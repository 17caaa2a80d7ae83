"""The path for sweeps: rounds played without messages, with code, decoder and plan, and each one tensor operation."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord
from jobs import Job, Rounds, contestant, examples, network

from fedgc.decoders import DECODERS
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws
from fedgc.replay import Method, descend, known_rounds
from fedgc.schemes import CODES
from fedgc.tasks.network_step import NetworkStepTask


def play(job: Job) -> Rounds:
    """Do the job."""
    rounds, data, model = Rounds(job), examples(job), network(job)
    shards = np.array_split(np.arange(len(data[1])), job.clients)
    initial = ArrayRecord(model.state_dict())
    task = NetworkStepTask(model, initial, data, data, shards=shards, learning_rate=job.learning_rate)
    draws = RoundDraws(build_fleet({"preset": "paper", "clients": job.clients}, seed=0))
    method = Method(CODES["uncoded"], DECODERS["least-squares"](), load=1, coherence=0.0)
    played = known_rounds(method, draws, task.shard_examples, job.rounds)
    for step in descend(task, played, job.learning_rate):
        if step.number:
            rounds.ended(step.number, lambda loss=step.loss: loss)  # type: ignore[misc]
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
