"""Every kind of model through real messages: the decoded aggregate against plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.clients import ShardUpdate, gradient_coded, torch_arrays
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier
from torch import nn

from fedgc.fleets import Fleet
from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import run_virtual
from fedgc.updates import apply_update, in_dtypes
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, steady

Arrays = dict[str, NDArray[Any]]
#: One of each pair comes in time, and it is known that it will: the decoded aggregate is that of all shards.
ONE_OF_TWO = {"median": [1.0, 1e4, 1.0, 1e4, 1.0, 1e4]}
CERTAIN = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
SCHEDULES: dict[str, dict[str, Any]] = {"full": {}, "work-list": {"schedule": "work-list"}}


class Recording(FedAvg):
    """FedAvg that keeps what was decoded: its own average turns integers into float64."""

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        (reply,) = replies
        self.decoded = reply.content["arrays"]
        return super().aggregate_train(server_round, [reply])


def decode(
    initial: ArrayRecord, trainer: Callable[..., ShardUpdate], fleet: Fleet, **options: Any
) -> tuple[ArrayRecord, NDArray[np.float64]]:
    """Train for a round in virtual time; return the decoded aggregate and how often each shard counts in it."""
    app = ClientApp()
    app.train()(gradient_coded()(trainer))
    inner = Recording(fraction_evaluate=0.0)
    given = {"num_shards": N_SHARDS, "shard_examples": EXAMPLES, "deadline": 100.0}
    strategy = GradientCoding(inner, **{**given, **options})
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, initial, num_rounds=1)

    run = run_virtual(server, app, fleet)
    assert [event.detail for event in run.trace if event.kind == "failed"] == []
    assert not strategy.history[-1].rejected
    return inner.decoded, strategy.history[-1].coverage


def plain_aggregate(start: Arrays, after: Callable[[int], Arrays], counts: NDArray[np.float64]) -> Arrays:
    """Start plus the shards' changes, weighted by examples, in float64; counters and flags rounded, within range."""
    total = {name: value.astype(np.float64) for name, value in start.items()}
    shares = counts * EXAMPLES / sum(EXAMPLES)
    for shard_id, share in enumerate(shares):
        for name, value in after(shard_id).items():
            # Running statistics are a weighted mean, all else a weighted sum.
            weight = share / shares.sum() if "running" in name or "tracked" in name else share
            total[name] = total[name] + weight * (value.astype(np.float64) - start[name].astype(np.float64))
    for name, value in start.items():
        if value.dtype.kind != "f":
            info = np.iinfo(value.dtype if value.dtype.kind in "iu" else "u1")
            total[name] = np.clip(np.rint(total[name]), info.min, 1 if value.dtype.kind == "b" else info.max)
    return total


def assert_decoded(decoded: ArrayRecord, start: Arrays, expected: Arrays) -> None:
    assert list(decoded) == list(start)
    for name, value in arrays_of(decoded).items():
        assert (value.dtype, value.shape) == (start[name].dtype, start[name].shape), name
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(value.astype(np.float64), expected[name], err_msg=name)
            continue
        # float16 rounds to within 2^-11: the result, and replies whose weights sum to about one, to two at most here.
        rtol = 3.0 * 2.0**-11 if value.dtype == np.float16 else 1e-12 if value.dtype == np.float64 else 1e-6
        scale = np.abs(start[name].astype(np.float64)).max(initial=0.1)
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=rtol * scale, err_msg=name)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("scale", torch.tensor(0.25))
        self.nothing = nn.Parameter(torch.zeros(0, 3))


class Nested(nn.Module):
    """Modules in modules, batch normalisation, tied and frozen parameters, a 0-d and an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), nn.Sequential(Block(), nn.ReLU())])
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("far", torch.tensor([2**60 + 1, -(2**62) + 3]))


def pattern(shard_id: int, name: str, value: NDArray[Any]) -> NDArray[Any]:
    """What a shard makes of an array: a direction of its own, nothing where frozen, and flags and counters too."""
    if name.startswith(("frozen", "far")):
        return value
    if value.dtype.kind == "b":
        return np.full(value.shape, shard_id % 2 == 0) ^ value
    if value.dtype.kind in "iu":
        return np.asarray(value + 3 * shard_id, dtype=value.dtype)
    direction = np.cos(np.arange(value.size) + shard_id).reshape(value.shape)
    return np.asarray(value + 0.1 * direction, dtype=value.dtype)


def plain_arrays() -> Arrays:
    rng = np.random.default_rng(5)
    floats = [(kind, shape) for kind in ("f2", "f4", "f8") for shape in ((), (0,), (0, 3), (1,), (2, 3), (2, 1, 2))]
    found: Arrays = {f"{kind}{shape}": rng.normal(size=shape).astype(kind) for kind, shape in floats}
    for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"):
        found |= {f"{kind}{shape}": np.ones(shape, dtype=kind) for shape in ((), (0, 2), (3,))}
    found["fortran"] = np.asfortranarray(rng.normal(size=(3, 4)))
    found["big-endian"] = rng.normal(size=3).astype(">f4")
    return found


START: dict[str, Callable[[], ArrayRecord]] = {
    "numpy": lambda: ArrayRecord({name: Array(np.asarray(value)) for name, value in plain_arrays().items()}),
    "torch float32": lambda: ArrayRecord(Nested().state_dict()),
    "torch float64": lambda: ArrayRecord(Nested().double().state_dict()),
    "torch float16": lambda: ArrayRecord(Nested().half().state_dict()),
    "torch bfloat16": lambda: torch_arrays(Nested().bfloat16()),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", START)
def test_what_comes_in_part_is_decoded_to_the_plain_mean(kind: str, schedule: str) -> None:
    initial = START[kind]()
    start = arrays_of(initial)
    fleet = steady(**ONE_OF_TWO)
    known = {"reliability": CERTAIN, "timing": fleet if schedule == "work-list" else None}
    decoded, counts = decode(initial, trainer_of(kind), fleet, **SCHEDULES[schedule], **known)
    np.testing.assert_allclose(counts, 1.0, atol=1e-12)
    assert_decoded(decoded, start, plain_aggregate(start, lambda shard_id: after(kind, shard_id, start), np.ones(6)))
    if kind != "numpy":
        values = arrays_of(decoded)
        np.testing.assert_array_equal(values["head.weight"], values["embed.weight"])
        for name in ("frozen.weight", "frozen.bias", "far"):
            np.testing.assert_array_equal(values[name], start[name])
        Nested().load_state_dict(decoded.to_torch_state_dict())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", START)
def test_where_shards_are_lost_others_count_for_more(kind: str, schedule: str) -> None:
    """The same with weights that are not one: the reference takes how often each shard counts from the report."""
    initial = START[kind]()
    start = arrays_of(initial)
    fleet = steady(median=[1.0, 2.0, 1.0, 1e4, 2.0, 1e4])
    decoded, counts = decode(initial, trainer_of(kind), fleet, deadline=6.5, **SCHEDULES[schedule])
    assert np.abs(counts - 1.0).max() > 0.05
    assert_decoded(decoded, start, plain_aggregate(start, lambda shard_id: after(kind, shard_id, start), counts))


@pytest.mark.parametrize("options", [{"memory": True}, {"schedule": "work-list", "sums": "whole"}], ids=str)
def test_all_dtypes_with_other_options(options: dict[str, Any]) -> None:
    initial = START["numpy"]()
    start = arrays_of(initial)
    decoded, counts = decode(initial, trainer_of("numpy"), steady(), **options)
    assert_decoded(decoded, start, plain_aggregate(start, lambda shard_id: after("numpy", shard_id, start), counts))


def after(kind: str, shard_id: int, start: Arrays) -> Arrays:
    """What the shard makes of the arrays, with tied ones alike and as bfloat16 can hold it."""
    moved = {name: pattern(shard_id, name, value) for name, value in start.items()}
    if kind == "torch bfloat16":
        for name, value in moved.items():
            if value.dtype == np.float32:
                moved[name] = as_bfloat16(value)
    return moved


def as_bfloat16(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the upper 16 bits, ties to even, without torch."""
    bits = value.reshape(-1).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).reshape(value.shape)


def trainer_of(kind: str) -> Callable[..., ShardUpdate]:
    """Hand the arrays over as users would: as numpy arrays or as tensors of the model's dtype."""

    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        result: dict[str, Any] = after(kind, shard_id, arrays_of(arrays))
        if kind != "numpy":
            result = {name: torch.from_numpy(value) for name, value in result.items()}
        if kind == "torch bfloat16":
            result = {n: v.bfloat16() if v.is_floating_point() else v for n, v in result.items()}
        return ShardUpdate(EXAMPLES[shard_id], arrays=result)

    return train


def test_scikit_learn_models() -> None:
    """A linear classifier by SGD: coefficients, intercepts and the counter of its step size."""
    rng = np.random.default_rng(3)
    data = [(rng.normal(size=(n, 4)), np.arange(n) % 3) for n in EXAMPLES]
    blank = ArrayRecord({"coef": Array(np.zeros((3, 4))), "intercept": Array(np.zeros(3)), "t": Array(np.array(1.0))})

    def fitted(shard_id: int, values: Arrays) -> Arrays:
        model = SGDClassifier(random_state=shard_id)
        model.partial_fit(*data[shard_id], classes=[0, 1, 2])
        model.coef_, model.intercept_, model.t_ = values["coef"].copy(), values["intercept"].copy(), float(values["t"])
        model.partial_fit(*data[shard_id])
        return {"coef": model.coef_, "intercept": model.intercept_, "t": np.asarray(model.t_)}

    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(EXAMPLES[shard_id], arrays=fitted(shard_id, arrays_of(arrays)))

    start = arrays_of(blank)
    for options in SCHEDULES.values():
        decoded, counts = decode(blank, train, steady(), **options)
        assert_decoded(decoded, start, plain_aggregate(start, lambda shard_id: fitted(shard_id, start), counts))
    assert np.abs(decoded["coef"].numpy()).max() > 0.1


@pytest.mark.parametrize("size", [5_000_003, 34_000_000])
def test_millions_of_parameters(size: int) -> None:
    """Every entry of a large array, not the first chunk of it."""
    start = np.float32(0.5)

    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(EXAMPLES[shard_id], delta={"w": ramp * np.float32(1 + shard_id)})

    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)
    initial = ArrayRecord({"w": Array(np.full(size, start))})
    decoded, counts = decode(initial, train, steady(2), reliability=CERTAIN, load=1)
    mean = float(counts @ (np.arange(1, 7) * EXAMPLES)) / sum(EXAMPLES)
    np.testing.assert_allclose(decoded["w"].numpy(), start + np.float64(mean) * ramp, rtol=1e-6)


def test_what_cannot_be_averaged_is_refused_by_name() -> None:
    given = {"w": np.zeros(2, dtype=np.complex64)}
    app, replies = ClientApp(), []
    app.train()(gradient_coded(num_shards=1)(lambda shard_id, arrays, config: ShardUpdate(1, delta=given)))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2))})})
        replies.extend(grid.send_and_receive([Message(content, 100, "train")]))

    run_virtual(server, app, steady(1))
    assert replies[0].error.reason == "ValueError: shard 0: array 'w' must hold real numbers; got complex64"


@pytest.mark.parametrize("kind", ["i1", "u1", "i8", "u8", "?"])
def test_whole_numbers_stay_in_range(kind: str) -> None:
    """Weights above one may carry a sum out of the dtype's range, where a cast would wrap around."""
    low, high = (0, 1) if kind == "?" else (np.iinfo(kind).min, np.iinfo(kind).max)
    start = {"n": np.array([low, high, high, low, 1], dtype=kind)}
    moved = apply_update(start, {"n": np.array([-1e30, 1e30, 0.0, 0.0, -0.4])})["n"]
    assert moved.dtype == kind
    # The largest 64-bit integers are no float64: the one below is 1024 or 2048 lower.
    highest = high if high < 2**53 else int(np.nextafter(float(high), 0.0))
    assert moved.tolist() == [low, highest, high, low, 1]


def test_arrays_return_to_the_models_dtypes() -> None:
    like = {"steps": np.array([7]), "w": np.zeros(2, dtype=np.float32), "flag": np.array(True)}
    mean = {"steps": np.array([8.9999]), "w": np.array([0.1, 0.2]), "flag": np.float64(0.3), "other": np.array([1.5])}
    back = in_dtypes(mean, like)
    assert back["steps"].tolist() == [9] and back["flag"].tolist() is False and back["other"].tolist() == [1.5]
    assert [back[name].dtype for name in like] == [like[name].dtype for name in like]
