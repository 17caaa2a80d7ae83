"""A network whose shards each take one step: by messages and as one tensor operation a round, the same descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fedgc.clients import gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedgc.coherence import KnownCoherence
from fedgc.decoders import DECODERS
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws
from fedgc.replay import Method, descend, known_rounds
from fedgc.schemes import CODES
from fedgc.simulation import run_virtual
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.network_step import NetworkStepTask
from fedgc.tasks.torch_model import drawn_arrays

CLIENTS, ROUNDS = 12, 12


def perceptron(shards: list[np.ndarray], rate: float = 0.1) -> NetworkStepTask:
    """A perceptron with two hidden layers on digits."""
    data = digits_data()
    train, test = (
        (torch.from_numpy(x), torch.from_numpy(y))
        for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y))
    )
    network = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    return NetworkStepTask(network, drawn_arrays(network, 3), train, test, shards=shards, learning_rate=rate)


def sorted_by_label(sizes: list[int] | int) -> list[np.ndarray]:
    order = np.argsort(digits_data().train_y, kind="stable")
    return np.array_split(order, sizes if isinstance(sizes, int) else np.cumsum(sizes))


@pytest.mark.parametrize(("sizes", "batched"), [(CLIENTS, True), ([700, 30, 10, 200, 1], False)])
def test_all_gradients_at_once_are_those_of_single_shards(sizes: list[int] | int, batched: bool) -> None:
    """Against autograd, shard by shard and in double precision."""
    task = perceptron(sorted_by_label(sizes))
    assert (task._batch is not None) == batched
    weights = task.initial_weights()
    loss, parts = task.shard_gradients(weights)
    x, y = task._train
    network = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)).double()
    network.load_state_dict(task.as_arrays(weights).to_torch_state_dict())
    expected = []
    for shard in task.shards:
        value = nn.functional.cross_entropy(network(x[shard].double()), y[shard], reduction="sum") / len(y)
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(network.parameters()))])
        expected.append(flat.numpy())
    np.testing.assert_allclose(parts, expected, atol=1e-6)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(network(x.double()), y).detach()), abs=1e-6)
    coverages = np.random.default_rng(0).random((3, len(expected))).astype(np.float32)
    coverages[2] = coverages[0]
    same_loss, sums = task.weighted_gradients(weights, coverages)
    assert same_loss == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(sums, coverages @ np.array(expected), atol=1e-6)


@pytest.mark.parametrize("decoder", ["optimal-unbiased", "least-squares", "fixed"])
def test_a_round_as_one_operation_is_the_round_of_messages(decoder: str) -> None:
    """Same code, plan and draws, with clients that miss the deadline: losses and models agree to 1e-6."""
    task = perceptron(sorted_by_label(CLIENTS))
    losses: list[float] = []
    ends: list[ArrayRecord] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        losses.append(float(task.evaluate(arrays)["loss"]))  # type: ignore[arg-type]
        ends.append(arrays)
        return MetricRecord({"loss": losses[-1]})

    fleet = build_fleet({"preset": "paper", "clients": CLIENTS}, seed=1)
    coding = GradientCoding(
        FedAvg(fraction_evaluate=0.0),
        num_shards=CLIENTS,
        load=2,
        code="equal-blocks",
        decoder=decoder,
        deadline=1.5,
        timing=fleet,
        coherence=KnownCoherence(1.0, 0.0),
        shard_examples=task.shard_examples,
        seed=1,
    )
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded(num_shards=CLIENTS)(task.train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        coding.start(grid, task.initial_arrays(), num_rounds=ROUNDS, evaluate_fn=evaluate)

    run_virtual(server, app, fleet, num_shards=CLIENTS)
    draws = RoundDraws(build_fleet({"preset": "paper", "clients": CLIENTS}, seed=1))
    method = Method(CODES["equal-blocks"], DECODERS[decoder](), load=2, deadline=1.5, coherence=0.0)
    rounds = known_rounds(method, draws, task.shard_examples, ROUNDS, seed=1)
    arrived = rounds.played.arrived.sum(axis=1)
    assert 0 < arrived.min() < CLIENTS, "some are late"
    steps = list(descend(task, rounds, 0.1))
    np.testing.assert_allclose([step.loss for step in steps], losses, atol=1e-6)
    last = np.concatenate([array.numpy().ravel() for array in ends[-1].values()])
    np.testing.assert_allclose(steps[-1].weights, last, atol=1e-6)
    assert losses[-1] < losses[0] - 0.005, "it has trained"
