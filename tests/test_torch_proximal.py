"""FedProx's proximal term in the torch helpers: against plain loops, and over real messages."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded, torch_epochs
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedProx
from torch import Tensor, nn

from fedgc.simulation import run_virtual
from tests.apps import arrays_of, steady
from tests.torch_cases import CONFIG, SGD, deltas, in_batches, made, numbers, small_net


class WithUnused(nn.Module):
    """A parameter that the loss does not depend on: only weight decay, and the proximal term, move it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.unused = small_net(), nn.Parameter(torch.full((2,), 3.0))
        self.net[3].p = 0.0
        self.net[0].requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + 0.0 * self.unused.sum()  # type: ignore[no-any-return]


@pytest.mark.parametrize("mu", [0.3, 2.0])
def test_the_proximal_term_is_that_of_a_plain_loop(mu: float) -> None:
    net, batches = made(WithUnused), in_batches(numbers(11), 4)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    config = ConfigRecord({"shard-seed": 11, "proximal-mu": mu})
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
    update = torch_epochs(
        made(WithUnused, seed=1), batches, ArrayRecord(start), config, loss=nn.MSELoss(), optimizer=sgd, epochs=3
    )
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    steps, losses = sgd(trained.values()), []
    for _ in range(3):
        for x, y in batches:
            steps.zero_grad()
            loss = nn.MSELoss()(net(x), y)
            away = sum(((parameter - start[name]) ** 2).sum() for name, parameter in trained.items())
            (loss + mu / 2.0 * away).backward()
            steps.step()
            losses += [float(loss.detach())] * len(x)
    plain = torch_epochs(
        made(WithUnused, seed=1), batches, ArrayRecord(start), CONFIG, loss=nn.MSELoss(), optimizer=sgd, epochs=3
    )
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(deltas(update)[name], value - start[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert np.abs(deltas(plain)["net.4.weight"] - deltas(update)["net.4.weight"]).max() > 1e-3
    assert update.metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_without_a_weight_there_is_no_proximal_term_at_all() -> None:
    net, batches = made(small_net), in_batches(numbers(11), 4)
    bits = [
        {name: value.tobytes() for name, value in deltas(update).items()}
        for config in ({}, {"proximal-mu": 0.0})
        for update in [
            torch_epochs(
                net,
                batches,
                ArrayRecord(made(small_net).state_dict()),
                ConfigRecord({"shard-seed": 11, **config}),
                loss=nn.MSELoss(),
                optimizer=SGD,
                epochs=2,
            )
        ]
    ]
    assert bits[0] == bits[1]


def test_fedprox_pulls_to_the_global_model_over_real_messages() -> None:
    """With one step the term is zero; with many and a large weight shards hardly move."""
    lengths: dict[tuple[float, int], float] = {}
    for mu, epochs in ((0.0, 1), (5.0, 1), (0.0, 20), (5.0, 20)):
        app = ClientApp()

        @app.train()
        @gradient_coded(num_shards=4)
        def _(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, epochs: int = epochs) -> ShardUpdate:
            sgd = partial(torch.optim.SGD, lr=0.05)
            data = [numbers(8, seed=shard_id)]
            return torch_epochs(nn.Linear(3, 1), data, arrays, config, loss=nn.MSELoss(), optimizer=sgd, epochs=epochs)

        results = []

        def main(grid: Grid, context: Context, mu: float = mu, results: list[Any] = results) -> None:
            inner = FedProx(fraction_evaluate=0.0, proximal_mu=mu)
            strategy = GradientCoding(inner, num_shards=4, deadline=10.0)
            start = ArrayRecord(made(lambda: nn.Linear(3, 1)).state_dict())
            results.append(strategy.start(grid, start, num_rounds=1))

        server = ServerApp()
        server.main()(main)
        run_virtual(server, app, steady(4))
        moved = arrays_of(results[0].arrays)["weight"] - made(lambda: nn.Linear(3, 1)).state_dict()["weight"].numpy()
        lengths[mu, epochs] = float(np.linalg.norm(moved))
    assert lengths[0.0, 1] == lengths[5.0, 1]
    assert lengths[5.0, 20] < 0.5 * lengths[0.0, 20]
