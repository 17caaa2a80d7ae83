"""The jobs that all runtimes do: digits, every client one gradient step a round, an example-weighted mean.

The mean of the clients' steps is a step of gradient descent on all examples, so that every contestant has to end at the
same loss, whatever its order of summation; `compare.py` checks that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

Tensors = tuple[torch.Tensor, torch.Tensor]

#: Rounds between two evaluations on the server.
EVALUATION_EVERY = 10


@dataclass(frozen=True)
class Job:
    """What is trained, and for how long.

    Attributes
    ----------
    name : str
        What it is called in tables.
    clients : int
        How many clients; each has one shard of about 18 examples, sorted by label.
    rounds : int
        How many rounds.
    learning_rate : float
        Step size of the clients.
    hidden : tuple of int
        Widths of hidden layers; none for multinomial logistic regression.
    """

    name: str
    clients: int
    rounds: int
    learning_rate: float
    hidden: tuple[int, ...] = ()

    @property
    def warm_up(self) -> int:
        """Rounds that are left out of the time of a round: in them libraries are loaded and processes started."""
        return min(5, self.rounds // 2)


JOBS = {
    "J1": Job("J1", 100, 100, 1.0),
    "J2": Job("J2", 100, 100, 0.1, (256, 256)),
    "J3": Job("J3", 1000, 20, 1.0),
}


def examples(job: Job) -> Tensors:
    """Return the examples in order of their labels; for more than 100 clients digits are drawn with replacement."""
    images, labels = load_digits(return_X_y=True)
    if job.clients > 100:
        drawn = np.random.default_rng(0).integers(0, len(labels), 18 * job.clients)
        images, labels = images[drawn], labels[drawn]
    order = np.argsort(labels, kind="stable")
    return torch.from_numpy((images[order] / 16.0).astype(np.float32)), torch.from_numpy(labels[order])


def shards(job: Job, data: Tensors) -> list[Tensors]:
    """Return each client's examples."""
    return list(zip(*(part.tensor_split(job.clients) for part in data), strict=True))


def network(job: Job) -> nn.Sequential:
    """Return the untrained network: regression begins at zero, hidden layers as torch draws them from seed 0."""
    widths = (64, *job.hidden, 10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(one, other) for one, other in itertools.pairwise(widths)]
    if not job.hidden:
        for parameter in layers[0].parameters():
            nn.init.zeros_(parameter)
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]


def loss_of(model: nn.Module, data: Tensors) -> float:
    """Return the mean cross-entropy."""
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(data[0]), data[1]))


class Rounds:
    """When each round ended, and the loss when a tenth, or the last one, has.

    Parameters
    ----------
    job : Job
        The job.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ends: list[float] = []
        self.processor: list[float] = []
        self.loss = float("nan")

    def ended(self, number: int, loss: Callable[[], float]) -> None:
        """Take down that a round (1, 2, ..) has ended; `loss` is called if it is one that is evaluated."""
        if number % EVALUATION_EVERY == 0 or number == self.job.rounds:
            self.loss = loss()
        self.ends.append(time.perf_counter())
        self.processor.append(time.process_time())

    def report(self) -> str:
        """Return milliseconds per round after the warm-up, evaluations included, and the last loss, as JSON.

        Once as time that passed, once as what this process had of a processor, which other programs disturb less.
        """
        warm = self.job.warm_up
        if len(self.ends) != self.job.rounds:
            raise RuntimeError(f"{self.job.rounds} rounds must have ended; got {len(self.ends)}")
        steady = [1e3 * (ends[-1] - ends[warm - 1]) / (self.job.rounds - warm) for ends in (self.ends, self.processor)]
        return json.dumps({"loss": self.loss, "milliseconds": steady[0], "processor": steady[1]})


def contestant(description: str | None, play: Callable[[Job], Rounds], argv: Sequence[str] | None = None) -> None:
    """Be the command of a contestant: do one job, and print the report as the last line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--clients", type=int, help="as many as the job has unless told")
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args(argv)
    given = {name: value for name, value in (("clients", args.clients), ("rounds", args.rounds)) if value is not None}
    print(play(replace(JOBS[args.job], **given)).report())
