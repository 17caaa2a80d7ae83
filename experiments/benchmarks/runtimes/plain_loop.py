"""A loop over the clients, as one writes it without a framework: a copy of the model, torch's optimiser, a mean."""

from __future__ import annotations

import torch
from jobs import Job, Rounds, contestant, examples, loss_of, network, shards
from torch import nn


def play(job: Job) -> Rounds:
    """Do the job."""
    rounds, data, model, local = Rounds(job), examples(job), network(job), network(job)
    parts = shards(job, data)
    for number in range(1, job.rounds + 1):
        state = model.state_dict()
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        for x, y in parts:
            local.load_state_dict(state)
            optimizer = torch.optim.SGD(local.parameters(), lr=job.learning_rate)
            optimizer.zero_grad()
            nn.functional.cross_entropy(local(x), y).backward()
            optimizer.step()
            for name, value in local.state_dict().items():
                total[name].add_(value, alpha=len(y) / len(data[1]))
        model.load_state_dict(total)
        rounds.ended(number, lambda: loss_of(model, data))
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
