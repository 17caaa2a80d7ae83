"""A loop over the clients with nothing in it that the sum of their steps does not need."""

from __future__ import annotations

import torch
from jobs import Job, Rounds, contestant, examples, loss_of, network, shards
from torch import nn


def play(job: Job) -> Rounds:
    """Do the job."""
    rounds, data, model = Rounds(job), examples(job), network(job)
    parts = shards(job, data)
    parameters = list(model.parameters())
    for number in range(1, job.rounds + 1):
        total = [torch.zeros_like(one) for one in parameters]
        for x, y in parts:
            loss = nn.functional.cross_entropy(model(x), y)
            for one, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                one.add_(gradient, alpha=len(y) / len(data[1]))
        with torch.no_grad():
            for parameter, one in zip(parameters, total, strict=True):
                parameter.sub_(one, alpha=job.learning_rate)
        rounds.ended(number, lambda: loss_of(model, data))
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
