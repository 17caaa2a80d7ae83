"""Rounded updates whose coherence is given: weights, predictions and reports know of the rounding, by enumeration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.deadline import FixedDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, build_fleet
from fedgc.protocol import RECORD, VARIANCE_FACTORS
from fedgc.quantisers import BucketedNorm
from fedgc.round import CodedUpdate, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.round.rounding import RoundingEstimate
from fedgc.round.saved_state import state_from_tree, state_to_tree
from fedgc.simulation import run_virtual
from tests.enumeration import arrival_sets

N = 6
ARRAYS = {"w": np.zeros(3)}


def fleet_of(clients: int, dropout: float) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": clients, "sigma": 0.0, "dropout": dropout}, seed=1)


def known(coherence: float, omega: float | None, n_shards: int = N) -> RoundState:
    rounding = None if omega is None else RoundingEstimate(omega)
    return RoundState(np.ones(n_shards), coherence=KnownCoherence(1.0, coherence), rounding=rounding)


def reply(plan: RoundPlan, client: int, factor: float) -> CodedUpdate:
    shards = plan.code.shards_of(client)
    return CodedUpdate({client: {"w": np.ones(3)}}, shards, np.ones(shards.size), variance_factors=(factor,))


@pytest.mark.parametrize("omega", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("coherence", [0.0, 0.3, 0.9])
def test_what_is_predicted_and_reported_is_the_mean_over_all_arrivals_and_roundings(
    coherence: float, omega: float
) -> None:
    state, decoder = known(coherence, omega), OptimalUnbiasedDecoder()
    planning = Planning(2, decoder, deadline=FixedDeadline(3.0), timing=fleet_of(N, 0.4))
    plan = plan_round(state, range(N), planning)
    assert plan.code.blocks is not None
    clean = state.coherence.gram(np.ones(N))
    # Independent of what is tested: G as a matrix, and the energy of each block's sum from it.
    matrix, of_block = clean.matrix, np.eye(plan.code.blocks.n_blocks)[plan.code.blocks.of_shard].T
    energy = np.einsum("bi,ij,bj->b", of_block, matrix, of_block)
    exact = dict.fromkeys(("expected", "halved"), 0.0)
    reported = dict.fromkeys(exact, 0.0)
    for arrived, chance in arrival_sets(plan.straggle_prob):
        v = plan.decoder.decode(arrived).coverage
        of_blocks = (of_block @ v) / of_block.sum(axis=1)
        for name, factor in (("expected", omega), ("halved", omega / 2.0)):
            noise = factor * float(of_blocks**2 @ energy)
            exact[name] += chance * ((v - 1.0) @ matrix @ (v - 1.0) + noise) / matrix.sum()
            came = {int(client): reply(plan, int(client), factor) for client in np.flatnonzero(arrived)}
            _, outcome = finish_round(state, plan, came, arrays=ARRAYS)
            assert outcome.predicted_residual_error == plan.residual_error
            if came:  # of a round in which nothing came nobody tells what was rounded, and nothing was
                reported[name] += chance * outcome.model_residual_error
            else:
                reported[name] += chance
    assert plan.residual_error == pytest.approx(exact["expected"], rel=1e-9)
    assert reported["expected"] == pytest.approx(exact["expected"], rel=1e-9)
    assert reported["halved"] == pytest.approx(exact["halved"], rel=1e-9)
    knows = OptimalUnbiasedDecoder(variance_factor=omega, shared_rounding=True)
    least = knows.calibrate(plan.code, plan.straggle_prob, clean).residual_error
    assert plan.residual_error == pytest.approx(least, rel=1e-9)
    # Weights that do not know of the rounding have more of it, unless updates have nothing in common.
    blind = plan_round(known(coherence, None), range(N), planning)
    error = 0.0
    for arrived, chance in arrival_sets(plan.straggle_prob):
        v = blind.decoder.decode(arrived).coverage
        noise = omega * float(((of_block @ v) / of_block.sum(axis=1)) ** 2 @ energy)
        error += chance * ((v - 1.0) @ matrix @ (v - 1.0) + noise) / matrix.sum()
    assert error > exact["expected"] * (1.001 if coherence and omega >= 1.0 else 1.0 - 1e-9)


@pytest.mark.parametrize("redraw", [False, True])
def test_plans_of_work_lists_know_of_the_rounding_of_shards(redraw: bool) -> None:
    decoder, omega = OptimalUnbiasedDecoder(), 0.7
    options: dict[str, Any] = {"schedule": "work-list", "deadline": FixedDeadline(4.0), "redraw": redraw}
    planning = Planning(2, decoder, timing=fleet_of(N, 0.3), **options)
    state = known(0.4, omega, 2 * N)
    plan = plan_round(state, range(N), planning)
    knows = OptimalUnbiasedDecoder(variance_factor=omega, shared_rounding=True)
    clean = state.coherence.gram(np.ones(2 * N))
    code = plan.code if plan.base is None else plan.base.code
    assert plan.residual_error == pytest.approx(knows.calibrate(code, plan.arrivals, clean).residual_error, rel=1e-9)
    # What clients tell changes the weights, and nothing else of a plan for clients that are known.
    after = replace(state, rounding=RoundingEstimate(2.0 * omega), plan=plan, rounds=1)
    again, fresh = plan_round(after, range(N), planning), plan_round(replace(after, plan=None), range(N), planning)
    assert again.assignment is plan.assignment
    assert again.residual_error == pytest.approx(fresh.residual_error, rel=1e-9)
    assert again.residual_error > 1.05 * plan.residual_error
    same = replace(after, rounding=RoundingEstimate(1.001 * omega))
    assert plan_round(same, range(N), planning).gram is plan.gram


def test_a_coherence_that_is_learnt_has_the_rounding_in_it() -> None:
    state = RoundState(np.ones(N), coherence=CoherenceEstimate(1.0, 0.3), rounding=RoundingEstimate(5.0))
    planning = Planning(2, OptimalUnbiasedDecoder(), deadline=FixedDeadline(3.0), timing=fleet_of(N, 0.4))
    plan, without = (plan_round(one, range(N), planning) for one in (state, replace(state, rounding=None)))
    assert state.variance_factor is None
    np.testing.assert_array_equal(plan.gram.incoherent, without.gram.incoherent)
    assert plan.residual_error == plan.decoder.residual_error


def test_what_is_known_of_the_rounding_goes_through_a_checkpoint() -> None:
    planning = Planning(2, OptimalUnbiasedDecoder(), deadline=FixedDeadline(3.0), timing=fleet_of(N, 0.4))
    state = known(0.3, 0.8)
    state = replace(state, plan=plan_round(state, range(N), planning), rounds=1)
    again = state_from_tree(state_to_tree(state), planning, None)
    assert again.rounding == state.rounding
    assert again.plan is not None
    assert state.plan is not None
    assert again.plan.residual_error == state.plan.residual_error


def test_few_clients_cannot_move_what_is_known_of_the_rounding() -> None:
    estimate = RoundingEstimate(3.0).update([0.5, 0.5, 1e11])
    assert estimate.variance_factor == 0.5
    assert estimate.update([1.0]).variance_factor == pytest.approx(0.6)
    assert estimate.update([]) is estimate


SHARDS, ENTRIES, COHERENCE = 10, (500, 140), 0.3


def directions() -> np.ndarray:
    """Updates of unit length whose inner products are all the coherence."""
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((sum(ENTRIES), SHARDS + 1)))
    return np.sqrt(COHERENCE) * basis[:, :1].T + np.sqrt(1.0 - COHERENCE) * basis[:, 1:].T


def run(rounds: int, told: Any = None, **options: Any) -> tuple[GradientCoding, list[np.ndarray]]:
    """Return the strategy and the decoded update of each round."""
    app, updates = ClientApp(), directions().astype(np.float32)

    def lie(message: Message, context: Context, call_next: Any) -> Message:
        answer = call_next(message, context)
        if told is not None and RECORD in answer.content and context.node_config["partition-id"] == 0:
            answer.content[RECORD][VARIANCE_FACTORS] = told
        return answer

    @app.train(mods=[lie])
    @gradient_coded()
    def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        parts = np.split(updates[shard_id], [ENTRIES[0]])
        return ShardUpdate(1, delta=dict(zip(("a", "b"), parts, strict=True)))

    initial = ArrayRecord(
        {name: Array(np.zeros(size, np.float32)) for name, size in zip(("a", "b"), ENTRIES, strict=True)}
    )
    seen: list[np.ndarray] = []
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=SHARDS,
        deadline=3.5,
        shard_examples=[1] * SHARDS,
        coherence=KnownCoherence(1.0, COHERENCE),
        early_end=False,
        seed=4,
        **options,
    )
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid,
            initial,
            num_rounds=rounds,
            evaluate_fn=lambda number, arrays: seen.append(np.concatenate([arrays["a"].numpy(), arrays["b"].numpy()])),
        )

    fleet = fleet_of(10, 0.4)
    run_virtual(server, app, fleet)
    return strategy, list(np.diff(seen, axis=0))


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_in_virtual_time_predicted_and_measured_errors_are_within_an_eighth_of_each_other(schedule: str) -> None:
    """At two bits most of the error is rounding. Without it in the prediction they are a factor of two apart."""
    strategy, steps = run(60, schedule=schedule, bits=2, timing=fleet_of(10, 0.4))
    whole = directions().mean(axis=0)
    measured = np.mean([np.sum((one - whole) ** 2) for one in steps]) / np.sum(whole**2)
    predicted = [report.predicted_residual_error for report in strategy.history]
    observed = [report.model_residual_error for report in strategy.history]
    factors = [report.variance_factor for report in strategy.history]
    assert min(one for one in factors if one is not None) > 0.5
    assert np.mean(predicted[1:]) == pytest.approx(measured, rel=1 / 8)
    assert np.mean(observed) == pytest.approx(measured, rel=1 / 8)
    # Before anything is told, the rounding is taken to be that of normal numbers, which these nearly are.
    assert predicted[0] == pytest.approx(predicted[-1], rel=0.3)
    assert strategy.state.rounding is not None
    assert strategy.state.rounding.variance_factor == pytest.approx(np.mean(factors), rel=0.05)
    assert strategy.state.plan is not None
    assert strategy.state.plan.variance_factor == pytest.approx(np.mean(factors), rel=0.05)


def test_a_client_that_tells_an_absurd_factor_changes_no_weight_by_much() -> None:
    fair, lied_to = run(6, bits=4, load=1)[0], run(6, [1e11], bits=4, load=1)[0]
    assert fair.state.rounding is not None
    assert lied_to.state.rounding is not None
    factor = fair.state.rounding.variance_factor
    assert lied_to.state.rounding.variance_factor == pytest.approx(factor, rel=0.1)


def test_the_summary_before_the_first_round_knows_of_the_rounding(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="flwr"):
        strategy, _ = run(1, bits=2, timing=fleet_of(10, 0.4))
    predicted = strategy.history[0].predicted_residual_error
    assert f"predicted residual error {predicted:.3g}" in caplog.text
    assert BucketedNorm(2).usual_variance_factor(sum(ENTRIES)) > 0.5
