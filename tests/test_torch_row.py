"""A torch model trained on a row of shards: the plain loop over its batches, and what it leaves as it was."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import RowOfShards, torch_arrays, torch_in_a_row
from fedgc.clients.encode import Budget
from flwr.app import ConfigRecord
from torch import nn
from torch.utils.data import TensorDataset

from tests.torch_cases import CONFIG, deltas, made

SGD = partial(torch.optim.SGD, lr=0.2)
X = torch.linspace(-1.0, 1.0, 22).reshape(11, 2)
DATA = TensorDataset(X, X.sum(1, keepdim=True) ** 2)


def examples_of(shard_id: int) -> Any:
    return np.arange(11)[shard_id::3]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


def row() -> RowOfShards:
    return RowOfShards([4, 0, 1, 3], 2, Budget(ConfigRecord()), seed_of=lambda shard: 5 + shard)


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_it_is_a_plain_loop_in_which_a_smaller_batch_counts_for_less(mu: float) -> None:
    config = ConfigRecord({**CONFIG, "proximal-mu": mu})
    expected, start = made(net), [value.detach().clone() for value in made(net).parameters()]
    losses, weights = [], []
    for batch in row().batches(examples_of, size=7, epochs=2):
        inputs, targets = (part[batch] for part in DATA.tensors)
        loss = nn.MSELoss()(expected(inputs), targets)
        away = sum(((own - old) ** 2).sum() for own, old in zip(expected.parameters(), start, strict=True))
        gradients = torch.autograd.grad(loss * len(batch) / 7 + mu / 2.0 * away, list(expected.parameters()))
        for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
            parameter.data.sub_(gradient, alpha=0.2)
        losses.append(float(loss.detach()))
        weights.append(len(batch))
    assert weights == [7, 7, 2]
    mine = row()
    update = torch_in_a_row(
        made(net, seed=1), DATA, mine, torch_arrays(made(net)), config,
        examples_of=examples_of, loss=nn.MSELoss(), optimizer=SGD, batch_size=7, epochs=2, metrics={"l1": nn.L1Loss()},
    )  # fmt: skip
    for (name, value), old in zip(expected.state_dict().items(), start, strict=True):
        np.testing.assert_allclose(deltas(update)[name], (value - old).numpy(), rtol=1e-5, atol=1e-7, err_msg=name)
    assert update.num_examples == mine.num_examples == sum(weights) // 2
    assert update.metrics["train_loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    assert "l1" in update.metrics


def test_it_leaves_the_global_generators_as_they_were() -> None:
    def draw() -> tuple[float, float]:
        return float(torch.rand(1)), float(np.random.random())

    torch.manual_seed(3), np.random.seed(3)
    plain = draw()
    torch.manual_seed(3), np.random.seed(3)
    options: dict[str, Any] = {"examples_of": examples_of, "loss": nn.MSELoss(), "optimizer": SGD, "batch_size": 3}
    torch_in_a_row(made(net), DATA, row(), torch_arrays(made(net)), CONFIG, **options)
    assert draw() == plain


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("epochs", 0), ("device", "toaster")])
def test_arguments_are_checked(name: str, value: Any) -> None:
    options: dict[str, Any] = {"examples_of": examples_of, "loss": nn.MSELoss(), "optimizer": SGD, "batch_size": 3}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        torch_in_a_row(made(net), DATA, row(), torch_arrays(made(net)), CONFIG, **{**options, name: value})
