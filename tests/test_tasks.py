"""Tasks: shards that are what they say, gradients that are those of the objective, and training that gets somewhere."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate
from flwr.app import ArrayRecord, ConfigRecord

from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config
from fedgc.experiment.config.tasks import TASK_SECTIONS, TaskConfig
from fedgc.experiment.sweep import run_experiment
from fedgc.protocol import SHARD_SEED
from fedgc.tasks import PARTITIONS, TASKS, build_shards, build_task
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.mobile_network import MobileNetwork
from fedgc.tasks.shapes import drawn_images
from tests.command_line import fedgc

RAW: dict[str, Any] = {
    "name": "Tasks",
    "rounds": 20,
    "seeds": [1],
    "task": {"name": "digits-regression", "shards": 8, "partition": "sorted", "learning_rate": 1.0},
    "fleet": {"model": "log-normal", "clients": 4, "sigma": 0.5},
    "strategies": [{"kind": "fedavg"}],
}
#: Options with which a task is quick here.
QUICK: dict[str, dict[str, Any]] = {
    "images": {"examples": 40, "shards": 4, "size": 16, "width": 0.05, "local_steps": 2, "device": "cpu"}
}


def losses_of_descent(learning_rate: float, rounds: int) -> list[float]:
    """Gradient descent in double precision, written down a second time."""
    data = digits_data()
    x = np.c_[data.train_x, np.ones(len(data.train_x))].astype(np.float64)
    y = np.eye(10)[data.train_y]
    weights, losses = np.zeros((65, 10)), []
    for _ in range(rounds + 1):
        exponentials = np.exp(x @ weights)
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        losses.append(-np.log(probabilities[y == 1.0]).mean())
        weights -= learning_rate * x.T @ (probabilities - y) / len(x)
    return losses


@pytest.mark.parametrize("partition", PARTITIONS)
def test_fedavg_that_waits_for_everyone_is_gradient_descent(partition: str) -> None:
    rows = run_experiment(check_config({**RAW, "task": {**RAW["task"], "partition": partition}}))
    descent = losses_of_descent(1.0, 20)
    np.testing.assert_allclose([row.loss for row in rows], descent, rtol=0.0, atol=1e-5)
    assert descent[-1] < descent[0] / 3


def test_the_convolutions_mean_over_shards_is_a_step_on_the_whole() -> None:
    task, whole = (build_task("digits-conv", seed=2, shards=shards, learning_rate=0.3) for shards in (5, 1))
    start = task.initial_arrays()
    assert start == whole.initial_arrays()
    assert sum(array.numpy().size for array in start.values()) == 6090
    updates = [task.train_shard(shard, start, ConfigRecord()) for shard in range(5)]
    one = _numpy(whole.train_shard(0, start, ConfigRecord()))
    for name, value in one.items():
        mean = sum(update.num_examples * _numpy(update)[name].astype(np.float64) for update in updates) / 1437
        np.testing.assert_allclose(mean, value, atol=1e-6)
    # And its loss is the mean over the shards: what each says of the training examples before its step.
    means = sum(update.num_examples * update.metrics["train_loss"] for update in updates) / 1437
    assert task.evaluate(start)["loss"] == pytest.approx(means, abs=1e-5)


def _numpy(update: ShardUpdate) -> dict[str, np.ndarray[Any, Any]]:
    assert isinstance(update.arrays, dict)
    return {name: np.asarray(value) for name, value in update.arrays.items()}


@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_example_is_in_one_shard_and_a_seed_fixes_which(partition: Any) -> None:
    labels = digits_data().train_y
    shards, again, other = (build_shards(labels, 40, partition, 0.3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert sorted(np.concatenate(shards).tolist()) == list(range(labels.size))
    assert all(map(np.array_equal, shards, again)) and not all(map(np.array_equal, shards, other))
    assert min(map(len, shards)) >= 1
    kinds = np.mean([np.unique(labels[shard]).size for shard in shards])
    if partition == "sorted":
        assert kinds < 1.5
        assert (np.diff(labels[np.concatenate(shards)]) >= 0).all()
    if partition == "iid":
        assert kinds > 8.0
    if partition != "dirichlet":
        assert {len(shard) for shard in shards} == {35, 36}


def test_impossible_partitions_are_refused() -> None:
    labels, rng = np.zeros(3, dtype=np.int64), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"task.shards must be an integer from 1 to 3; got 4"):
        build_shards(labels, 4, "sorted", 0.3, rng)
    with pytest.raises(ValueError, match=r"task.partition must be one of dirichlet, iid, sorted; got 'sort', did you"):
        build_shards(labels, 2, "sort", 0.3, rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"task.name must be one of .*; got 'digit', did you mean digits"):
        build_task("digit", seed=0)


def test_every_task_has_a_section_and_builds_from_it() -> None:
    assert tuple(TASK_SECTIONS) == tuple(TASKS)
    assert len(get_args(get_args(TaskConfig)[0])) == len(TASKS)
    for name, section in TASK_SECTIONS.items():
        options = section(name=name, **QUICK.get(name, {})).options
        task = build_task(name, seed=3, **options)
        assert len(task.shard_examples) == options["shards"] and min(task.shard_examples) >= 1
        # The section's defaults are the task's own.
        assert build_task(name, seed=3, **QUICK.get(name, {})).shard_examples == task.shard_examples


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains(name: str, tmp_path: Path) -> None:
    options = {"shards": 8, "partition": "iid", **QUICK.get(name, {}), "name": name}
    keys = "\n".join(f"{key} = {value!r}" for key, value in options.items())
    rounds = 2 if name == "images" else 4
    (tmp_path / "a.toml").write_text(
        f'name = "A"\nrounds = {rounds}\nseeds = [1]\n[task]\n{keys}\n[fleet]\nmodel = "log-normal"\nclients = 2\n'
        '[[strategies]]\nkind = "fedavg"\n'
    )
    done = fedgc("run", tmp_path / "a.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "results.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == rounds + 1
    # So few images of so small a size are not learnt in a few rounds: that they can be is the next test.
    assert np.isfinite(losses).all() if name == "images" else losses[-1] < losses[0]


def test_images_can_be_learnt() -> None:
    options = {**QUICK["images"], "shards": 2, "width": 0.1, "local_steps": 10, "learning_rate": 0.05}
    task = build_task("images", seed=1, partition="iid", **options)
    arrays, losses = task.initial_arrays(), []
    for number in range(6):
        update = task.train_shard(0, arrays, ConfigRecord({SHARD_SEED: number}))
        losses.append(float(update.metrics["train_loss"]))
        arrays = ArrayRecord(update.arrays)
    assert losses[-1] < 0.7 * losses[0]


def test_drawn_images_are_the_same_for_every_seed_and_shards_are_not() -> None:
    images, labels = drawn_images(30, 16, np.random.default_rng(4))
    again, _ = drawn_images(30, 16, np.random.default_rng(4))
    assert np.array_equal(images, again) and np.bincount(labels).tolist() == [3] * 10
    first, second = (build_task("images", seed=seed, **QUICK["images"]) for seed in (1, 2))
    assert first.shard_examples != second.shard_examples
    start = first.initial_arrays()
    assert first.evaluate(start) == second.evaluate(start)
    one, two, other = (first.train_shard(0, start, ConfigRecord({SHARD_SEED: seed})) for seed in (5, 5, 6))
    assert ArrayRecord(_torch(one)) == ArrayRecord(_torch(two)) != ArrayRecord(_torch(other))


def _torch(update: ShardUpdate) -> dict[str, torch.Tensor]:
    return dict(update.arrays)  # type: ignore[arg-type]


def test_the_network_has_five_million_parameters_at_width_one() -> None:
    network = MobileNetwork(1.0, 10)
    assert 4.9e6 < sum(parameter.numel() for parameter in network.parameters()) < 5.1e6
    assert not list(network.buffers())  # running statistics would be no gradients
    assert MobileNetwork(0.05, 10)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"name": "digit"},
            "task.name must be one of digits, digits-regression, digits-conv, images; got 'digit', did",
        ),
        (
            {"name": "digits-regression", "learning_rat": 1.0},
            "task.learning_rat is not a known key, allowed are name, shards, partition, alpha, learning_rate; got 1.0, "
            "did you mean learning_rate?",
        ),
        ({"name": "digits-conv", "hidden": 3}, "task.hidden is not a known key, allowed are name, shards, partition"),
        ({"name": "digits-conv", "partition": "sort"}, "task.partition must be 'dirichlet', 'sorted' or 'iid'; got"),
        ({"name": "images", "device": "cuda"}, "task.device must be 'auto' or 'cpu'; got 'cuda'"),
        ({"name": "images", "examples": 10}, "task.shards must be at most task.examples = 10; got 20"),
        (3, "task must be a valid dictionary or instance of DigitsConfig; got 3"),
    ],
)
def test_wrong_keys_are_told_in_one_line(task: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config({**RAW, "task": task})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
