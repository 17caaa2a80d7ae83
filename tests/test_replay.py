"""What is replayed without messages is what the strategies do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedgc.clients import gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedgc.errors import ConfigError
from fedgc.experiment.cells import cells_of
from fedgc.experiment.config import ExperimentConfig, check_config
from fedgc.experiment.replayed import method_of, replay_one
from fedgc.experiment.row import Row
from fedgc.experiment.runner import _build_strategy, run_one
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws
from fedgc.replay import descend, known_rounds
from fedgc.simulation import run_virtual
from fedgc.tasks import GradientTask, build_task

ROUNDS = 15


def ours(**options: Any) -> dict[str, Any]:
    return {"kind": "gradient-coding", "label": "ours", **options}


METHODS: dict[str, dict[str, Any]] = {
    **{
        kind: {"kind": kind}
        for kind in (
            *("is-sgd", "inverse-probability", "mifa", "fedvarp-unbiased", "scheme-I", "sgc", "bgc"),
            *("erasure-head", "od"),
        )
    },
    "sized by speed": ours(coherence=0.0),
    "sized by speed, least squares with a memory": ours(memory=True),
    "equal": ours(code="equal-blocks", coherence=0.0),
    "equal, memory": ours(code="equal-blocks", coherence=0.0, memory=True, decoder="optimal-unbiased"),
    "equal, least squares": ours(code="equal-blocks", decoder="least-squares"),
    "equal, least squares with a memory": ours(code="equal-blocks", memory=True),
    "equal, cut off": ours(code="equal-blocks", coherence=0.5, max_weight=2.0),
    "equal, learnt": ours(code="equal-blocks"),
    "equal, learnt with a memory": ours(code="equal-blocks", memory=True, decoder="optimal-unbiased"),
}


def experiment(fleet: str, strategy: dict[str, Any], **options: Any) -> ExperimentConfig:
    deadline = {} if strategy["kind"] == "fedavg" else {"deadline": {"paper": 1.5, "lognormal": 12.0}[fleet]}
    raw = {
        "name": "Replay",
        "rounds": ROUNDS,
        "seeds": [1],
        "timing": "known",
        "task": {"name": "digits-regression", "shards": 24},
        "fleet": {"preset": fleet, "clients": 12},
        "strategies": [{**deadline, **strategy}],
        **options,
    }
    return check_config(raw)


def both(fleet: str, strategy: dict[str, Any], **options: Any) -> tuple[list[Row], list[Row]]:
    """Run through messages and without, check that both met the same draws, and return the rows."""
    found, met = [], []
    for runtime, run in (("virtual", run_one), ("replay", replay_one)):
        (cell,) = cells_of(experiment(fleet, strategy, runtime=runtime, **options))
        rows: list[Row] = []
        met.append(run(cell.config, cell.strategy, cell.seed, rows.append))
        found.append(rows)
    assert met[0] == met[1]
    return found[0], found[1]


@pytest.mark.parametrize("fleet", ["paper", "lognormal"])
@pytest.mark.parametrize("name", ["fedavg", *METHODS])
def test_a_replay_has_the_rounds_of_the_strategy(name: str, fleet: str) -> None:
    """Blocks are not formed anew: with known times the strategy keeps its first assignment."""
    played, replayed = both(fleet, METHODS.get(name, {"kind": name}))
    assert len(played) == len(replayed) == ROUNDS + 1
    for one, other in zip(played, replayed, strict=True):
        assert (one.round, one.strategy, one.seed) == (other.round, other.strategy, other.seed)
        assert other.seconds == pytest.approx(one.seconds, abs=1e-9)
        assert other.loss == pytest.approx(one.loss, rel=1e-4)
        assert other.accuracy == pytest.approx(one.accuracy, abs=0.006)  # two of 360 examples
        assert other.metrics["fedgc-arrived"] == one.metrics["fedgc-arrived"]
        if one.round > 0:
            assert other.metrics["fedgc-asked"] == one.metrics["fedgc-asked"]
            key = "fedgc-error-measured"
            assert other.metrics[key] == pytest.approx(one.metrics[key], rel=0.02, abs=1e-9)
    losses = [row.loss for row in played]
    assert len(set(losses)) > 3, "it has trained"


def test_an_experiment_is_replayed_as_it_is_run() -> None:
    (config, other) = (experiment("paper", METHODS["mifa"], runtime=runtime) for runtime in ("virtual", "replay"))
    for one, two in zip(run_experiment(config), run_experiment(other), strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
        assert two.seconds == pytest.approx(one.seconds, abs=1e-9)


@pytest.mark.parametrize("name", ["digits-regression", "digits-conv"])
def test_gradients_are_the_steps_of_the_shards(name: str) -> None:
    task: GradientTask = build_task(name, seed=3, shards=9, learning_rate=0.5)  # type: ignore[assignment]
    rng = np.random.default_rng(1)
    weights = task.initial_weights() + 0.05 * rng.standard_normal(task.initial_weights().size).astype(np.float32)
    arrays = task.as_arrays(weights)
    sizes = np.array(task.shard_examples)

    def flat(update: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.concatenate([np.asarray(update[key], dtype=np.float64).ravel() for key in arrays])

    before = flat({key: array.numpy() for key, array in arrays.items()})
    np.testing.assert_array_equal(before, weights)
    updates = [task.train_shard(shard, arrays, ConfigRecord()) for shard in range(9)]
    share = sizes / sizes.sum()
    expected = np.array([part * (before - flat(one.arrays)) / 0.5 for part, one in zip(share, updates, strict=True)])
    loss, parts = task.shard_gradients(weights)
    np.testing.assert_allclose(parts, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3
    assert loss == pytest.approx(float(task.evaluate(arrays)["loss"]), rel=1e-6)  # type: ignore[arg-type]
    coverages = rng.uniform(-1.0, 2.0, (2, 9)).astype(np.float32)
    again, sums = task.weighted_gradients(weights, coverages)
    assert again == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(sums, coverages @ expected, atol=1e-6)
    np.testing.assert_array_equal(
        task.initial_weights(), flat({k: a.numpy() for k, a in task.initial_arrays().items()})
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timing": "learnt"}, "timing must be 'known' for runtime 'replay'; got 'learnt'"),
        ({"task": {"name": "digits"}}, "task.name must be one of digits-regression, digits-conv for runtime"),
        ({"task": {"name": "digits-regression", "shards": 11}}, "task.shards must be at least fleet.clients = 12"),
        (
            {"strategies": [{"kind": "fedprox", "deadline": 1.0}]},
            "strategies.0.kind must be gradient-coding, fedavg or",
        ),
        ({"strategies": [ours(deadline=1.0, schedule="work-list")]}, "strategies.0.schedule must be 'full' for"),
        ({"strategies": [ours(deadline=1.0, deadline_rule="auto")]}, "strategies.0.deadline_rule must be 'fixed' for"),
        (
            {"strategies": [ours(deadline=1.0, secure_sum=True, decoder="fixed")]},
            "strategies.0.secure_sum must be False for runtime 'replay'; got True",
        ),
        ({"strategies": [ours(deadline=1.0, early_end=False)]}, "strategies.0.early_end must be True for"),
    ],
)
def test_what_takes_messages_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment("paper", METHODS["equal"], **{"runtime": "replay", **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rounds_of_fewer_shards_than_clients_are_refused() -> None:
    draws = RoundDraws(build_fleet({"preset": "paper", "clients": 4}, seed=1))
    method = method_of(experiment("paper", METHODS["equal"]).strategies[0])
    with pytest.raises(ValueError, match="shard_examples must be of at least as many shards as clients, 4; got 3"):
        known_rounds(method, draws, [5, 5, 5], 2)


@pytest.mark.parametrize(
    ("options", "message"), [({"memory": True}, "memory must be left out"), ({}, "coherence must be given")]
)
def test_what_cannot_be_told_from_sums_is_refused(options: dict[str, Any], message: str) -> None:
    config = experiment("paper", ours(code="sgc", decoder="inverse-probability", **options), runtime="replay")
    with pytest.raises(ConfigError, match=f"ours: {message} for codes whose updates are sums of several units"):
        run_experiment(config)


@pytest.mark.parametrize("memory", [False, True])
def test_the_coherence_that_is_learnt_is_that_of_the_strategy(memory: bool) -> None:
    strategy = ours(code="equal-blocks", memory=memory, decoder="optimal-unbiased")
    (cell,) = cells_of(experiment("paper", strategy, rounds=10))
    config, choice = cell.config, cell.strategy
    task = build_task(config.task.name, seed=1, **config.task.options)
    fleet = build_fleet(config.fleet, seed=1)
    coding, timeout = _build_strategy(choice, config, task.shard_examples, fleet, 1)
    assert isinstance(coding, GradientCoding)
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded(num_shards=24)(task.train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        coding.start(grid, task.initial_arrays(), num_rounds=10, timeout=timeout)

    run_virtual(server, app, fleet, num_shards=24)
    method = method_of(choice)
    rounds = known_rounds(method, RoundDraws(build_fleet(config.fleet, seed=1)), task.shard_examples, 10, seed=1)
    last = list(descend(task, rounds, 1.0, memory=memory))[-1]  # type: ignore[arg-type]
    learnt, replayed = coding.state.coherence, last.coherence
    assert replayed.overlap / replayed.energy == pytest.approx(learnt.overlap / learnt.energy, abs=1e-3)
    assert abs(learnt.overlap / learnt.energy - 0.5) > 1e-2, "it is not the start value"


@pytest.mark.parametrize("name", ["digits-regression", "digits-conv"])
@pytest.mark.parametrize("method", ["is-sgd", "mifa"])
def test_errors_are_measured_where_they_are_asked_for(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, or when the descent is rounds further: an error is of its own round either way."""
    config = experiment("paper", METHODS[method], runtime="replay")
    task: GradientTask = build_task(name, seed=1, shards=24, learning_rate=0.5)  # type: ignore[assignment]
    draws = RoundDraws(build_fleet(config.fleet, seed=1))
    chosen = method_of(config.strategies[0])
    rounds = known_rounds(chosen, draws, task.shard_examples, 6, seed=1)
    at_once = [step.measure_error() for step in descend(task, rounds, 0.5, memory=chosen.memory)]
    assert np.isnan(at_once[0]) and len({round(error, 6) for error in at_once[1:]}) > 3

    asked, gradients = [], task.weighted_gradients

    def counted(weights: Any, coverages: Any) -> Any:
        asked.append(len(coverages))
        return gradients(weights, coverages)

    monkeypatch.setattr(task, "weighted_gradients", counted)
    steps = list(descend(task, rounds, 0.5, memory=chosen.memory))
    assert asked == [1] * (1 if chosen.memory else 7), "a pass for each round, and one for the loss at the end"
    later = [step.measure_error() for step in reversed(steps)][::-1]
    np.testing.assert_array_equal(later, at_once)
