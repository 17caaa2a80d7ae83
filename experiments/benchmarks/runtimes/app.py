"""The jobs as Flower apps: nothing in them knows in which runtime they run.

The loop of the client is the usual one: arrays into a network, a step of torch's optimiser, a reply with the network's
arrays and the number of examples. What an actor makes of a job, its data and network, it keeps for its other clients.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from jobs import Job, Rounds, Tensors, examples, loss_of, network, shards
from torch import nn


@lru_cache(maxsize=1)
def loaded(job: Job) -> tuple[list[Tensors], nn.Sequential]:
    """Return the shards, and a network to work in."""
    return shards(job, examples(job)), network(job)


def step(job: Job, shard: int, arrays: ArrayRecord) -> tuple[nn.Sequential, int]:
    """Return the network after a step on a shard, and the shard's number of examples."""
    parts, model = loaded(job)
    x, y = parts[shard]
    model.load_state_dict(arrays.to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=job.learning_rate)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    return model, len(y)


def client_app(job: Job) -> ClientApp:
    """Return a ClientApp for plain strategies."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model, n_examples = step(job, int(context.node_config["partition-id"]), message.content["arrays"])
        metrics = MetricRecord({"num-examples": n_examples})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    return app


def fedavg(job: Job) -> FedAvg:
    """Return FedAvg that asks every client, and evaluates on the server alone."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=job.clients, min_available_nodes=job.clients)


def server_app(strategy: Strategy, rounds: Rounds) -> ServerApp:
    """Return a ServerApp that has a strategy do the job of `rounds`, and takes down there when rounds end."""
    job, app = rounds.job, ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        model, data = network(job), examples(job)

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            def loss() -> float:
                model.load_state_dict(arrays.to_torch_state_dict())
                return loss_of(model, data)

            if number:
                rounds.ended(number, loss)
            return None

        initial = ArrayRecord(model.state_dict())
        strategy.start(grid, initial, num_rounds=job.rounds, train_config=ConfigRecord(), evaluate_fn=evaluate)

    return app
