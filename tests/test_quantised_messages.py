"""Quantised sums in real Flower messages: unbiased, decoded as they come, few bytes, and hostile ones left out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.clients.encode import SegmentSums
from fedgc.strategies import GradientCoding, SecureSum
from fedgc.strategies.messages.packed_replies import read_packed_sum
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import array_record_to_proto
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

from fedgc.coherence import KnownCoherence
from fedgc.errors import ConfigError, ReplyRejectedError
from fedgc.experiment.config import check_config
from fedgc.fleets import Fleet, build_fleet
from fedgc.protocol import EXACT, PACKED, RECORD, VARIANCE_FACTORS, rounding_seed
from fedgc.quantisers import QUANTISERS, BucketedNorm
from fedgc.quantisers.packed_sum import PackedSum, pack_arrays, rounded_names
from fedgc.simulation import run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, initial_arrays, shard_app, steady, train

ONE = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


def coding(**options: Any) -> GradientCoding:
    known = {"num_shards": N_SHARDS, "deadline": 50.0, "shard_examples": EXAMPLES, "early_end": False}
    return GradientCoding(FedAvg(**ONE), **{**known, "coherence": KnownCoherence(1.0, 0.3), **options})


def step(result: Result) -> dict[str, np.ndarray]:
    before = arrays_of(initial_arrays())
    return {name: value - before[name] for name, value in arrays_of(result.arrays).items()}


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("name", QUANTISERS)
def test_sixteen_bits_are_as_good_as_none(name: str, schedule: str) -> None:
    with_bits, _ = train(coding(bits=16, quantiser=name, schedule=schedule), steady(6), rounds=2)
    without, _ = train(coding(schedule=schedule), steady(6), rounds=2)
    for key, value in step(without).items():
        np.testing.assert_allclose(step(with_bits)[key], value, atol=5e-4 * np.abs(value).max())


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_decoded_step_has_the_mean_of_that_without_rounding(bits: int, schedule: str) -> None:
    """Seeds are the only thing that changes, and with them the rounding.

    A coherence that is given would be told of the rounding, and decode with other weights; of one that is learnt
    nothing is known in the first round.
    """
    exact, steps = step(train(coding(schedule=schedule, coherence=None), steady(6), rounds=1)[0]), []
    for seed in range(40):
        result, _ = train(coding(bits=bits, seed=seed, schedule=schedule, coherence=None), steady(6), rounds=1)
        steps.append(np.concatenate([step(result)[name].ravel() for name in sorted(exact)]))
    wanted = np.concatenate([exact[name].ravel() for name in sorted(exact)])
    error = np.std(steps, axis=0) / np.sqrt(len(steps))
    assert error.max() > 1e-3
    np.testing.assert_array_less(np.abs(np.mean(steps, axis=0) - wanted), 4.5 * error + 1e-6)


def big_app() -> tuple[ClientApp, ArrayRecord]:
    shapes = {"weight": (200, 300), "bias": (300,)}
    app = ClientApp()

    @app.train()
    @gradient_coded()
    def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        rng = np.random.default_rng(config["shard-seed"])
        return ShardUpdate(10, delta={k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()})

    return app, ArrayRecord({k: Array(np.zeros(s, np.float32)) for k, s in shapes.items()})


def bytes_and_replies(fleet: Fleet, **options: Any) -> tuple[int, int, GradientCoding, Result]:
    app, arrays = big_app()
    strategy = GradientCoding(FedAvg(**ONE), num_shards=12, deadline=50.0, shard_examples=[10] * 12, **options)
    server, sizes, results = ServerApp(), [], []

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        pull = grid.pull_messages

        def counted(ids: Any) -> list[Message]:
            replies = list(pull(ids))
            for reply in replies:
                if reply.has_content():
                    sizes.extend(array_record_to_proto(one).ByteSize() for one in reply.content.array_records.values())
            return replies

        grid.pull_messages = counted  # type: ignore[method-assign]
        results.append(strategy.start(grid, arrays, num_rounds=2))

    trace = run_virtual(server, app, fleet)
    assert not any(event.kind == "failed" for event in trace.trace)
    return sum(sizes), len(sizes), strategy, results[0]


@pytest.mark.parametrize(("bits", "fewer"), [(8, 3.5), (4, 7.0)])
@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_so_many_times_fewer_bytes_on_the_wire(bits: int, fewer: float, schedule: str) -> None:
    fleet = build_fleet({"model": "shifted-exponential", "clients": 6, "shift": 0.5, "mean": 1.0}, seed=1)
    plain, replies, _, _ = bytes_and_replies(fleet, schedule=schedule)
    packed, as_many, strategy, _ = bytes_and_replies(fleet, schedule=schedule, bits=bits)
    assert replies == as_many > 0
    assert plain / packed > fewer
    # Normal entries, of which a bucket's largest is three standard deviations: what clients measured is known.
    told = [report.variance_factor for report in strategy.history]
    exact = BucketedNorm(bits).variance_factor(np.random.default_rng(1).standard_normal(60000))
    assert told == pytest.approx([exact] * 2, rel=0.05)


def test_copies_of_a_sum_are_rounded_alike_and_different_sums_are_not() -> None:
    sent: dict[int, list[bytes]] = {}

    def keep(reply: Message, partition: int) -> None:
        sent.setdefault(partition, []).extend(
            bytes(record[PACKED].data) for record in reply.content.array_records.values()
        )

    strategy = coding(bits=3, load=2)
    train(strategy, steady(6), rounds=3, app=shard_app(keep))
    assert len({len(one) for one in sent.values()}) == 1
    for server_round in range(3):
        assert len({one[server_round] for one in sent.values()}) == 3
    assert not any(report.disagreements for report in strategy.history)
    assert not any(report.rejected for report in strategy.history)


def arrays_with_counters() -> dict[str, np.ndarray]:
    return {
        "w": np.zeros((3, 4)),
        "steps": np.array(5),
        "bn.running_var": np.ones(3, np.float32),
        "e": np.zeros((0, 2)),
    }


def test_counters_and_running_statistics_are_sent_as_they_are() -> None:
    app, arrays = ClientApp(), arrays_with_counters()
    app.train()(
        gradient_coded()(
            lambda shard_id, arrays, config: ShardUpdate(
                1,
                delta={
                    "w": np.ones((3, 4)),
                    "steps": np.array(2),
                    "bn.running_var": np.full(3, -0.5, np.float32),
                    "e": np.zeros((0, 2)),
                },
            )
        )
    )
    seen: list[set[str]] = []

    strategy = GradientCoding(
        FedAvg(**ONE), num_shards=2, deadline=9.0, load=1, shard_examples=[1, 1], bits=4, decoder="least-squares"
    )
    server, results = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Any) -> None:
        pull = grid.pull_messages

        def look(ids: Any) -> list[Message]:
            replies = list(pull(ids))
            seen.extend(set(one) for reply in replies for one in reply.content.array_records.values())
            return replies

        grid.pull_messages = look  # type: ignore[method-assign]
        results.append(strategy.start(grid, ArrayRecord({k: Array(v) for k, v in arrays.items()}), num_rounds=1))

    run_virtual(server, app, steady(2))
    assert seen
    assert all(names == {PACKED, EXACT} for names in seen)
    after = arrays_of(results[0].arrays)
    np.testing.assert_allclose(after["bn.running_var"], 0.5, rtol=1e-6)
    assert int(after["steps"]) == 7


def separable_blocks(channels: int, blocks: int) -> dict[str, np.ndarray]:
    """A model of many small arrays, half of which are running statistics and counters."""
    rng, arrays = np.random.default_rng(1), {}
    for block in range(blocks):
        arrays[f"{block}.depth.weight"] = rng.standard_normal((channels, 1, 3, 3))
        arrays[f"{block}.point.weight"] = rng.standard_normal((channels, channels, 1, 1))
        for norm in ("a", "b"):
            for name in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{block}.{norm}.{name}"] = rng.uniform(0.5, 1.5, channels)
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    return {
        **arrays,
        **{f"{block}.{norm}.num_batches_tracked": np.array(3) for block in range(blocks) for norm in "ab"},
    }


def sent(arrays: dict[str, np.ndarray], quantiser: Any, n_examples: int = 10) -> ArrayRecord:
    """What a client with one shard sends of a change by these arrays from zero."""
    zero = {
        name: np.zeros_like(value, np.float64 if value.dtype.kind != "f" else None) for name, value in arrays.items()
    }
    sums = SegmentSums(zero, [1])
    sums.add(1.0, n_examples, arrays)
    told = ConfigRecord({"shard-ids": [0], "run-seed": 1, "bits": quantiser.bits, "quantiser": quantiser.name})
    (coded,) = sums.encoded(told, 1, rounded_names(arrays), [])
    return ArrayRecord({name: Array(value) for name, value in coded.items()})


def received(record: ArrayRecord, arrays: dict[str, np.ndarray], quantiser: Any, n_examples: int = 10) -> Any:
    zero = {name: np.zeros_like(value) for name, value in arrays.items()}
    seed, bounds = rounding_seed(1, 1, [0]), dict.fromkeys(arrays, 0.0)
    return read_packed_sum(record, zero, float(n_examples), quantiser=quantiser, seed=seed, bounds=bounds)


@pytest.mark.parametrize(("bits", "fewer"), [(8, 3.5), (4, 6.0)])
def test_models_of_many_small_arrays_take_as_few_bytes(bits: int, fewer: float) -> None:
    """Statistics stay in single precision, a twentieth of the entries here; but no array has a header of its own."""
    arrays = separable_blocks(64, 15)
    plain = array_record_to_proto(ArrayRecord({name: Array(value) for name, value in arrays.items()})).ByteSize()
    record = sent(arrays, BucketedNorm(bits))
    assert set(record) == {PACKED, EXACT}
    assert plain / array_record_to_proto(record).ByteSize() > fewer
    total = received(record, arrays, BucketedNorm(bits))
    for name, value in arrays.items():
        exact = name not in rounded_names(arrays)
        np.testing.assert_allclose(total[name], 10.0 * value, rtol=1e-6 if exact else 0, atol=0 if exact else 10.0)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[:-1], "arrays that are not rounded must be uint8 of shape (24,); got uint8 of shape (23,)"),
        (lambda data: data.astype(np.int8), "arrays that are not rounded must be uint8 of shape (24,); got int8"),
        (lambda data: data[None], "got uint8 of shape (1, 24)"),
        (lambda data: np.full_like(data, 255), "array 'bn.running_mean' must be finite in float32; got NaN"),
        (lambda data: np.full_like(data, 100), "array 'bn.running_mean' must have entries of at most 1e+12 times"),
        (None, "array names must be"),
    ],
)
def test_arrays_that_are_not_rounded_are_looked_at_too(spoil: Any, why: str) -> None:
    arrays = {"bn.running_mean": np.ones(4, np.float32), "steps": np.array(3), "w": np.ones(5, np.float32)}
    record = sent(arrays, BucketedNorm(4))
    assert received(record, arrays, BucketedNorm(4))["steps"] == 30.0
    data = np.array(record[EXACT].numpy())
    if spoil is None:
        del record[EXACT]
    else:
        record[EXACT] = Array(spoil(data))
    with pytest.raises(ReplyRejectedError, match=re.escape(why)) as error:
        received(record, arrays, BucketedNorm(4))
    assert "\n" not in str(error.value)


def hostile(change: Any) -> Any:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 5:
            content = reply.content
            change(content)
        return None

    return spoil


def packed_as(value: Any) -> Any:
    def change(content: RecordDict) -> None:
        record = next(iter(content.array_records.values()))
        record[PACKED] = Array(value(np.array(record[PACKED].numpy())))

    return change


def with_scale(number: float) -> Any:
    def value(data: np.ndarray) -> np.ndarray:
        data[16:20] = np.frombuffer(np.array(number, "<f4").tobytes(), np.uint8)
        return data

    return packed_as(value)


def a_model(content: RecordDict) -> None:
    name = next(iter(content.array_records))
    content[name] = initial_arrays()


def another_size(data: np.ndarray) -> np.ndarray:
    data[8:16] = 255
    return data


def the_format_before(data: np.ndarray) -> np.ndarray:
    data[:4] = np.frombuffer(b"fgq1", np.uint8)
    return data


ATTACKS: dict[str, tuple[Any, str]] = {
    "too short": (packed_as(lambda data: data[:-1]), "packed arrays of 4 bits must be uint8 of shape"),
    "too long": (packed_as(lambda data: np.append(data, np.uint8(0))), "packed arrays of 4 bits must be uint8"),
    "enormous": (packed_as(lambda data: np.zeros(10**7, np.uint8)), "must have at most"),
    "of floats": (packed_as(lambda data: data.astype(np.float32)), "must be uint8"),
    "in two dimensions": (packed_as(lambda data: data[None]), "must be uint8 of shape"),
    "a wrong size inside": (packed_as(another_size), "must begin with format, quantiser, bits and size"),
    "a format of before": (packed_as(the_format_before), "must begin with format, quantiser, bits and size"),
    "NaN scale": (with_scale(np.nan), "the scale of bucket 0 must be finite and at least 0; got nan"),
    "infinite scale": (with_scale(np.inf), "the scale of bucket 0 must be finite and at least 0; got inf"),
    "negative scale": (with_scale(-1.0), "the scale of bucket 0 must be finite and at least 0; got -1"),
    "absurd scale": (with_scale(1e20), "must have entries of at most 1e+12 times"),
    "a model": (a_model, "array names must be"),
}


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_reply_costs_its_own_contribution(attack: str, schedule: str) -> None:
    change, why = ATTACKS[attack]
    strategy = coding(bits=4, load=3, schedule=schedule)
    result, _ = train(strategy, steady(6), rounds=1, app=shard_app(hostile(change)))
    (reason,) = strategy.history[0].rejected.values()
    assert why in reason
    assert "\n" not in reason
    silent, _ = train(
        coding(bits=4, load=3, schedule=schedule),
        steady(6),
        rounds=1,
        app=shard_app(hostile(lambda content: content.clear())),
    )
    for name, value in arrays_of(silent.arrays).items():
        np.testing.assert_array_equal(arrays_of(result.arrays)[name], value)


@pytest.mark.parametrize("told", [[np.nan], [-1.0], ["x"], [1.0, 2.0], 3.0])
def test_variance_factors_that_make_no_sense_are_not_reported(told: Any) -> None:
    def change(content: RecordDict) -> None:
        content[RECORD][VARIANCE_FACTORS] = told

    strategy = coding(bits=4, load=1)
    train(strategy, steady(6), rounds=1, app=shard_app(lambda reply, partition: change(reply.content)))
    assert strategy.history[0].variance_factor is None
    assert not strategy.history[0].rejected


def test_bytes_of_another_quantiser_are_no_packed_sum() -> None:
    sums = {"w": np.arange(6.0).reshape(2, 3)}
    data, _ = pack_arrays(sums, ["w"], BucketedNorm(8), 3)
    total = PackedSum(data, sums, {}, BucketedNorm(8), seed=3, scale=2.0)
    assert dict(total).keys() == sums.keys()
    with pytest.raises(ValueError, match=re.escape("packed arrays cannot be read: a packed vector must begin with")):
        PackedSum(data, {"w": np.zeros((2, 3))}, {}, QUANTISERS["rotated-norm"](8), seed=3, scale=2.0)


def test_an_update_that_cannot_be_rounded_is_told_by_its_name() -> None:
    update = {"a": np.ones(2), "b": np.array([1.0, np.inf])}
    with pytest.raises(ValueError, match=r"^array 'b' cannot be rounded: entries must be finite; got NaN or infinity$"):
        pack_arrays(update, ["a", "b"], BucketedNorm(8), 3)
    with pytest.raises(ValueError, match=r"^arrays cannot be rounded: scales must be finite in single precision; got "):
        pack_arrays({"a": np.array([1e300])}, ["a"], BucketedNorm(8), 3)


@pytest.mark.parametrize("bits", [0, 17, -1, 2.5, True])
def test_bits_outside_of_1_to_16_are_an_error(bits: Any) -> None:
    with pytest.raises(ValueError, match=r"^bits must be an integer from 1 to 16; got "):
        coding(bits=bits)


def test_what_does_not_go_with_rounded_sums_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^quantiser must be one of bucketed-norm, global-norm, rotated-norm; got 'x'"
    ):
        coding(bits=8, quantiser="x")
    with pytest.raises(ValueError, match=r"^bits must be left out for secure_sum"):
        coding(bits=8, secure_sum=SecureSum(), decoder="fixed", coherence=None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bits": 17}, "strategies.0.bits must be less than or equal to 16; got 17"),
        ({"bits": 0}, "strategies.0.bits must be greater than or equal to 1; got 0"),
        ({"bits": 8, "secure_sum": True, "decoder": "fixed"}, "strategies.0.bits must be left out with secure_sum"),
        ({"quantiser": "rotated-norm"}, "strategies.0.quantiser must be left out without bits; got 'rotated-norm'"),
    ],
)
def test_configs_with_bits_that_cannot_be_are_refused_in_one_line(change: dict[str, Any], why: str) -> None:
    strategy = {"kind": "gradient-coding", "label": "x", "deadline": 5.0, **change}
    config = {"name": "x", "rounds": 1, "seeds": [1], "fleet": {"preset": "uneven", "clients": 4}}
    with pytest.raises(ConfigError, match="^" + re.escape(why)) as error:
        check_config({**config, "strategies": [strategy]})
    assert "\n" not in str(error.value)
