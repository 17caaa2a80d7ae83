"""A residual network with batch normalisation: as accurate with stragglers as without, the same on a GPU each time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded, torch_arrays, torch_epochs
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import run_virtual
from tests.apps import steady
from tests.torch_cases import CONFIG, SGD, deltas, made, needs_gpu


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet() -> nn.Module:
    stem = [nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    blocks = [Residual(8, 8, 1), Residual(8, 16, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def wide_resnet() -> nn.Module:
    """Return a network for whose convolutions cuDNN has several algorithms."""
    blocks = [Residual(1, 64, 2), Residual(64, 64, 1), Residual(64, 128, 2), Residual(128, 128, 1)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a network trains slower on several threads, by far where they share their cores with others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def resnet_accuracy(strategy: Strategy, fleet: Fleet, *, rounds: int, device: str) -> float:
    """Train the network on 12 shards of the digits and return its accuracy on 360 others, in evaluation mode."""
    images, labels = load_digits(return_X_y=True)
    mixed = np.random.default_rng(1).permutation(len(labels))
    x = torch.tensor(images[mixed] / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels[mixed])
    app, server, found = ClientApp(), ServerApp(), []

    @app.train()
    @gradient_coded(num_shards=12)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        loader = DataLoader(TensorDataset(x[shard_id:1437:12], y[shard_id:1437:12]), batch_size=20, shuffle=True)
        sgd, loss = partial(torch.optim.SGD, lr=0.05, momentum=0.9), nn.CrossEntropyLoss()
        return torch_epochs(resnet(), loader, arrays, config, loss=loss, optimizer=sgd, epochs=2, device=device)

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        net = resnet()
        net.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            found.append(float((net.eval()(x[1437:]).argmax(1) == y[1437:]).float().mean()))
        return MetricRecord({"accuracy": found[-1]})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, torch_arrays(made(resnet)), num_rounds=rounds, evaluate_fn=evaluate)

    run_virtual(server, app, fleet, num_shards=12)
    return float(np.mean(found[-2:]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.usefixtures("one_thread")
def test_a_residual_network_with_stragglers_is_as_accurate_as_without(device: str) -> None:
    """Running statistics are trained along: the accuracies are those of evaluation mode."""
    fleet = build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.5, "dropout": 0.1}, seed=1)
    coded = GradientCoding(
        FedAvg(fraction_evaluate=0.0), num_shards=12, deadline=5.0, shard_examples=[120] * 9 + [119] * 3
    )
    plain = resnet_accuracy(FedAvg(fraction_evaluate=0.0), steady(), rounds=9, device=device)
    straggling = resnet_accuracy(coded, fleet, rounds=9, device=device)
    assert np.mean([report.n_arrived for report in coded.history]) < 4.5
    assert plain > 0.93
    # z = 3 standard errors of one accuracy on 360 images, about 0.033; both are tested on the same images.
    assert straggling > plain - 3.0 * np.sqrt(plain * (1.0 - plain) / 360)


@needs_gpu
def test_on_a_gpu_twice_the_same() -> None:
    """Left to itself, cuDNN sums in another order each time, and training makes that large."""
    x, y = torch.rand(256, 1, 32, 32), torch.arange(256) % 10
    loader, settings = DataLoader(TensorDataset(x, y), batch_size=32), torch.backends.cudnn
    arrays, before = torch_arrays(made(wide_resnet)), (settings.deterministic, settings.benchmark)
    once, again = (
        deltas(
            torch_epochs(
                wide_resnet(),
                loader,
                arrays,
                CONFIG,
                loss=nn.CrossEntropyLoss(),
                optimizer=SGD,
                epochs=2,
                device="cuda",
            )
        )
        for _ in range(2)
    )
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert (settings.deterministic, settings.benchmark) == before
