"""Secure sums with masks: replies that say nothing by themselves, and the sum of which is the same bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fedgc.clients import ShardUpdate, gradient_coded, pairwise_masks
from fedgc.clients.masks import _mask_of
from fedgc.strategies import GradientCoding, SecureSum
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result
from numpy.typing import NDArray
from scipy.stats import chi2

from fedgc.simulation import VirtualRun, run_virtual
from tests.apps import N_SHARDS, arrays_of, steady, train_shard
from tests.secure_sums import NODES, ROUNDS, assert_same, coding, run

Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]
#: As two clients would agree on it by Diffie and Hellman, with Flower's primitives.
KEYS = {node: ec.derive_private_key(1000 + node, ec.SECP384R1()) for node in NODES}


def secret(one: int, other: int) -> bytes:
    return generate_shared_key(KEYS[one], KEYS[other].public_key())


def app_with(*mods: Mod) -> ClientApp:
    app = ClientApp()
    app.train(mods=list(mods))(gradient_coded(num_shards=N_SHARDS)(train_shard))
    return app


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


def test_a_mod_refuses_to_mask_for_a_server_that_wants_single_replies() -> None:
    everyone = {1: tuple(NODES)}
    _, strategy, _ = run(False, masked_app(everyone, secret), steady(), rounds=1)
    assert strategy.history[0].n_arrived == 0
    assert "the message must ask for a secure sum" in strategy.history[0].rejected[NODES[0]]
    _, strategy, _ = run(True, masked_app(everyone, lambda one, other: b"short"), steady(), rounds=1)
    assert "secrets must be of at least 16 bytes" in strategy.history[0].rejected[NODES[0]]
