"""Clients of methods that do not code: they train on their own data as one; and shards in pieces for those that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.clients.stragglers import simulated_straggling
from fedgc.strategies.rivals import RIVALS
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import nn

from fedgc.assignment import own_part
from fedgc.errors import ConfigError, ExperimentError
from fedgc.experiment.config import check_config
from fedgc.experiment.figure import draw_figure
from fedgc.experiment.own_data import own_data
from fedgc.experiment.pieces import fleet_of_pieces
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import Fleet, WorkDraw, build_fleet
from fedgc.protocol import BUDGET, DEADLINE, NUM_EXAMPLES, RECORD, SHARD_IDS, SHARD_SEED, SIMULATED_SHARE, shard_seed
from fedgc.simulation import run_virtual
from fedgc.simulation.grid import FIRST_NODE_ID
from fedgc.tasks import build_task
from tests.apps import N_SHARDS, initial_arrays, steady

OPTIONS: dict[str, dict[str, Any]] = {
    "digits": {"shards": 8, "local_epochs": 2, "batch_size": 50, "learning_rate": 0.2},
    "digits-regression": {"shards": 8},
    "digits-conv": {"shards": 8, "partition": "iid"},
    "images": {"shards": 4, "examples": 40, "size": 16, "width": 0.1, "local_steps": 3, "device": "cpu"},
}


def values(arrays: Any) -> np.ndarray:
    found = arrays.to_numpy_ndarrays() if isinstance(arrays, ArrayRecord) else list(arrays.values())
    return np.concatenate([np.asarray(value, dtype=np.float64).ravel() for value in found])


def ask(task: Any, n_clients: int, client: int, assignment: dict[str, Any] | None = None) -> RecordDict:
    """Return what a client replies to a message of round 3, within a run so that Flower knows who sends it."""
    content = RecordDict({"arrays": task.initial_arrays(), "config": ConfigRecord({"server-round": 3})})
    if assignment is not None:
        content[RECORD] = ConfigRecord(assignment)
    train, replies = own_data(task.train_union, task.shard_examples, n_clients), []

    def main(grid: Grid, context: Context) -> None:
        message = Message(content, dst_node_id=FIRST_NODE_ID + client, message_type="train")
        context.node_config.update({"partition-id": client, "num-partitions": n_clients})
        replies.append(train(message, context).content)

    run_virtual(main, train, steady(n_clients), run_config={"seed": 9}, num_shards=len(task.shard_examples))
    return replies[0]


def test_the_union_is_trained_as_one_data_set() -> None:
    """SGD on all examples of two shards by hand, batch by batch, to the last bit."""
    task = build_task("digits", seed=4, **OPTIONS["digits"])
    reply = ask(task, 4, 1)
    assert list(own_part(1, 4, 8)) == [2, 3]
    examples = np.concatenate([task.shards[2], task.shards[3]])  # type: ignore[attr-defined]
    x, y = (part[examples] for part in task._train)  # type: ignore[attr-defined]
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    network.load_state_dict(task.initial_arrays().to_torch_state_dict())
    shuffle = torch.Generator().manual_seed(shard_seed(9, 3, 2))
    for _ in range(2):
        for batch in torch.randperm(len(y), generator=shuffle).split(50):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            for parameter, gradient in zip(
                network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
            ):
                parameter.data.sub_(gradient, alpha=0.2)
    np.testing.assert_array_equal(values(reply["arrays"]), values(ArrayRecord(network.state_dict())))
    assert reply["metrics"][NUM_EXAMPLES] == len(examples)
    assert reply[RECORD][SHARD_IDS] == [2, 3]


@pytest.mark.parametrize("name", OPTIONS)
def test_one_shard_by_itself_is_a_union_of_one(name: str) -> None:
    task = build_task(name, seed=4, **OPTIONS[name])
    config, arrays = ConfigRecord({SHARD_SEED: 7}), task.initial_arrays()
    one, union = task.train_shard(2, arrays, config), task.train_union([2], arrays, config)
    assert one.num_examples == union.num_examples and one.metrics == union.metrics
    np.testing.assert_array_equal(values(one.arrays), values(union.arrays))


@pytest.mark.parametrize("name", ["digits-regression", "digits-conv"])
def test_where_a_shard_is_one_step_the_union_is_the_mean_of_its_shards(name: str) -> None:
    task = build_task(name, seed=4, **OPTIONS[name])
    config, arrays = ConfigRecord({SHARD_SEED: 7}), task.initial_arrays()
    union = task.train_union([1, 4, 5], arrays, config)
    parts = [task.train_shard(shard, arrays, config) for shard in (1, 4, 5)]
    mean = sum(part.num_examples * values(part.arrays) for part in parts) / union.num_examples
    assert union.num_examples == sum(part.num_examples for part in parts)
    np.testing.assert_allclose(values(union.arrays), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_share_of_the_steps_is_the_first_of_them(name: str) -> None:
    task = build_task(name, seed=4, **OPTIONS[name])
    config, arrays = ConfigRecord({SHARD_SEED: 7}), task.initial_arrays()
    none, half, whole = (task.train_union([0, 1], arrays, config, share) for share in (0.0, 0.5, 1.0))
    assert none.num_examples == 0 and np.array_equal(values(none.arrays), values(arrays))
    moved = [np.abs(values(update.arrays) - values(arrays)).max() for update in (half, whole)]
    assert moved[1] > 0.0
    # A task of one step has either done it or not.
    assert (moved[0] == 0.0) == (name in ("digits-regression", "digits-conv"))


def test_a_budget_without_shards_ends_at_a_step() -> None:
    task = build_task("digits", seed=4, **OPTIONS["digits"])
    told = {DEADLINE: 5.0, BUDGET: 5.0, SIMULATED_SHARE: 0.5}
    reply, config = ask(task, 4, 1, told), ConfigRecord({SHARD_SEED: shard_seed(9, 3, 2)})
    expected = task.train_union([2, 3], task.initial_arrays(), config, 0.5)
    np.testing.assert_array_equal(values(reply["arrays"]), values(expected.arrays))
    assert ask(task, 4, 1, {**told, SIMULATED_SHARE: 0.01})["metrics"][NUM_EXAMPLES] == 0


@pytest.mark.parametrize("name", [name for name, rival in RIVALS.items() if rival.own_data])
def test_uncoded_rivals_are_trained_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round in which all come: every update is over a client's whole data, and the error against those is none."""
    from fedgc.tasks.digits import DigitsTask  # noqa: PLC0415

    asked: list[int] = []
    plain = DigitsTask.train_union

    def watch(self: DigitsTask, shard_ids: Any, *rest: Any) -> Any:
        asked.append(len(shard_ids))
        return plain(self, shard_ids, *rest)

    monkeypatch.setattr(DigitsTask, "train_union", watch)
    own = {"deadline": 1e4} if RIVALS[name].needs_deadline else {}
    if name == "over-selection":
        own["over_selection"] = 1.0
    raw = {
        "name": "U",
        "rounds": 1,
        "seeds": [1],
        "task": {"name": "digits", "shards": 12},
        "fleet": {"model": "log-normal", "clients": 4},
        "strategies": [{"kind": name, **own}],
    }
    rows = run_experiment(check_config(raw))
    assert set(asked) == {3}
    if name not in ("fedbuff", "inverse-probability", "fedvarp-unbiased"):  # a step of some, and learnt weights
        assert rows[-1].metrics["fedgc-error-measured"] < 1e-9


def test_draws_that_a_grid_makes_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that is kind to a client in one round, whatever it does to the fleet that it has been given."""
    raw = {
        "name": "C",
        "rounds": 3,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 8},
        "fleet": {"preset": "uneven", "clients": 4},
        "strategies": [{"kind": "fedavg-deadline", "deadline": 3.0}],
    }
    assert run_experiment(check_config(raw))
    from fedgc.experiment import runner  # noqa: PLC0415

    def kind(*arguments: Any, **options: Any) -> Fleet:
        fleet = build_fleet(*arguments, **options)
        honest = fleet.draw
        calls.append(fleet)

        def draw(client: int, server_round: int, **where: Any) -> WorkDraw:
            drawn = honest(client, server_round, **where)
            return drawn._replace(per_shard=0.1) if (client, server_round) == (2, 2) else drawn

        if len(calls) == 2:  # the run's, and neither the one before it nor that which it is held against
            fleet.draw = draw  # type: ignore[method-assign]
        return fleet

    calls: list[Fleet] = []
    monkeypatch.setattr(runner, "build_fleet", kind)
    with pytest.raises(ExperimentError, match=r"client 2, round 2: was told .* which is not what the fleet draws"):
        run_experiment(check_config(raw))


@pytest.mark.parametrize("name", ["digits", "images"])
def test_the_proximal_term_draws_steps_back_to_where_they_began(name: str) -> None:
    task = build_task(name, seed=4, **OPTIONS[name])
    arrays = task.initial_arrays()

    def moved(mu: float) -> float:
        config = ConfigRecord({SHARD_SEED: 7, "proximal-mu": mu})
        return float(np.linalg.norm(values(task.train_union([0, 1], arrays, config).arrays) - values(arrays)))

    assert moved(0.0) > 1.05 * moved(2.0) > 0.0


def test_more_clients_than_shards_are_refused_for_those_that_need_data_of_their_own() -> None:
    raw = {
        "name": "M",
        "rounds": 1,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 3},
        "fleet": {"preset": "uneven", "clients": 5},
        "strategies": [{"kind": "fedbuff"}],
    }
    with pytest.raises(ConfigError, match=r"task.shards must be at least fleet.clients = 5 for 'fedbuff'; got 3"):
        check_config(raw)


@pytest.mark.parametrize("name", OPTIONS)
def test_pieces_are_parts_of_the_shards_that_there_are_without(name: str) -> None:
    whole, divided = (build_task(name, seed=4, pieces=pieces, **OPTIONS[name]) for pieces in (1, 3))
    n_shards = len(whole.shard_examples)
    assert len(divided.shard_examples) == 3 * n_shards
    for shard in range(n_shards):
        pieces = [set(divided.shards[3 * shard + k].tolist()) for k in range(3)]  # type: ignore[attr-defined]
        assert set.union(*pieces) == set(whole.shards[shard].tolist())  # type: ignore[attr-defined]
        assert (
            sum(map(len, pieces)) == whole.shard_examples[shard] and max(map(len, pieces)) - min(map(len, pieces)) <= 1
        )


@pytest.mark.parametrize("name", ["digits", "digits-regression", "digits-conv"])
def test_a_piece_without_examples_trains_nothing(name: str) -> None:
    options = {**OPTIONS[name], "shards": 300, "partition": "iid"}
    task = build_task(name, seed=4, pieces=6, **options)
    empty = task.shard_examples.index(0)
    update = task.train_shard(empty, task.initial_arrays(), ConfigRecord({SHARD_SEED: 7}))
    assert update.num_examples == 0
    np.testing.assert_array_equal(values(update.arrays), values(task.initial_arrays()))


def test_pieces_take_the_time_of_their_shard() -> None:
    """The fleet's draws and odds with shards of a quarter, four times as many of them, are those of whole ones."""
    table = {"preset": "phones", "clients": 5, "groups": [{"share": 0.4, "median": 8.0, "shard_size": 2.0}]}
    whole, divided = build_fleet(table, seed=3), build_fleet(fleet_of_pieces(table, 4), seed=3)
    for client in range(5):
        one, many = whole.draw(client, 2), divided.draw(client, 2)
        assert one.completion_time(3.0) == pytest.approx(many.completion_time(12.0))
    np.testing.assert_allclose(whole.straggle_prob(9.0, 3.0), divided.straggle_prob(9.0, 12.0))
    np.testing.assert_allclose(whole.reach(9.0, 3), divided.reach(9.0, 12)[:, ::4])
    raw = {
        "name": "P",
        "rounds": 4,
        "seeds": [1],
        "deadline_unit": "cover",
        "task": {"name": "digits-regression", "shards": 8},
        "fleet": {"preset": "uneven", "clients": 4},
        "strategies": [
            {
                "kind": "gradient-coding",
                "label": str(pieces),
                "deadline": 1.0,
                "schedule": "work-list",
                "pieces": pieces,
            }
            for pieces in (1, 3)
        ],
    }
    rows = run_experiment(check_config(raw))
    ends = {row.strategy: row.seconds for row in rows}
    assert ends["1"] == pytest.approx(ends["3"])
    with pytest.raises(ConfigError, match=r"strategies.0.pieces must leave at most 10000 shards; got 5000 x 8"):
        check_config({**raw, "strategies": [{**raw["strategies"][0], "pieces": 5000}]})  # type: ignore[index]


@pytest.mark.parametrize("deadline", [0.03, 9.0])
def test_simulated_straggling_knows_messages_with_a_budget_and_no_shards(deadline: float) -> None:
    """Two shards of 20 ms: in 30 ms one of them is done, in nine seconds both."""
    app, done = ClientApp(), []
    fleet = steady(3, median=1.0)

    @app.train(mods=[simulated_straggling(fleet, seconds_per_second=0.02, num_shards=N_SHARDS)])
    @gradient_coded(num_shards=N_SHARDS)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        done.append(shard_id)
        return ShardUpdate(1, delta={name: 0.0 * array.numpy() for name, array in arrays.items()})

    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord({"server-round": 3})})
    content[RECORD] = ConfigRecord({DEADLINE: deadline, BUDGET: deadline})
    replies = []

    def main(grid: Grid, context: Context) -> None:
        context.node_config.update({"partition-id": 1, "num-partitions": 3})
        replies.append(app(Message(content, dst_node_id=FIRST_NODE_ID + 1, message_type="train"), context))

    run_virtual(main, app, fleet, num_shards=N_SHARDS)
    assert not replies[0].has_error()
    assert replies[0].content[RECORD][SHARD_IDS] == done == ([2] if deadline < 1.0 else [2, 3])


def test_a_figure_may_show_a_method_that_has_done_nothing() -> None:
    raw = {
        "name": "N",
        "rounds": 3,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 8},
        "fleet": {"preset": "uneven", "clients": 4, "dropout": 1.0},
        "strategies": [{"kind": "fedbuff"}, {"kind": "fedavg-deadline", "deadline": 3.0}],
    }
    config = check_config(raw)
    png, _ = draw_figure(config, run_experiment(config))
    assert png.startswith(b"\x89PNG")


def test_the_error_is_measured_against_the_parts_that_there_are() -> None:
    """A client leaves after two rounds: plain averages lose its part, and a plan divides it anew among the others."""
    raw = {
        "name": "L",
        "rounds": 8,
        "seeds": [1],
        "task": {"name": "digits-regression", "shards": 8, "partition": "sorted"},
        "fleet": {"model": "log-normal", "clients": 4, "loss_detection": 1.0, "client": [{"id": 3, "leave_after": 2}]},
        "strategies": [{"kind": "fedavg-deadline", "deadline": 99.0}, {"kind": "is-sgd", "deadline": 99.0}],
    }
    rows = [row for row in run_experiment(check_config(raw)) if row.round > 0]
    told = {
        kind: [r.metrics.get("fedgc-error-measured") for r in rows if r.strategy == kind]
        for kind in ("FedAvg, cut off", "IS-SGD")
    }
    assert [error is not None for error in told["FedAvg, cut off"]] == [True] * 8
    assert told["FedAvg, cut off"][-1] > 0.01
    assert told["IS-SGD"][:2] == pytest.approx([0.0, 0.0], abs=1e-9) and told["IS-SGD"][-1] is None
