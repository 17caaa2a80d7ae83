"""What a strategy keeps in its attributes: saved and restored whatever it is, or named in the log."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fedgc.strategies.resuming.plain_values import value_from_tree, value_to_tree
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import (
    FedAvg,
    Strategy,
)

from fedgc.checkpoint import pack_tree, unpack_tree
from tests import test_resume
from tests.test_resume import OPTIONS, check_same, refused, run


class Phase(Enum):
    EARLY = "early"
    LATE = "late"


class Point(NamedTuple):
    at: int
    value: np.ndarray


@dataclass
class Momentum:
    decay: float
    moved: dict[str, np.ndarray] = field(default_factory=dict)
    ran: bool = False

    def __post_init__(self) -> None:
        self.ran = True


@dataclass(frozen=True, slots=True)
class Frozen:
    phase: Phase
    points: tuple[Point, ...]


def there_and_back(value: object) -> Any:
    return value_from_tree(unpack_tree(pack_tree(value_to_tree(value))))


VALUES = [
    None, True, -3, 2**80, float("nan"), "a", b"b", 1 - 2j, Path("x/y"), bytearray(b"c"),
    np.float32(0.1), np.float64(0.1), np.bool_(True), np.complex64(1j), np.datetime64("2020-01-02"), np.str_("a"),
    np.zeros((0, 3)), np.arange(6.0).reshape(2, 3), np.array([1j]), np.array(["ab", "c"]), np.array(3, dtype=np.int8),
    [], (1, [2, {"a": (3,)}]), {3, 1}, frozenset({"a"}), deque([1, 2], maxlen=2), {(1, 2): [3], None: 4, "$": 5},
    OrderedDict(b=1, a=2), Counter("aab"), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}),
    Phase.LATE, Point(3, np.ones(2)), Momentum(0.9, {"w": np.ones(3)}), Frozen(Phase.EARLY, (Point(1, np.zeros(1)),)),
    ArrayRecord({"w": Array(np.ones(2, dtype=np.float16))}), Array(np.ones(2)),
    RecordDict({"c": ConfigRecord({"a": 1})}),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[f"{i}-{type(value).__name__}" for i, value in enumerate(VALUES)])
def test_what_is_saved_comes_back_as_it_was(value: object) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert value_to_tree(back) == value_to_tree(value) or value != value
    if isinstance(value, defaultdict):
        assert back.default_factory is value.default_factory
    if isinstance(value, np.ndarray):
        back[...] = value  # it can be written to


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_tensors_come_back_as_they_were(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (3 * torch.rand(shape)).to(dtype)
    back = there_and_back(tensor)
    assert type(back) is torch.Tensor
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    parameter = there_and_back(torch.nn.Parameter(torch.rand(2, 3).T))
    assert type(parameter) is torch.nn.Parameter
    assert parameter.requires_grad


def drawn(generator: Any) -> list[float]:
    if isinstance(generator, torch.Generator):
        return torch.rand(3, generator=generator).tolist()
    if isinstance(generator, np.random.Generator | np.random.RandomState):
        return [*generator.normal(size=3).tolist(), int(generator.integers(9) if hasattr(generator, "integers") else 0)]
    return [generator.random() for _ in range(3)] if isinstance(generator, random.Random) else [generator.random_raw()]


@pytest.mark.parametrize(
    "generator",
    [
        np.random.default_rng(3),
        *(np.random.Generator(getattr(np.random, name)(3)) for name in ("MT19937", "PCG64DXSM", "Philox", "SFC64")),
        np.random.RandomState(3),
        np.random.RandomState(np.random.PCG64(3)),
        np.random.PCG64(3),
        random.Random(3),
        torch.Generator().manual_seed(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_generators_go_on_where_they_were(generator: Any) -> None:
    drawn(generator)  # an odd number of normals, so that one is kept back
    back = there_and_back(generator)
    assert type(back) is type(generator)
    assert drawn(back) == drawn(generator)


def test_what_cannot_be_saved_is_told() -> None:
    @dataclass
    class Local:
        a: int = 0

    class Numbers(dict[str, int]):
        pass

    endless: list[Any] = []
    endless.append(endless)
    for value in (
        object(), Local(), Numbers(), lambda: 0, np.array([object()]), defaultdict(lambda: 3), [{"a": object()}],
        torch.eye(2).to_sparse(), np.ma.masked_array([1]), FedAvg(),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            value_to_tree(value)
    with pytest.raises(RecursionError):
        value_to_tree(endless)


def moved_to(arrays: ArrayRecord | None, value: np.ndarray) -> ArrayRecord | None:
    return None if arrays is None else ArrayRecord({"w": Array(np.asarray(value, dtype=np.float64))})


class Learning(FedAvg):
    """State of many kinds, some of it set on first use, all of which the next step depends on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rng = np.random.default_rng()
        self.shared = random.Random(1)
        self.draw = self.shared.random  # a method of the generator: it must stay the same one
        self.mean: torch.Tensor | None = None
        self.window: deque[np.ndarray] = deque(maxlen=3)
        self.momentum = Momentum(0.5)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None:
            if server_round == 1:
                self.rng = np.random.default_rng(5)
            weights = arrays["w"].numpy()
            tensor = torch.tensor(weights)
            self.mean = tensor if self.mean is None else 0.9 * self.mean + 0.1 * tensor
            self.window.append(weights)
            moved = self.momentum.moved.get("w", np.zeros(3))
            self.momentum.moved["w"] = self.momentum.decay * moved + weights
            self.steps = getattr(self, "steps", 0) + 1
            noise = self.rng.normal(size=3) + self.draw() + self.steps
            arrays = moved_to(arrays, self.mean.numpy() + np.mean(self.window, axis=0) + 0.01 * noise)
            assert arrays is not None
        return arrays, metrics


def use(monkeypatch: pytest.MonkeyPatch, name: str, make: Any, **options: Any) -> None:
    monkeypatch.setitem(test_resume.STRATEGIES, name, lambda: (make(), options))


def test_an_inner_strategy_goes_on_with_all_that_it_knew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "learning", lambda: Learning(fraction_evaluate=0.0, **OPTIONS))
    whole = run("learning", tmp_path / "whole")
    for server_round in (2, 4):
        run("learning", tmp_path / "killed", kill_at=("train", server_round), resume=True)
    resumed = run("learning", tmp_path / "killed", resume=True)
    check_same(resumed, whole)
    assert resumed[0].strategy.steps == sum(bool(one.arrived.any()) for one in whole[0].history)  # type: ignore[attr-defined]


class Holding(FedAvg):
    """With attributes that cannot be saved, one of which is set on first use."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before = object()
        self.open = open

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        if server_round == 2:
            self.after = [iter([1])]
        return super().aggregate_train(server_round, replies)


def test_what_cannot_be_saved_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, "holding", lambda: Holding(fraction_evaluate=0.0, **OPTIONS))
    run("holding", tmp_path)
    lines = [record.getMessage() for record in caplog.records if "cannot be saved" in record.getMessage()]
    end = " cannot be saved: a resumed run begins with what its constructor makes of it"
    assert lines == [f"the inner strategy's before (object){end}", f"the inner strategy's after (list){end}"]
    run("memory", tmp_path / "plain")
    assert len([one for one in caplog.records if "cannot be saved" in one.getMessage()]) == 2


class Between(FedAvg):
    """A strategy around another, as Flower's are."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(fraction_evaluate=0.0, **OPTIONS)
        self.strategy = strategy


class Other(Between):
    """Another one."""


def test_checkpoints_of_another_kind_of_strategy_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"fraction_evaluate": 0.0, **OPTIONS}
    for name in ("FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"):
        use(monkeypatch, name, partial(getattr(flower, name), **options))
    use(monkeypatch, "between", lambda: Between(FedAvg(**options)))
    use(monkeypatch, "other", lambda: Other(FedAvg(**options)))
    for name in ("FedAvg", "FedAdam", "between"):
        run(name, tmp_path / name, rounds=2)
    for one, other in (
        ("FedAdam", "FedYogi"), ("FedAdam", "FedAdagrad"), ("FedAvg", "FedAdam"), ("FedAvg", "FedAvgM"),
    ):  # fmt: skip
        expected = f"the inner strategy must be {one}, as in the checkpoint; got {other}"
        refused(expected, other, tmp_path / one, resume=True)
    expected = "must be Between around FedAvg, as in the checkpoint; got Other around FedAvg"
    refused(expected, "other", tmp_path / "between", resume=True)
