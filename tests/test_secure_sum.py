"""Secure sums: the sum of what arrived and who sent it are all that the server needs, on the embedded runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fedgc.clients import ShardUpdate, gradient_coded, pairwise_masks
from fedgc.clients.masks import _mask_of
from fedgc.strategies import GradientCoding, SecureSum
from fedgc.strategies.reporting.log import round_line
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Result, Strategy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from fedgc.coherence import KnownCoherence
from fedgc.deadline import QuantileDeadline
from fedgc.fixed_point import add_modulo, from_fixed_point, largest_entry, to_fixed_point, zero_sum
from fedgc.fleets import Fleet, build_fleet
from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import VirtualRun, run_virtual
from fedgc.simulation.grid import FIRST_NODE_ID
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, shard_app, steady, train, train_shard

Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]
NODES = [FIRST_NODE_ID + client for client in range(6)]
ROUNDS = 3
#: As two clients would agree on it by Diffie and Hellman, with Flower's primitives.
KEYS = {node: ec.derive_private_key(1000 + node, ec.SECP384R1()) for node in NODES}


def secret(one: int, other: int) -> bytes:
    return generate_shared_key(KEYS[one], KEYS[other].public_key())


def stragglers() -> Fleet:
    """Random times, and a last client that is often too late for deadlines of 4 seconds."""
    return build_fleet(
        {"model": "log-normal", "clients": 6, "median": [1.0] * 5 + [2.2], "sigma": 0.6, "dropout": 0.1}, seed=3
    )


def coding(strategy: Strategy | None = None, **options: Any) -> GradientCoding:
    inner = strategy or FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    defaults = {"num_shards": N_SHARDS, "deadline": 4.0, "shard_examples": EXAMPLES, "decoder": "fixed"}
    return GradientCoding(inner, **{**defaults, "coherence": KnownCoherence(1.0, 0.3), **options})


def app_with(*mods: Mod) -> ClientApp:
    app = ClientApp()
    app.train(mods=list(mods))(gradient_coded(num_shards=N_SHARDS)(train_shard))
    return app


def run(
    secure_sum: bool | SecureSum,
    app: ClientApp | None = None,
    fleet: Fleet | None = None,
    rounds: int = ROUNDS,
    **options: Any,
) -> tuple[Result, GradientCoding, VirtualRun]:
    strategy = coding(secure_sum=secure_sum, **options)
    result, trace = train(strategy, fleet or stragglers(), rounds=rounds, app=app)
    return result, strategy, trace


def assert_same(left: Result, right: Result, *, bits: bool = True) -> None:
    for name, value in arrays_of(right.arrays).items():
        assert arrays_of(left.arrays)[name].dtype == value.dtype
        np.testing.assert_allclose(arrays_of(left.arrays)[name], value, rtol=0, atol=0 if bits else 1e-6)


class Seen:
    """What reaches the server: who came in each round, and every reply as it leaves its client."""

    def __init__(self) -> None:
        self.came: dict[int, tuple[int, ...]] = {}
        self.replies: dict[tuple[int, int], RecordDict] = {}

    def note(self, server_round: int, nodes: tuple[int, ...], total: Mapping[str, Any]) -> Mapping[str, Any]:
        self.came[server_round] = nodes
        return total

    def mod(self, message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        reply = call_next(message, context)
        arrays = ArrayRecord(dict(reply.content["arrays"]))  # the server drops those of the reply itself
        kept = RecordDict({"arrays": arrays, "metrics": reply.content["metrics"]})
        self.replies[int(message.metadata.group_id), context.node_id] = kept
        return reply


@pytest.fixture(scope="module")
def plain() -> tuple[Result, GradientCoding, VirtualRun]:
    return run(False)


@pytest.fixture(scope="module")
def summed() -> tuple[Result, Seen]:
    seen = Seen()
    result, _, _ = run(SecureSum(seen.note), app_with(seen.mod))
    sizes = {len(nodes) for nodes in seen.came.values()}
    assert len(seen.came) == ROUNDS
    assert min(sizes) < 6, "there must be stragglers"
    assert len({*seen.came.values()}) > 1
    return result, seen


def masked_app(came: Mapping[int, tuple[int, ...]], key: Callable[[int, int], bytes], *outer: Mod) -> ClientApp:
    """Clients that mask their replies among those named for the round."""

    def secrets(message: Message, context: Context) -> dict[int, bytes]:
        peers = came[int(message.metadata.group_id)]
        return {node: key(context.node_id, node) for node in peers if node != context.node_id}

    return app_with(*outer, pairwise_masks(secrets))


@pytest.mark.parametrize(
    ("decoder", "load"),
    [("fixed", 1), ("fixed", 3), ("fixed-aligned", 2), ("fixed-general", 2), ("inverse-probability", 2), ("sum", 2)],
)
def test_the_sum_alone_gives_the_model_that_single_replies_give(decoder: str, load: int) -> None:
    expected, one_by_one, _ = run(False, decoder=decoder, load=load)
    result, strategy, _ = run(True, decoder=decoder, load=load)
    assert_same(result, expected, bits=False)
    assert [report.n_arrived for report in strategy.history] == [report.n_arrived for report in one_by_one.history]


def test_weights_may_be_capped(plain: tuple[Result, GradientCoding, VirtualRun]) -> None:
    expected, _, _ = run(False, max_weight=0.8)
    result, strategy, _ = run(True, max_weight=0.8)
    assert_same(result, expected, bits=False)
    assert max(report.coverage.max() for report in strategy.history) < max(r.coverage.max() for r in plain[1].history)


def test_an_inner_strategy_with_moments_takes_the_same_steps() -> None:
    def adam() -> Strategy:
        return FedAdam(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, eta=0.1, tau=1e-2)

    def models(secure_sum: bool) -> Result:
        return train(coding(adam(), secure_sum=secure_sum), stragglers(), rounds=ROUNDS)[0]

    assert_same(models(True), models(False), bits=False)


def test_replies_masked_among_those_who_arrive_give_the_same_model_bit_for_bit(
    summed: tuple[Result, Seen], plain: tuple[Result, GradientCoding, VirtualRun]
) -> None:
    expected, seen = summed
    masked = Seen()
    result, strategy, _ = run(True, masked_app(seen.came, secret, masked.mod))
    assert_same(result, expected)
    assert_same(result, plain[0], bits=False)
    assert all(report.rejected == {} for report in strategy.history if report.n_arrived == 6)
    for key in ((1, node) for node in seen.came[1]):
        assert all(
            (masked.replies[key]["arrays"][name].numpy() != array.numpy()).all()
            for name, array in seen.replies[key]["arrays"].items()
        )


@pytest.mark.parametrize("decoder", ["fixed", "normalised-sum"])
def test_on_work_lists_one_masked_sum_of_what_was_done_is_enough(decoder: str) -> None:
    """The last client gets nothing done, and its masks are in the sum all the same."""
    options = {"schedule": "work-list", "deadline": 3.5, "decoder": decoder}
    fleet = steady(median=[1.0, 2.0, 0.5, 1.0, 1.0, 500.0])
    expected, one_by_one, _ = run(False, None, fleet, **options)
    seen, masked = Seen(), Seen()
    result, strategy, _ = run(SecureSum(seen.note), None, fleet, **options)
    assert_same(result, expected, bits=False)
    assert set(seen.came.values()) == {tuple(NODES)}
    for report, other in zip(strategy.history, one_by_one.history, strict=True):
        assert (report.n_arrived, report.shards_done, report.rejected) == (5, other.shards_done, {})
        np.testing.assert_allclose(report.coverage, other.coverage, rtol=1e-12)
    hidden, _, _ = run(True, masked_app(seen.came, secret, masked.mod), fleet, **options)
    assert_same(hidden, result)
    assert all(len(reply.array_records) == 1 for reply in masked.replies.values())


def test_other_masks_with_the_same_sum_change_not_a_bit(summed: tuple[Result, Seen]) -> None:
    def other_secret(one: int, other: int) -> bytes:
        return secret(one, other)[::-1]

    expected, seen = summed
    masked, others = Seen(), Seen()
    run(True, masked_app(seen.came, secret, masked.mod))
    result, _, _ = run(True, masked_app(seen.came, other_secret, others.mod))
    assert_same(result, expected)
    for key in ((1, node) for node in seen.came[1]):
        first, second = (one.replies[key]["arrays"]["weight"].numpy() for one in (masked, others))
        assert (first != second).all()


def test_a_single_masked_reply_looks_like_noise() -> None:
    """Every byte of it is uniform, by a chi-squared test that fails by chance once in a million; unmasked, none is."""
    size = 1 << 14
    app, seen, came = ClientApp(), Seen(), {1: tuple(NODES)}

    def updates(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": np.random.default_rng(shard_id).standard_normal(size)})

    def unmasked(message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        reply = call_next(message, context)
        inside[context.node_id] = reply.content["arrays"]["w"].numpy()
        return reply

    def secrets(message: Message, context: Context) -> dict[int, bytes]:
        return {node: secret(context.node_id, node) for node in came[1] if node != context.node_id}

    inside: dict[int, NDArray[Any]] = {}
    app.train(mods=[seen.mod, pairwise_masks(secrets), unmasked])(gradient_coded(num_shards=N_SHARDS)(updates))
    strategy = coding(secure_sum=True, shard_examples=[1] * N_SHARDS, deadline=50.0)
    models, server = [], ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        models.append(strategy.start(grid, ArrayRecord({"w": Array(np.zeros(size))}), num_rounds=1).arrays)

    run_virtual(server, app, steady(), num_shards=N_SHARDS)
    assert strategy.history[0].n_arrived == 6

    def worst(values: NDArray[Any]) -> float:
        bytes_ = values.view(np.uint8).reshape(size, 8)
        counts = [np.bincount(bytes_[:, place], minlength=256) for place in range(8)]
        return max(float(((count - size / 256) ** 2 / (size / 256)).sum()) for count in counts)

    limit = float(chi2.ppf(1.0 - 1e-6 / (8 * 6), 255))
    for node in NODES:
        reply = seen.replies[1, node]["arrays"]["w"].numpy()
        assert worst(reply) < limit
        assert worst(inside[node]) > 100 * limit
        # What is hidden cannot be told from chance by its correlation either: 5 standard deviations.
        as_numbers = [v.view(np.int64).astype(np.float64) for v in (reply, inside[node])]
        assert abs(np.corrcoef(as_numbers)[0, 1]) < 5.0 / np.sqrt(size)
    total = sum(inside[node].view(np.int64) for node in NODES)
    np.testing.assert_allclose(models[0]["w"].numpy(), total * 2.0**-32, atol=1e-9)


def test_masks_that_do_not_cancel_are_noticed_and_the_model_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Masked among all six, of whom one does not come."""
    fleet = steady(median=[1.0] * 5 + [500.0])
    everyone = dict.fromkeys(range(1, ROUNDS + 1), tuple(NODES))
    # Blocks that stay are judged by outcomes, of which two are enough; times that were only cut off tell less.
    result, strategy, _ = run(True, masked_app(everyone, secret), fleet, reassignment_gain=1.0)
    assert not result.arrays, "Flower reports the arrays of the last step, of which there was none"
    assert [report.n_arrived for report in strategy.history] == [5] * ROUNDS
    assert "round 1: the sum of what arrived is out of range (are there masks" in caplog.text
    # What is learnt of the clients needs no update.
    assert strategy.history[-1].straggle_prob[5] > 0.5 > strategy.history[-1].straggle_prob[0]


def test_unmasking_takes_the_masks_of_those_who_dropped_out_of_the_sum(summed: tuple[Result, Seen]) -> None:
    """The last step of the protocol, once the key shares of who dropped out have been put together."""

    def unmask(server_round: int, nodes: tuple[int, ...], total: Mapping[str, Any]) -> Mapping[str, Any]:
        assert nodes == summed[1].came[server_round]
        for node in nodes:
            for gone in set(NODES) - {*nodes}:
                for name, value in total.items():
                    mask = _mask_of(secret(node, gone), f"1/{server_round}/{name}", value.shape)
                    (np.subtract if node < gone else np.add)(value, mask, out=value)
        return total

    everyone = dict.fromkeys(range(1, ROUNDS + 1), tuple(NODES))
    result, _, _ = run(SecureSum(unmask), masked_app(everyone, secret))
    assert_same(result, summed[0])


def test_the_server_may_get_no_reply_at_all_but_the_sum(summed: tuple[Result, Seen]) -> None:
    """Arrays go to somebody else, and an empty record to the server."""
    elsewhere: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}

    def send(message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        reply = call_next(message, context)
        elsewhere[int(message.metadata.group_id), context.node_id] = arrays_of(reply.content["arrays"])
        reply.content["arrays"] = ArrayRecord()
        return reply

    def sum_of(server_round: int, nodes: tuple[int, ...], total: Mapping[str, Any]) -> Mapping[str, Any]:
        assert not any(value.any() for value in total.values())
        return {name: sum(elsewhere[server_round, node][name] for node in nodes) for name in total}

    result, strategy, _ = run(SecureSum(sum_of), app_with(send))
    assert_same(result, summed[0])
    assert strategy.history[-1].rejected == {}
    # Without somebody to ask such a reply is of no use.
    result, strategy, _ = run(True, app_with(send))
    assert not result.arrays
    assert "array names must be" in str(strategy.history[0].rejected)


def test_a_sum_that_cannot_be_had_leaves_the_model_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    result, _, _ = run(SecureSum(lambda server_round, nodes, total: None if len(nodes) < 7 else total))
    assert not result.arrays
    assert "round 1: the sum of what arrived cannot be had, the model stays as it is" in caplog.text
    with pytest.raises(ValueError, match="unmask must return arrays of the model's names and shapes in uint64"):
        run(SecureSum(lambda server_round, nodes, total: {"weight": total["weight"]}))


def test_nothing_but_the_sum_goes_in_the_clear(summed: tuple[Result, Seen]) -> None:
    """The trainer reports a loss, which stays with the client."""
    for reply in summed[1].replies.values():
        assert set(reply["metrics"]) == {"num-examples"}
        assert all(array.dtype == "uint64" for array in reply["arrays"].values())


def test_what_is_learnt_of_the_clients_is_what_is_learnt_otherwise() -> None:
    """Late replies, the ends of rounds and a learnt deadline included."""
    options = {"deadline": QuantileDeadline(0.7, initial=5.0), "load": 2}
    _, one_by_one, expected = run(False, **options)
    _, strategy, trace = run(True, **options)
    assert trace.seconds == expected.seconds
    for report, other in zip(strategy.history, one_by_one.history, strict=True):
        np.testing.assert_array_equal(report.straggle_prob, other.straggle_prob)
        assert (report.deadline, report.seconds) == (other.deadline, other.seconds)
    left, right = strategy.state.completion_times.history, one_by_one.state.completion_times.history
    assert left is not None
    assert right is not None
    np.testing.assert_array_equal(left.seconds, right.seconds)


@pytest.mark.parametrize(
    ("options", "first", "warned"),
    [
        ({}, 2.0, True),
        ({"load": 1}, 2.0, True),
        ({"schedule": "work-list"}, 3.2, True),
        ({"reliability": ReliabilityPosterior(prior_arrivals=9, prior_misses=1)}, 1.11, False),
        ({"timing": steady(20)}, 1.0, False),
        ({"timing": steady(20), "schedule": "work-list"}, 1.0, False),
    ],
)
def test_the_first_aggregate_of_a_fleet_that_never_straggles(
    options: dict[str, Any], first: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as long as the prior says, and the log, once, by how much; the README has these numbers."""
    app, server = ClientApp(), ServerApp()

    @app.train()
    @gradient_coded(num_shards=40)
    def _(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(10, delta={"w": np.ones(1)})

    models: list[float] = []
    given = {"num_shards": 40, "shard_examples": [10] * 40, "deadline": 30.0, "secure_sum": True, "coherence": None}

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"w": Array(np.zeros(1))})
        coding(**{**given, **options}).start(
            grid, start, num_rounds=2, evaluate_fn=lambda _, arrays: models.append(float(arrays["w"].numpy()[0]))
        )

    run_virtual(server, app, steady(20))
    assert models[1] == pytest.approx(first, abs=0.01)
    assert models[2] - models[1] == pytest.approx(1.06 if warned else first, abs=0.02)
    said = "round 1: weights are settled while nothing is known of the clients: if all come, the aggregate is "
    assert caplog.text.count(f"{said}{first:.1f} ") == caplog.text.count("weights are settled while") == warned


def test_a_round_ends_once_everyone_has_come() -> None:
    _, strategy, trace = run(True, None, steady(median=[0.5] * 6))
    assert trace.seconds == ROUNDS * 1.0
    assert [report.n_arrived for report in strategy.history] == [6] * ROUNDS


def test_the_report_says_that_only_the_sum_was_seen() -> None:
    fleet, begin = steady(), coding(coherence=None).state.coherence
    _, one_by_one, _ = run(False, None, fleet, rounds=1, deadline=50.0, coherence=None)
    _, strategy, _ = run(True, None, fleet, rounds=1, deadline=50.0, coherence=None)
    other, report = one_by_one.history[0], strategy.history[0]
    assert (other.sum_only, report.sum_only) == (False, True)
    assert "fedgc-disagreements" in other.metrics
    assert "fedgc-disagreements" not in report.metrics
    assert "(of the model; only the sum was seen)" in round_line(report)
    assert "(of the model" not in round_line(other)
    assert other.model_residual_error == report.model_residual_error
    # Nothing is learnt of how large and how alike the updates are.
    gram = begin.gram(np.ones(3))
    np.testing.assert_array_equal(strategy.state.coherence.gram(np.ones(3)).matrix, gram.matrix)
    assert (one_by_one.state.coherence.gram(np.ones(3)).matrix != gram.matrix).any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.astype(np.float64), "array 'weight' must be uint64 of shape (2, 2); got float64 of shape (2, 2)"),
        (lambda w: w.ravel(), "array 'weight' must be uint64 of shape (2, 2); got uint64 of shape (4,)"),
    ],
)
def test_a_reply_that_cannot_be_added_is_left_out(change: Callable[..., Any], reason: str) -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 2:
            reply.content["arrays"]["weight"] = Array(change(reply.content["arrays"]["weight"].numpy()))
        return reply

    _, strategy, _ = run(True, shard_app(spoil), steady(), rounds=1, deadline=50.0)
    report = strategy.history[0]
    assert report.n_arrived == 5
    assert list(report.rejected) == [NODES[2]]
    assert report.rejected[NODES[2]] == reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e12])
def test_a_client_refuses_to_send_what_would_spoil_the_sum(bad: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    app = ClientApp()

    def update(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, context: Context) -> ShardUpdate:
        value = bad if context.node_id == NODES[1] else 0.5
        delta = {name: np.full_like(array.numpy(), value) for name, array in arrays.items()}
        return ShardUpdate(EXAMPLES[shard_id], delta=delta)

    app.train()(gradient_coded(num_shards=N_SHARDS)(update))
    result, strategy, _ = run(True, app, steady(), rounds=1, deadline=50.0)
    assert strategy.history[0].n_arrived == 5
    assert "must be at most" in strategy.history[0].rejected[NODES[1]]
    assert all(np.isfinite(value).all() for value in arrays_of(result.arrays).values())


def test_a_mod_refuses_to_mask_for_a_server_that_wants_single_replies() -> None:
    everyone = {1: tuple(NODES)}
    _, strategy, _ = run(False, masked_app(everyone, secret), steady(), rounds=1)
    assert strategy.history[0].n_arrived == 0
    assert "the message must ask for a secure sum" in strategy.history[0].rejected[NODES[0]]
    _, strategy, _ = run(True, masked_app(everyone, lambda one, other: b"short"), steady(), rounds=1)
    assert "secrets must be of at least 16 bytes" in strategy.history[0].rejected[NODES[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "optimal-unbiased"}, r"decoder must be one of fixed, fixed-aligned, .* got 'optimal-unbiased'"),
        ({"decoder": "optimal-unbiased", "max_weight": 3.0}, r"decoder must be one of .*weights up to 3'"),
        ({"decoder": "scaled-mean"}, r"decoder must be one of .* for secure_sum; got 'scaled-mean'"),
        (
            {"schedule": "work-list", "sums": "whole", "decoder": "sum"},
            r"sums must be 'shard' for secure_sum: .* 'whole'",
        ),
        (
            {"schedule": "work-list", "decoder": "optimal-unbiased"},
            r"must be one of fixed, normalised-sum, sum for sec",
        ),
        ({"memory": True}, r"memory must be False for secure_sum"),
        ({"shard_examples": None}, r"shard_examples must be given for secure_sum"),
        ({"secure_sum": "yes"}, r"secure_sum must be True, False or a SecureSum; got 'yes'"),
    ],
)
def test_options_in_the_way_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coding(**{"secure_sum": True, **options})


def test_numbers_of_bits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="fractional_bits must be an integer from 8 to 48; got 60"):
        SecureSum(fractional_bits=60)
    with pytest.raises(ValueError, match=r"entries of array 'w' must be at most 2 in a secure sum; got 3"):
        to_fixed_point({"w": np.array([1.0, -3.0])}, 32, largest=2.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_sums_are_exact_but_for_the_rounding_of_each_term(terms: list[float], random: Any) -> None:
    """Against rational arithmetic; in any order, bit for bit, and without a warning from numbers below zero."""
    largest = largest_entry(32, len(terms))
    totals = []
    for _ in range(2):
        total = zero_sum({"w": np.zeros(()), "v": np.zeros(2, np.float32)})
        random.shuffle(terms)
        for term in terms:
            add_modulo(total, to_fixed_point({"w": np.array(term), "v": np.full(2, term)}, 32, largest))
        totals.append(from_fixed_point(total, 32))
    error = abs(sum(map(Fraction, terms)) - Fraction(float(totals[0]["w"])))
    assert error <= Fraction(len(terms), 2**33)
    assert totals[0]["w"] == totals[1]["w"] == totals[1]["v"][1]
