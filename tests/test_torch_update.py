"""The torch helpers: against plain loops and closed forms, reproducible, and in training over real messages."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded, torch_arrays, torch_epochs, torch_gradient
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import run_virtual
from fedgc.updates import apply_update, average_statistics
from tests.apps import arrays_of, steady
from tests.torch_cases import CONFIG, SGD, deltas, in_batches, made, needs_gpu, numbers, small_net


def test_epochs_are_those_of_a_plain_loop() -> None:
    """No dropout and no shuffling: then the loop is the usual one, buffers and frozen parameters included."""
    net, batches = made(small_net), in_batches(numbers(11), 4)
    net[3].p = 0.0
    net[4].requires_grad_(False)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    other = made(small_net, seed=1)  # whatever is in the helper's network is overwritten
    other[3].p = 0.0
    other[4].requires_grad_(False)
    made_update = torch_epochs(
        other,
        batches,
        ArrayRecord(start),
        CONFIG,
        loss=nn.MSELoss(),
        optimizer=SGD,
        epochs=3,
        metrics={"l1": nn.L1Loss()},
    )
    steps, losses, absolute = SGD(net.parameters()), [], []
    for _ in range(3):
        for x, y in batches:
            steps.zero_grad()
            output = net(x)
            loss = nn.MSELoss()(output, y)
            loss.backward()
            steps.step()
            losses += [float(loss.detach())] * len(x)
            absolute += (output - y).abs().flatten().tolist()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(deltas(made_update)[name], (value - start[name]).numpy(), err_msg=name)
    assert not deltas(made_update)["4.weight"].any() and deltas(made_update)["1.num_batches_tracked"] == 9
    assert made_update.num_examples == 11
    assert made_update.metrics == pytest.approx({"train_loss": np.mean(losses), "l1": np.mean(absolute)}, rel=1e-6)


class Noisy(TensorDataset):
    """Data augmented from all three global generators."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + random.random() + float(np.random.normal()) + torch.randn(1), y


@pytest.mark.parametrize("own", [False, True], ids=["global generator", "loader's own generator"])
@pytest.mark.parametrize("reused", [False, True], ids=["optimizer made", "optimizer reused"])
def test_the_same_shard_gives_the_same_bits_after_whatever_else(own: bool, reused: bool) -> None:
    net = made(small_net)
    arrays = ArrayRecord(net.state_dict())
    sgd: Any = SGD(net.parameters()) if reused else SGD
    loaders = [
        DataLoader(Noisy(*numbers(11, seed)), 4, shuffle=True, generator=torch.Generator() if own else None)
        for seed in range(2)
    ]

    def update(shard_id: int, seed: int = 11) -> dict[str, Any]:
        config = ConfigRecord({"shard-seed": seed})
        made_update = torch_epochs(net, loaders[shard_id], arrays, config, loss=nn.MSELoss(), optimizer=sgd, epochs=2)
        return {**deltas(made_update), **made_update.metrics}

    first = update(0)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    other = update(1)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    random.random(), np.random.normal(), torch.randn(1)
    again = update(0)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (first["0.weight"] != other["0.weight"]).any()
    assert (first["0.weight"] != update(0, seed=12)["0.weight"]).any()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("size", [1, 3, 4, 7])
@pytest.mark.parametrize("order", [1, -1])
def test_a_gradient_over_all_data_whatever_the_batches(size: int, order: int) -> None:
    """Closed form in numpy: loss ``mean |W W x + b - y|^2 / 2``, W tied, b frozen."""
    rng = np.random.default_rng(2)
    w, b, x, y = (rng.normal(size=shape) for shape in ((2, 2), 2, (7, 2), (7, 2)))
    arrays = {"first.weight": w, "second.weight": w, "second.bias": b, "unused": np.ones((0, 2))}
    record = ArrayRecord({name: torch.tensor(value, dtype=torch.float32) for name, value in arrays.items()})
    data = [torch.tensor(part, dtype=torch.float32) for part in (x, y)]
    update = torch_gradient(
        Tied(), in_batches((data[0], data[1]), size)[::order], record, CONFIG, loss=nn.MSELoss(), learning_rate=0.5
    )
    error = (x @ w.T @ w.T + b - y) / 7.0
    gradient = error.T @ (x @ w.T) + w.T @ error.T @ x
    for name in ("first.weight", "second.weight"):
        np.testing.assert_allclose(deltas(update)[name], -0.5 * gradient, rtol=2e-6, atol=1e-6)
    assert not deltas(update)["second.bias"].any() and deltas(update)["unused"].shape == (0, 2)
    assert update.num_examples == 7
    assert update.metrics["train_loss"] == pytest.approx(float(((7.0 * error) ** 2).mean()), rel=1e-5)


def test_a_gradient_is_one_step_for_running_statistics() -> None:
    x, y = numbers(7)
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=0.2), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].running_mean.fill_(2.0)
    arrays = torch_arrays(net)
    batches = in_batches((x, y), 4)
    update = deltas(torch_gradient(net, batches, arrays, CONFIG, loss=nn.MSELoss()))
    np.testing.assert_allclose(update["0.running_mean"], 0.2 * (x.numpy().mean(axis=0) - 2.0), rtol=1e-5)
    variance = sum(len(part) * part.numpy().var(axis=0, ddof=1) for part, _ in batches) / 7
    np.testing.assert_allclose(update["0.running_var"], 0.2 * (variance - 1.0), rtol=1e-4)
    assert update["0.num_batches_tracked"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_what_half_precision_cannot_hold_adds_up_on_the_server(dtype: torch.dtype) -> None:
    """Steps of 1e-4 from a weight of 1: bfloat16 rounds each of them away, the server's float32 keeps them."""
    net = nn.Linear(1, 1, bias=False, dtype=dtype)
    data = [(torch.ones(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype))]
    app, server, results = ClientApp(), ServerApp(), []

    @app.train()
    @gradient_coded()
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return torch_gradient(net, data, arrays, config, loss=lambda output, _: output.mean(), learning_rate=1e-4)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        certain = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
        inner = FedAvg(fraction_evaluate=0.0)
        strategy = GradientCoding(inner, num_shards=2, deadline=10.0, shard_examples=[2, 2], reliability=certain)
        results.append(strategy.start(grid, ArrayRecord({"weight": torch.ones(1, 1)}), num_rounds=10))

    run_virtual(server, app, steady(2))
    assert results[0].arrays["weight"].dtype == "float32"
    np.testing.assert_allclose(results[0].arrays["weight"].numpy(), 1.0 - 10 * 1e-4, rtol=0, atol=2e-6)


def test_bfloat16_goes_there_and_back() -> None:
    net = made(small_net).bfloat16()
    with pytest.raises(TypeError, match="unsupported ScalarType BFloat16"):
        ArrayRecord(net.state_dict())  # Flower's own way; once it can do this, torch_arrays need not widen
    record = torch_arrays(net)
    other = made(small_net, seed=1).bfloat16()
    x, y = (part.bfloat16() for part in numbers(4))
    zero = torch_epochs(other, [(x, y)], record, CONFIG, loss=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=0.0))
    for name, value in other.state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, net.state_dict()[name])
            assert not deltas(zero)[name].any() and deltas(zero)[name].dtype == np.float32
    # What the server holds in more digits than the client is not pulled to where the client rounds it.
    finer = ArrayRecord({n: v + 1e-4 if v.is_floating_point() else v for n, v in made(small_net).state_dict().items()})
    zero = torch_epochs(other, [(x, y)], finer, CONFIG, loss=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=0.0))
    assert not deltas(zero)["0.weight"].any()


def test_counters_that_were_averaged_are_rounded_and_not_cut() -> None:
    net = nn.BatchNorm1d(2)
    arrays = {**arrays_of(ArrayRecord(net.state_dict())), "num_batches_tracked": np.array(2.9999)}
    record = ArrayRecord({name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()})
    update = torch_gradient(net, [(torch.randn(3, 2), torch.zeros(3, 2))], record, CONFIG, loss=nn.MSELoss())
    assert net.num_batches_tracked == 3 and deltas(update)["num_batches_tracked"] == 1.0


class Masked(nn.Module):
    """A mask among the buffers, which training may change."""

    def __init__(self, *, flips: bool) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.linear = nn.Linear(3, 1)
        self.flips = flips

    def forward(self, x: Tensor) -> Tensor:
        if self.flips:
            self.mask = ~self.mask
        return self.linear(x * self.mask)


@pytest.mark.parametrize("helper", [partial(torch_epochs, optimizer=SGD), torch_gradient])
@pytest.mark.parametrize(("flips", "change"), [(False, [0.0, 0.0, 0.0]), (True, [-1.0, 1.0, -1.0])])
def test_a_mask_of_booleans_may_be_a_buffer(helper: Callable[..., ShardUpdate], flips: bool, change: Any) -> None:
    net = Masked(flips=flips)
    start = torch_arrays(net)
    update = helper(net, in_batches(numbers(5), 5), start, CONFIG, loss=nn.MSELoss())
    assert deltas(update)["mask"].tolist() == change
    assert deltas(update)["linear.weight"].any()


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.scale * left * right


@pytest.mark.parametrize("form", [tuple, list, lambda pair: {"left": pair[0], "right": pair[1]}])
def test_inputs_may_be_several(form: Callable[[Any], Any]) -> None:
    loader = [(form((torch.full((2,), 3.0), torch.tensor([1.0, 2.0]))), {"y": torch.zeros(2)})]
    arrays = ArrayRecord({"scale": torch.tensor(2.0)})
    update = torch_gradient(
        Product(), loader, arrays, CONFIG, loss=lambda output, targets: (output - targets["y"]).mean()
    )
    assert deltas(update)["scale"] == -4.5 and update.num_examples == 2


@pytest.mark.parametrize("helper", [partial(torch_epochs, optimizer=SGD), torch_gradient])
def test_a_shard_without_data_counts_nothing(helper: Callable[..., ShardUpdate]) -> None:
    net = made(small_net)
    update = helper(net, [], torch_arrays(net), CONFIG, loss=nn.MSELoss())
    assert update.num_examples == 0 and update.metrics == {}
    assert not any(value.any() for value in deltas(update).values())


def test_submodules_keep_their_mode_unless_all_are_evaluated() -> None:
    net = made(small_net)
    arrays, batches = torch_arrays(net), in_batches(numbers(4), 4)
    net[1].eval()  # frozen statistics
    update = torch_gradient(net, batches, arrays, CONFIG, loss=nn.MSELoss())
    assert not deltas(update)["1.running_mean"].any() and not net[1].training
    net.eval()
    update = torch_gradient(net, batches, arrays, CONFIG, loss=nn.MSELoss())
    assert deltas(update)["1.running_mean"].any() and net[1].training


PAIR = [(torch.zeros(2, 3), torch.zeros(2, 1))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1; got 0"),
        (
            {"loader": iter(PAIR), "epochs": 2},
            "loader must be iterable once per epoch; got a list_iterator for 2 epochs",
        ),
        ({"loader": [torch.zeros(2, 3)]}, r"loader must yield pairs \(inputs, targets\); got a Tensor"),
        (
            {"loader": [(torch.zeros(2, 3), torch.tensor(0.0))]},
            r"targets must be tensors with a row per example; got tensor\(0.\)",
        ),
        (
            {"loss": nn.MSELoss(reduction="sum")},
            "loss must be a mean over the examples of a batch; got reduction 'sum'",
        ),
        ({"device": "warp"}, "device must be one that torch has here; got 'warp'"),
        (
            {"config": ConfigRecord({"shard-seed": 1, "proximal-mu": -1.0})},
            r'config\["proximal-mu"\] must be a finite number of at least 0; got -1.0',
        ),
        ({"config": ConfigRecord()}, r"config must hold 'shard-seed', as gradient_coded passes it; got \[\]"),
        ({"arrays": ArrayRecord({"bias": torch.zeros(1)})}, r"got missing \['weight'\], unknown \[\]"),
        (
            {"arrays": ArrayRecord({"weight": torch.zeros(3, 1), "bias": torch.zeros(1)})},
            r"array 'weight' must have shape \(1, 3\); got \(3, 1\)",
        ),
        (
            {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)},
            "optimizer must hold the parameters of this model and no others; got others",
        ),
        (
            {"model": nn.Linear(3, 1, dtype=torch.complex64)},
            "entry 'weight' of the model's state must be a tensor of real numbers; got torch.complex64",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(changes: dict[str, Any], message: str) -> None:
    model = made(lambda: nn.Linear(3, 1))
    given = {"model": model, "loader": PAIR, "arrays": torch_arrays(model), "config": CONFIG, "loss": nn.MSELoss()}
    with pytest.raises(ValueError, match=f"{message}$") as raised:
        torch_epochs(**{**given, "optimizer": SGD, **changes})
    assert "\n" not in str(raised.value)


def test_torch_is_loaded_only_when_asked_for() -> None:
    script = (
        "import sys, fedgc, fedgc.clients, fedgc.strategies; assert 'torch' not in sys.modules\n"
        "import fedgc.clients.torch_update\n"
        "from fedgc.clients import torch_epochs, torch_gradient, torch_arrays\n"
        "assert callable(torch_epochs) and callable(torch_gradient) and callable(torch_arrays)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@needs_gpu
def test_on_a_gpu_as_on_the_cpu() -> None:
    batches, results, before = in_batches(numbers(11), 4), [], torch.cuda.get_rng_state()
    for device in ("cpu", "cuda"):
        net = made(small_net)
        net[3].p = 0.0
        arrays = torch_arrays(net)
        results.append(torch_epochs(net, batches, arrays, CONFIG, loss=nn.MSELoss(), optimizer=SGD, device=device))
    for name, value in deltas(results[0]).items():
        np.testing.assert_allclose(deltas(results[1])[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_running_variances_stay_positive_when_weights_sum_to_more_than_one() -> None:
    """Variances of 1 that fell to 0.1 on every shard, and one shard of two that counts for 1.2 of the two."""
    start = {"norm.running_var": np.ones(2, dtype=np.float32), "norm.weight": np.ones(2, dtype=np.float32)}
    decoded = {name: np.full(2, 1.2 * (0.1 - 1.0)) for name in start}
    assert (apply_update(start, decoded)["norm.running_var"] < 0.0).all()
    after = apply_update(start, average_statistics(decoded, 1.2))
    np.testing.assert_allclose(after["norm.running_var"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(after["norm.weight"], 1.0 - 1.08, rtol=1e-5)
    assert not average_statistics(decoded, 0.0)["norm.running_var"].any()
