"""Bits of their own for clients, out of a budget: how they are divided, sent, decoded, and what is known of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, VarianceAwareFedAdam
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.codes import FractionalRepetition
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.deadline import FixedDeadline
from fedgc.decoders import DECODERS, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config
from fedgc.experiment.row import Row
from fedgc.experiment.runner import run_one
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import GramModel
from fedgc.protocol import BITS, PACKED, RECORD
from fedgc.quantisers import BucketedNorm, allocate_bits, allocate_bits_to_blocks
from fedgc.round import Planning, RoundState, plan_round, rejoined
from fedgc.round.rounding import RoundingByBits
from fedgc.round.saved_state import state_from_tree, state_to_tree
from fedgc.simulation import run_virtual
from tests.enumeration import arrival_sets, exact_moments

ENTRIES = 1200
OMEGA = np.array([np.inf, *(BucketedNorm(bits).usual_variance_factor(ENTRIES) for bits in range(1, 17))])


def unlike(clients: int) -> Fleet:
    """Clients of which some come nearly always and some hardly ever."""
    away = np.linspace(0.35, 0.75, clients).tolist()
    return build_fleet({"model": "log-normal", "clients": clients, "sigma": 0.0, "dropout": away}, seed=1)


# How a budget is divided


def test_a_star_is_divided_as_by_the_prefix_method() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(1, 20))
        p, budget = rng.uniform(0.0, 0.95, n), int(rng.integers(1, 16 * n + 1))
        found = allocate_bits_to_blocks(
            p, OMEGA, budget, block_of_client=np.zeros(n, dtype=np.intp), energy=rng.uniform(0.1, 9.0, 1)
        )
        assert found.tolist() == allocate_bits(p, OMEGA, budget).bits.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_no_division_over_blocks_has_less_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, energy, omega = rng.uniform(0.0, 0.9, 4), rng.uniform(0.2, 4.0, 2), OMEGA[:5]
    block = np.array([0, 0, 1, 1])

    def variance(bits: Any) -> float:
        worth = np.bincount(block, (1.0 - p) / (p + omega[list(bits)]))
        return float((energy / worth).sum()) if worth.all() else np.inf

    for budget in range(2, 17):
        every = [bits for bits in itertools.product(range(5), repeat=4) if sum(bits) <= budget]
        found = allocate_bits_to_blocks(p, omega, budget, block_of_client=block, energy=energy)
        assert found.sum() <= budget
        assert variance(found) == pytest.approx(min(map(variance, every)), rel=1e-9)
    with pytest.raises(ValueError, match=r"^bit_budget must be at least 2, for a client of each of 2 blocks") as error:
        allocate_bits_to_blocks(p, omega, 1, block_of_client=block, energy=energy)
    assert "\n" not in str(error.value)


# What decoders make of it


@pytest.mark.parametrize("name", [name for name, kind in DECODERS.items() if kind.knows_own_rounding])
def test_decoders_that_know_of_own_rounding_are_unbiased_and_predict_their_error(name: str) -> None:
    code, gram = FractionalRepetition([0, 1, 0, 1, 0], [0, 1, 1]), GramModel([1.0, 0.5, 0.7], [0.3, 0.8, 0.2])
    p, omega = np.array([0.3, 0.6, 0.1, 0.0, 0.8]), np.array([0.7, 0.1, 3.0, 1.2, np.inf])
    calibrated = DECODERS[name]().for_own_rounding(omega).calibrate(code, p, gram)
    rows = code.encoding_matrix
    energy = np.einsum("ij,jk,ik->i", rows, gram.matrix, rows)
    moments, noise = exact_moments(calibrated, p, gram), 0.0
    for arrived, chance in arrival_sets(p):
        weights = calibrated.decode(arrived).decoding_weights
        assert weights[4] == 0.0
        noise += chance * float(weights[:4] ** 2 @ (omega[:4] * energy[:4]))
    assert moments.bias < 1e-12
    ones = np.ones(3)
    assert calibrated.residual_error == pytest.approx(moments.residual_error + noise / gram.inner(ones, ones))


def test_fixed_weights_of_a_star_have_the_variance_of_the_allocation() -> None:
    p = np.linspace(0.05, 0.9, 6)
    found = allocate_bits(p, OMEGA, 20)
    code, gram = FractionalRepetition([0] * 6, [0]), GramModel([1.0], [0.0])
    fixed = FixedDecoder().for_own_rounding(OMEGA[found.bits]).calibrate(code, p, gram)
    assert fixed.residual_error == pytest.approx(1.0 / found.objective)
    optimal = OptimalUnbiasedDecoder().for_own_rounding(OMEGA[found.bits]).calibrate(code, p, gram)
    assert optimal.residual_error is not None
    assert optimal.residual_error < 1.0 / found.objective


# What is planned, and known from round to round


def state_of(n_shards: int, **other: Any) -> RoundState:
    coherence = KnownCoherence(1.0, 0.3)
    return RoundState(np.ones(n_shards), coherence=coherence, rounding_by_bits=RoundingByBits(tuple(OMEGA)), **other)


def test_who_is_given_no_bits_is_not_asked_and_stays_in_the_blocks_of_the_next_plan() -> None:
    fleet = unlike(8)
    planning = Planning(8, FixedDecoder(), deadline=FixedDeadline(20.0), timing=fleet, bit_budget=12)
    state = state_of(8)
    plan = plan_round(state, range(10, 18), planning)
    p = fleet.straggle_prob(20.0, np.full(8, 8))
    wanted = allocate_bits(p, OMEGA, 12).bits
    assert plan.bits is not None
    assert dict(zip(plan.node_ids, plan.bits.tolist(), strict=True)) == {
        10 + client: bits for client, bits in enumerate(wanted.tolist()) if bits
    }
    assert 0 < len(plan.node_ids) < 8
    assert plan.everyone == tuple(range(10, 18))
    assert plan.residual_error == pytest.approx(1.0 / allocate_bits(p, OMEGA, 12).objective)
    after = replace(state, plan=plan, rounds=1)
    again = plan_round(after, range(10, 18), planning)
    assert again.node_ids == plan.node_ids
    # A node that comes back under another id has the place of the old one.
    renamed = rejoined(after, {30: 17}, [*range(10, 17), 30])
    assert renamed.plan is not None
    assert plan_round(renamed, [*range(10, 17), 30], planning).node_ids == plan.node_ids
    # Through a checkpoint to the last bit.
    back = state_from_tree(state_to_tree(after), planning, None)
    assert back.rounding_by_bits == after.rounding_by_bits
    assert back.plan is not None
    assert back.plan.bits is not None
    assert (back.plan.node_ids, back.plan.bits.tolist()) == (plan.node_ids, plan.bits.tolist())
    assert back.plan.residual_error == plan.residual_error


def test_blocks_that_are_learnt_are_kept_whoever_was_asked() -> None:
    planning = Planning(3, OptimalUnbiasedDecoder(), deadline=FixedDeadline(20.0), bit_budget=9)
    state = state_of(9)
    plan = plan_round(state, range(9), planning)
    again = plan_round(replace(state, plan=plan, rounds=1), range(9), planning)
    assert plan.undivided is not None
    assert again.undivided is not None
    np.testing.assert_array_equal(again.undivided.code.encoding_matrix, plan.undivided.code.encoding_matrix)


def test_few_clients_cannot_move_what_is_known_of_any_number_of_bits() -> None:
    known = RoundingByBits(tuple(OMEGA)).update({4: [2 * OMEGA[4], 2 * OMEGA[4], 1e11], 8: [8 * OMEGA[8]]})
    np.testing.assert_allclose(known.variance_factor[[1, 4, 8, 16]], OMEGA[[1, 4, 8, 16]] * [2, 2, 8, 8])
    assert known.variance_factor[6] == pytest.approx(4 * OMEGA[6])
    assert known.update({}) == known
    assert known.update({4: [0.0]}).variance_factor[4] == pytest.approx(0.8 * 2 * OMEGA[4])


# Real messages


COHERENCE = 0.3
SHARDS = 6


def updates() -> np.ndarray:
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((ENTRIES, SHARDS + 1)))
    return (np.sqrt(COHERENCE) * basis[:, :1].T + np.sqrt(1.0 - COHERENCE) * basis[:, 1:].T).astype(np.float32)


def play(rounds: int, fleet: Fleet, **options: Any) -> tuple[GradientCoding, list[np.ndarray], list[dict[int, int]]]:
    """Return the strategy, the decoded update of each round, and what bits each client was told in it.

    That what they send is as many bytes is checked as it comes.
    """
    app, own = ClientApp(), updates()

    @app.train()
    @gradient_coded()
    def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"a": own[shard_id]})

    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=SHARDS,
        deadline=20.0,
        shard_examples=[1] * SHARDS,
        seed=4,
        **options,
    )
    server, seen, told, came = ServerApp(), [], [], set()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        push, pull = grid.push_messages, grid.pull_messages

        def pushed(messages: Any) -> Any:
            messages = list(messages)
            told.append(
                {
                    message.metadata.dst_node_id: message.content[RECORD][BITS]
                    for message in messages
                    if BITS in message.content.config_records.get(RECORD, {})
                }
            )
            return push(messages)

        def counted(ids: Any) -> list[Message]:
            replies = list(pull(ids))
            for reply in replies:
                if reply.has_content():
                    (record,) = reply.content.array_records.values()
                    bits = told[-1][reply.metadata.src_node_id]
                    assert tuple(record[PACKED].shape) == (BucketedNorm(bits).n_bytes(ENTRIES),)
                    came.add(bits)
            return replies

        grid.push_messages, grid.pull_messages = pushed, counted  # type: ignore[method-assign]
        strategy.start(
            grid,
            ArrayRecord({"a": Array(np.zeros(ENTRIES, np.float32))}),
            num_rounds=rounds,
            evaluate_fn=lambda number, arrays: seen.append(arrays["a"].numpy().copy()),
        )

    trace = run_virtual(server, app, fleet)
    assert not any(event.kind == "failed" for event in trace.trace)
    assert not any(report.rejected or report.disagreements for report in strategy.history)
    assert came
    return strategy, list(np.diff(seen, axis=0)), [bits for bits in told if bits]


@pytest.mark.parametrize("decoder", ["fixed", "optimal-unbiased"])
@pytest.mark.parametrize("load", [3, 6])
def test_in_real_messages_it_is_unbiased_and_as_noisy_as_predicted(decoder: str, load: int) -> None:
    fleet = unlike(6)
    strategy, steps, told = play(
        250, fleet, decoder=decoder, load=load, bit_budget=14, timing=fleet, coherence=KnownCoherence(1.0, COHERENCE)
    )
    whole = updates().mean(axis=0)
    error = np.std(steps, axis=0) / np.sqrt(len(steps))
    # What is next to nothing may never have been rounded up.
    off = (np.mean(steps, axis=0) - whole) / np.maximum(error, 0.3 * np.median(error))
    assert np.abs(off).max() < 5.5
    # Projected on the update there is one number, and all of the weights' bias would be in it.
    along = np.array(steps) @ whole / (whole @ whole)
    assert abs(along.mean() - 1.0) < 4.0 * along.std() / np.sqrt(len(steps))
    errors = np.array([np.sum((one - whole) ** 2) for one in steps]) / np.sum(whole**2)
    predicted = np.array([report.predicted_residual_error for report in strategy.history])
    observed = np.array([report.model_residual_error for report in strategy.history])
    # Round by round what came is the same in both, so that only the rounding scatters; then what comes does.
    for apart in (errors - observed, observed - predicted):
        assert abs(apart.mean()) < 4.0 * apart.std() / np.sqrt(len(apart))
    # What came is as many bytes as each client's bits take, and these differ.
    assert len(told) == 250
    assert all(sum(bits.values()) == 14 for bits in told)
    assert any(len(set(bits.values())) > 1 for bits in told)
    sent = [sum(BucketedNorm(own).n_bytes(ENTRIES) for own in bits.values()) for bits in told]
    assert max(sent) < 1.15 * 14 * ENTRIES / 8


def test_bits_are_those_of_the_prefix_method_for_what_the_strategy_knows() -> None:
    fleet = unlike(6)
    known: dict[str, Any] = {"timing": fleet, "coherence": KnownCoherence(1.0, COHERENCE)}
    strategy, _, _ = play(1, fleet, decoder="fixed", load=6, bit_budget=14, **known)
    plan = strategy.state.plan
    assert plan is not None
    assert plan.bits is not None
    assert plan.undivided is not None
    p = fleet.straggle_prob(20.0, np.full(6, SHARDS))
    bits = np.zeros(6, dtype=int)
    bits[[plan.everyone.index(node) for node in plan.node_ids]] = plan.bits
    assert bits.tolist() == allocate_bits(p, OMEGA, 14).bits.tolist()


def test_what_is_learnt_of_updates_is_without_their_rounding() -> None:
    """At two or three bits rounding has as much energy as the update: taken for a part of it, coherence would halve."""
    strategy, _, _ = play(60, unlike(6), load=2, bit_budget=15)
    learnt = strategy.state.coherence
    assert type(learnt) is CoherenceEstimate
    # Of blocks of two shards: (1 + c) / 2 is the energy of their mean.
    assert learnt.overlap / learnt.energy == pytest.approx(COHERENCE / ((1.0 + COHERENCE) / 2.0), rel=0.25)


def test_the_summary_tells_the_bits(caplog: pytest.LogCaptureFixture) -> None:
    fleet = unlike(6)
    with caplog.at_level("INFO", logger="flwr"):
        play(1, fleet, load=3, bit_budget=14, timing=fleet)
    assert "nodes, 14 in all" in caplog.text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bit_budget": 0}, "bit_budget must be an integer of at least 1; got 0"),
        ({"bit_budget": 2.5}, "bit_budget must be an integer of at least 1; got 2.5"),
        ({"bits": 4}, "bit_budget must be left out with bits; got 12"),
        ({"memory": True}, "bit_budget must be left out unless decoder is fixed or optimal-unbiased"),
        ({"memory": True, "decoder": "optimal-unbiased"}, "bit_budget must be left out with memory; got 12"),
        ({"schedule": "work-list"}, "bit_budget must be left out for schedule 'work-list', whose sums overlap; got 12"),
        ({"code": "scheme-I"}, "bit_budget must be left out for a code that says itself who holds what; got 12"),
        ({"decoder": "sum"}, "bit_budget must be left out unless decoder is fixed or optimal-unbiased; got 'sum'"),
        ({"max_weight": 3.0}, "bit_budget must be left out unless decoder is"),
        ({"failure_domains": ["a"] * 6}, "bit_budget must be left out with failure_domains; got 12"),
        ({"secure_sum": True, "decoder": "fixed"}, "bit_budget must be left out with secure_sum; got 12"),
        (
            {"strategy": VarianceAwareFedAdam()},
            "bit_budget must be left out for a strategy with a second_moment; got it with 'scale'",
        ),
    ],
)
def test_a_budget_that_cannot_be_heeded_is_an_error_of_one_line(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match="bit_budget") as error:
        GradientCoding(num_shards=6, deadline=9.0, shard_examples=[1] * 6, **{"bit_budget": 12, **options})
    assert str(error.value).startswith(why)
    assert "\n" not in str(error.value)


def test_a_budget_too_small_for_the_blocks_ends_the_run_with_one_line() -> None:
    with pytest.raises(ValueError, match=r"bit_budget must be at least 3, .* of 3 blocks to send; got 2"):
        play(1, unlike(6), load=2, bit_budget=2)


def test_what_the_nodes_that_are_there_cannot_spend_stays_over() -> None:
    """A budget may be for more nodes than the first round has: the others may yet come."""
    _, steps, told = play(1, unlike(6), load=2, bit_budget=96)
    for budget in (97, 10**9):
        _, same, bits = play(1, unlike(6), load=2, bit_budget=budget)
        assert bits == told and max(sum(one.values()) for one in bits) <= 96
        np.testing.assert_array_equal(same, steps)


# Configurations

CONFIG: dict[str, Any] = {
    "name": "budget",
    "rounds": 2,
    "seeds": [1],
    "timing": "known",
    "task": {"name": "digits-regression", "shards": 6},
    "fleet": {"preset": "paper", "clients": 6},
}


def coded(**options: Any) -> dict[str, Any]:
    own = {"kind": "gradient-coding", "label": "a", "deadline": 1.5, "load": 3, "bit_budget": 20, **options}
    return {**CONFIG, "strategies": [own]}


def test_the_key_of_a_configuration_is_heeded() -> None:
    rows: list[Row] = []
    for decoder in ("auto", "fixed"):
        config = check_config(coded(decoder=decoder, quantiser="rotated-norm"))
        run_one(config, config.strategies[0], 1, rows.append)  # type: ignore[arg-type]
    factors = [row.metrics.get("fedgc-variance-factor") for row in rows if row.round]
    assert len(factors) == 4
    assert all(factor is not None and factor > 0.0 for factor in factors)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bit_budget": 0}, "strategies.0.bit_budget"),
        ({"bit_budget": 1}, "strategies.0.bit_budget must be an integer from 2 to 96; got 1"),
        ({"bit_budget": 97}, "strategies.0.bit_budget must be an integer from 2 to 96; got 97"),
        ({"bits": 4}, "strategies.0.bit_budget must be left out with bits; got 20"),
        ({"decoder": "sum"}, "strategies.0.bit_budget must be left out unless decoder is fixed or optimal-unbiased"),
        ({"schedule": "work-list"}, "strategies.0.bit_budget must be left out for schedule 'work-list'"),
        ({"code": "scheme-I"}, "strategies.0.bit_budget must be left out for a code"),
        ({"max_weight": 2.0}, "strategies.0.bit_budget must be left out with max_weight; got 20"),
        ({"memory": True, "decoder": "optimal-unbiased"}, "strategies.0.bit_budget must be left out with memory"),
    ],
)
def test_a_bad_budget_of_a_configuration_is_an_error_of_one_line(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(coded(**options))
    assert str(error.value).startswith(why)
    assert "\n" not in str(error.value)


def test_the_runtime_without_messages_does_not_round() -> None:
    with pytest.raises(ConfigError, match=r"^strategies.0.bit_budget must be left out for runtime 'replay'; got 20$"):
        check_config({**coded(), "runtime": "replay"})
