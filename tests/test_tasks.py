"""Tasks: their shards, that they train, and where runs on them end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig, check_config
from fedgc.experiment.figure import draw_figure
from fedgc.experiment.rows import Row
from fedgc.experiment.sweep import run_experiment
from fedgc.protocol import SHARD_SEED
from fedgc.tasks import PARTITIONS, TASKS, Partition, build_shards, build_task
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.mobile_network import MobileNetwork

SMALL: dict[str, dict[str, Any]] = {
    "digits": {"shards": 6},
    "digits-regression": {"shards": 6},
    "digits-conv": {"shards": 6},
    "images": {"shards": 3, "examples": 60, "size": 16, "width": 0.05, "local_steps": 3, "device": "cpu"},
}


@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_example_is_in_one_shard_and_shards_are_those_of_the_seed(partition: Partition) -> None:
    labels = digits_data().train_y
    first, again, other = (build_shards(labels, 40, partition, 0.3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(labels.size))
    assert min(shard.size for shard in first) >= 1
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert any(one.tolist() != two.tolist() for one, two in zip(first, other, strict=True))
    sizes = [shard.size for shard in first]
    assert (max(sizes) - min(sizes) <= 1) == (partition != "dirichlet")
    mean_labels = np.mean([np.unique(labels[shard]).size for shard in first])
    if partition == "sorted":
        assert (np.diff(labels[np.concatenate(first)]) >= 0).all()
        assert mean_labels < 1.5
    elif partition == "iid":
        assert mean_labels > 9.0
    else:
        assert 2.0 < mean_labels < 9.0


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_is_the_same_task(name: str) -> None:
    first, again, other = (build_task(name, seed=seed, **SMALL[name]) for seed in (1, 1, 2))
    assert first.shard_examples == again.shard_examples
    config = ConfigRecord({SHARD_SEED: 5})
    arrays = first.initial_arrays()
    updates = [task.train_shard(1, arrays, config).arrays for task in (first, again, other)]
    key = next(iter(arrays))
    one, two, three = (np.asarray(update[key]) for update in updates)  # type: ignore[index]
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - three).max() > 0.0


def experiment(**options: Any) -> ExperimentConfig:
    raw = {
        "name": "Tasks",
        "rounds": 20,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 6},
        "fleet": {"preset": "lognormal", "clients": 3},
        "strategies": [{"kind": "fedavg"}],
        **options,
    }
    return check_config(raw)


def test_waiting_for_all_is_gradient_descent() -> None:
    data = digits_data()
    x = np.hstack([data.train_x, np.ones((len(data.train_x), 1))]).astype(np.float64)
    labels = np.eye(10)[data.train_y]
    weights, losses = np.zeros((65, 10)), []
    for _ in range(21):
        logits = x @ weights
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances = odds / odds.sum(axis=1, keepdims=True)
        losses.append(-np.log((chances * labels).sum(axis=1)).mean())
        weights -= x.T @ (chances - labels) / len(x)
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose([row.loss for row in run_experiment(experiment())], losses, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"images"}))
def test_tasks_of_digits_train(name: str) -> None:
    rows = run_experiment(experiment(task={"name": name, **SMALL[name]}, rounds=16))
    assert rows[-1].loss < 0.97 * rows[0].loss


def test_the_task_of_images_trains() -> None:
    """On one shard: it takes a few hundred steps before the loss falls in earnest."""
    task = build_task("images", seed=1, shards=1, examples=1000, local_steps=100, learning_rate=0.05, device="cpu")
    arrays, losses = task.initial_arrays(), []
    for number in range(3):
        update = task.train_shard(0, arrays, ConfigRecord({SHARD_SEED: number}))
        arrays = ArrayRecord(update.arrays)
        losses.append(update.metrics["train_loss"])
    assert losses[-1] < 0.9 * losses[0]
    assert float(task.evaluate(arrays)["accuracy"]) > 0.2  # type: ignore[arg-type]


def test_the_network_for_images_is_as_large_as_those_on_phones() -> None:
    assert 4.5e6 < sum(parameter.numel() for parameter in MobileNetwork(1.0, 10).parameters()) < 6.0e6


def rounds_of(rows: list[Row]) -> list[int]:
    return [row.round for row in rows]


@pytest.mark.parametrize("runtime", ["virtual", "replay"])
def test_a_run_keeps_the_rounds_that_are_asked_for_and_ends_at_its_target(runtime: str) -> None:
    options = {"runtime": runtime, "timing": "known"}
    every = run_experiment(experiment(**options))
    assert rounds_of(every) == list(range(21))
    target = (every[12].loss + every[13].loss) / 2.0
    some = run_experiment(experiment(**options, record_every=8, target_loss=target))
    assert rounds_of(some) == [0, 8, 13, 16, 20]
    assert [row.loss for row in some] == [every[number].loss for number in rounds_of(some)]
    ended = run_experiment(experiment(**options, record_every=8, target_loss=target, stop_at_target=True))
    assert rounds_of(ended) == [0, 8, 13]
    accuracy = every[5].accuracy
    first = next(row.round for row in every if row.accuracy >= accuracy)
    assert run_experiment(experiment(**options, target_accuracy=accuracy, stop_at_target=True))[-1].round == first


@pytest.mark.parametrize("runtime", ["virtual", "replay"])
def test_a_run_that_has_grown_beyond_hope_ends(runtime: str) -> None:
    task = {"name": "digits-regression", "shards": 6, "learning_rate": 1000.0}
    options = {"task": task, "runtime": runtime, "timing": "known", "target_loss": 0.01}
    ended = run_experiment(experiment(**options, stop_at_target=True))
    assert ended[-1].round < 20
    assert not ended[-1].loss <= 50.0 * ended[0].loss
    assert len(run_experiment(experiment(**options))) == 21


def test_there_is_one_target() -> None:
    with pytest.raises(ConfigError, match=r"target_accuracy must be left out if target_loss is given; got 0\.9"):
        experiment(target_accuracy=0.9, target_loss=0.5)
    assert str(experiment(target_loss=0.5).target) == "loss 0.5"
    assert str(experiment(target_accuracy=0.8).target) == "80%"


def test_the_figure_shows_what_the_target_is_of() -> None:
    for options, label in (({"target_loss": 1.0}, b"<!-- loss -->"), ({}, b"<!-- test accuracy -->")):
        config = experiment(rounds=3, **options)
        _, svg = draw_figure(config, run_experiment(config))
        assert label in svg
