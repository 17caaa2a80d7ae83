"""Rounds played without messages are those of the runtime, and the plan predicts them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, RoundReport
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.arrivals import ArrivalModel, IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, FractionalRepetition, MatrixCode, StochasticGradientCode, WorkLists
from fedgc.coherence import KnownCoherence
from fedgc.deadline import cover_time
from fedgc.decoders import DECODERS, CalibratedDecoder, Decoder, OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import GramModel
from fedgc.planning import constraints_of, plan_fleet
from fedgc.play import RoundDraws, play_rounds
from fedgc.round import RoundPlan
from fedgc.simulation import run_virtual

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "planning"))
from check_plan import play
from digits_replay import Digits
from plan_errors import plan_moments
from run_choices import prepare

N_CLIENTS, N_SHARDS, ROUNDS = 6, 12, 8


def train(
    fleet: Fleet, *, deadline: float, app: ClientApp | None = None, rounds: int = ROUNDS, plan: RoundPlan | None = None,
    arrays: dict[str, Any] | None = None, sizes: list[int] | None = None, evaluate: Any = None, **options: Any,
) -> GradientCoding:  # fmt: skip
    """Run the strategy through messages, with a plan of its own or a given one, and return it."""
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=N_SHARDS,
        deadline=deadline,
        shard_examples=sizes or [1] * N_SHARDS,
        timing=fleet,
        constraints=constraints_of(fleet),
        coherence=KnownCoherence(energy=1.0, overlap=0.0),
        **options,
    )
    if plan is not None:
        # Where nothing is to be learnt, a plan for the same nodes is kept.
        strategy.state = replace(strategy.state, plan=plan)
    start = arrays or {"w": np.zeros(1)}
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        initial = ArrayRecord({name: Array(value) for name, value in start.items()})
        strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=evaluate)

    run_virtual(server, app or idle_app(), fleet, num_shards=N_SHARDS)
    return strategy


def idle_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": np.zeros(1)})

    return app


def assert_same(history: list[RoundReport], played: Any) -> None:
    seconds = np.array([report.seconds for report in history])
    coverage = np.array([report.coverage for report in history])
    np.testing.assert_allclose(played.seconds, seconds, rtol=0, atol=1e-9)
    np.testing.assert_allclose(played.coverage, coverage, rtol=0, atol=1e-9)
    assert played.end == pytest.approx(seconds.sum())
    # Otherwise nothing would be compared but one round over and over.
    assert len(np.unique(np.c_[coverage, seconds], axis=0)) > 1


#: Fleets, and the deadline in parts of the one by which all shards can be done once.
FLEETS: dict[str, tuple[dict[str, Any], float]] = {
    "phones": ({"preset": "phones"}, 1.5),
    "phones, soon known to be away": ({"preset": "phones", "loss_detection": 8.0, "dropout": 0.2}, 6.0),
    "sessions": ({"preset": "sessions"}, 1.2),
    "uneven": ({"preset": "uneven"}, 1.2),
    "paper": ({"preset": "paper"}, 1.1),
    "in virtual time": ({"preset": "accelerators", "session_on": 60.0, "session_off": 30.0}, 1.5),
}
CHOICES: list[dict[str, Any]] = [
    {"load": 1, "schedule": "work-list"},
    {"load": 2, "schedule": "work-list", "early_end": False},
    {"load": 2, "schedule": "full", "decoder": "fixed"},
    {"load": 3, "schedule": "full"},
    {"load": 3, "schedule": "work-list", "sums": "share"},
]


@pytest.mark.parametrize("name", FLEETS)
def test_played_rounds_are_those_of_the_runtime(name: str) -> None:
    settings, share = FLEETS[name]
    # With this seed clients come and go even in so few rounds of the fleet "sessions", where most stay as they are.
    fleet = build_fleet({"clients": N_CLIENTS, **settings}, seed=11)
    deadline = share * cover_time(fleet, N_SHARDS)
    draws = RoundDraws(fleet)
    # Two choices on every fleet, and every choice on two or three fleets.
    for index in range(2):
        options = CHOICES[(2 * list(FLEETS).index(name) + index) % len(CHOICES)]
        strategy = train(fleet, deadline=deadline, **options)
        plan = strategy.state.plan
        assert plan is not None
        clients = np.array(plan.node_ids) - 100
        early_end = options.get("early_end", True)
        played = play_rounds(draws, plan.base or plan.decoder, deadline, ROUNDS, clients=clients, early_end=early_end)
        assert_same(strategy.history, played)


def test_a_code_of_the_literature_is_played_as_it_runs() -> None:
    """Stochastic gradient coding over columns of two shards each, which the messages name one by one."""
    fleet = build_fleet({"preset": "phones", "clients": N_CLIENTS}, seed=3)
    coarse = StochasticGradientCode(N_CLIENTS, N_CLIENTS, 2, rng=np.random.default_rng(0))
    fine = MatrixCode(np.repeat(coarse.encoding_matrix, 2, axis=1))
    deadline = 2.0 * cover_time(fleet, N_SHARDS)
    prob = fleet.straggle_prob(deadline, 4.0)

    def calibrated(code: Code) -> CalibratedDecoder:
        return DECODERS["inverse-probability"]().calibrate(code, prob, GramModel.uniform(code.n_shards, 0.0))

    nodes = tuple(range(100, 100 + N_CLIENTS))
    decoder, gram = calibrated(fine), GramModel.uniform(N_SHARDS, 0.0)
    plan = RoundPlan(nodes, fine, prob, IndependentArrivals(prob), gram, decoder, deadline, None, nodes)
    strategy = train(fleet, deadline=deadline, plan=plan)
    played = play_rounds(RoundDraws(fleet), calibrated(coarse), deadline, ROUNDS, unit=2.0)
    assert_same(strategy.history, replace(played, coverage=played.coverage.repeat(2, axis=1)))


def test_the_clock_is_carried_on() -> None:
    """Two runs, of which the second begins where the first ended, are one."""
    fleet = build_fleet({"preset": "accelerators", "clients": N_CLIENTS, "session_on": 30.0}, seed=1)
    code = FractionalRepetition([0, 0, 1, 1, 2, 2], np.repeat([0, 1, 2], 4))
    decoder = OptimalUnbiasedDecoder().calibrate(code, [0.3] * 6, GramModel.uniform(N_SHARDS, 0.0))
    draws = RoundDraws(fleet)
    whole = play_rounds(draws, decoder, 20.0, 30)
    first = play_rounds(draws, decoder, 20.0, 10)
    second = play_rounds(draws, decoder, 20.0, 20, first_round=11, start=first.end)
    np.testing.assert_array_equal(np.concatenate([first.coverage, second.coverage]), whole.coverage)
    assert second.end == whole.end
    elsewhere = play_rounds(draws, decoder, 20.0, 20, first_round=11, start=1e4)
    assert (elsewhere.coverage != second.coverage).any()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "deadline": ({"deadline": 0.0}, "deadline must be a finite number above 0; got 0.0"),
    "rounds": ({"n_rounds": 0}, "n_rounds must be an integer of at least 1; got 0"),
    "clients": ({"clients": np.array([0, 6])}, "clients must be 2 indices from 0 to 5; got [0, 6]"),
    "number of clients": ({"clients": np.array([0])}, "clients must be 2 indices from 0 to 5; got [0]"),
    "unit": ({"unit": 2.0}, "unit must be 1 for work lists; got 2.0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": N_CLIENTS}, seed=1)
    code = WorkLists([[0, 1], [1, 0]], n_shards=2)
    model = ProgressArrivals(code, [[0.1, 0.2, 0.7]] * 2)
    decoder = OptimalUnbiasedDecoder().calibrate(code, model, GramModel.uniform(2, 0.0))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        play_rounds(RoundDraws(fleet), decoder, **{"deadline": 3.0, "n_rounds": 2, **options})


def test_training_through_messages_is_the_replay_of_its_coverages() -> None:
    task, step, rounds = Digits(N_SHARDS, np.float64), 2.0, 15
    shard = [(task.x[task.of == s], task.y[task.of == s]) for s in range(N_SHARDS)]

    def forward(x: Any, w: Any) -> Any:
        z = np.exp(x @ w - (x @ w).max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)

    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS)
    def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        x, y = shard[shard_id]
        gradient = x.T @ (forward(x, arrays["w"].numpy()) - y) / len(y)
        return ShardUpdate(len(y), delta={"w": -step * gradient})

    losses: list[float] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        p = forward(task.x, arrays["w"].numpy())
        losses.append(float(-np.log((p * task.y).sum(axis=1)).mean()))
        return None

    fleet = build_fleet({"preset": "uneven", "clients": N_CLIENTS}, seed=2)
    strategy = train(
        fleet, deadline=0.8 * cover_time(fleet, N_SHARDS), app=app, rounds=rounds, load=2, schedule="work-list",
        arrays={"w": np.zeros((65, 10))}, sizes=[len(y) for _, y in shard], evaluate=evaluate,
    )  # fmt: skip
    coverage = np.array([report.coverage for report in strategy.history])
    assert (coverage == 0.0).any()
    replayed = [float(loss[0]) for loss in islice(task.losses(coverage, np.array([step])), rounds + 1)]
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(losses, replayed, rtol=0, atol=1e-6)


def by_enumeration(decoder: CalibratedDecoder, model: ArrivalModel) -> tuple[float, float]:
    """Return mean and variance of the residual error over all sets of arrivals."""
    first = second = 0.0
    for chunk, probability in model.sets():
        errors = np.array([np.mean((decoder.decode(arrived).coverage - 1.0) ** 2) for arrived in chunk])
        first, second = first + float(probability @ errors), second + float(probability @ errors**2)
    return first, second - first**2


def cases() -> dict[str, tuple[Code, Decoder, ArrivalModel]]:
    whole = IndependentArrivals([0.1, 0.4, 0.7, 0.02, 0.3, 0.55])
    blocks = FractionalRepetition([0, 1, 0, 2, 1, 2], [0, 0, 1, 1, 1, 2])
    graded = StochasticGradientCode(6, 5, 2, rng=np.random.default_rng(3))
    lists = WorkLists([[[0], [1], [2]], [[2], [0]], [[3], [1]], [[3]]], n_shards=4)
    progress = ProgressArrivals(lists, [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.3], [0.05, 0.25, 0.7], [0.3, 0.7]])
    return {
        "whole blocks": (blocks, OptimalUnbiasedDecoder(), whole),
        "whole blocks, fixed weights": (blocks, DECODERS["fixed"](), whole),
        "overlapping shards, fixed weights": (graded, DECODERS["inverse-probability"](), whole),
        "work lists": (lists, OptimalUnbiasedDecoder(), progress),
    }


@pytest.mark.parametrize("name", cases())
def test_moments_under_the_plan_are_those_over_all_sets_of_arrivals(name: str) -> None:
    code, rule, model = cases()[name]
    decoder = rule.calibrate(code, model, GramModel.uniform(code.n_shards, 0.0))
    mean, variance = plan_moments(decoder, model)
    np.testing.assert_allclose((mean, variance), by_enumeration(decoder, model), rtol=1e-10)
    assert mean == pytest.approx(decoder.residual_error, rel=1e-10)


#: For 40 choices with normal means it is exceeded once in 400 times, and the seeds are fixed.
Z = 4.0


@pytest.mark.parametrize(("preset", "share"), [("uneven", 1.3), ("phones", 1.9)])
def test_the_plan_predicts_the_rounds_of_every_choice(preset: str, share: float) -> None:
    fleet = build_fleet({"preset": preset, "clients": 8}, seed=1)
    plan = plan_fleet(fleet, n_shards=16, redundancies=(1, 2, 3), deadlines=[share * cover_time(fleet, 16)])
    draws = RoundDraws(fleet)
    rows = [play(prepared, draws, 400) for prepared in prepare(fleet, plan.choices, 16)]
    assert len(rows) == len(plan.choices) > 12
    noise = []
    for row in rows:
        assert abs(row["round_time_gap"]) < 0.1, row
        assert abs(row["error_z"]) < Z, row
        spread = max(row["error_standard_error_batches"], row["error_standard_error_plan"])
        if row["error_predicted"] < 1.0:  # beyond it nobody trains, and a few rare rounds make up the mean
            noise.append(spread / row["error_predicted"])
    # Half of these would show it if predictions were a quarter off.
    assert len(noise) > 10
    assert np.median(noise) * Z < 0.25
