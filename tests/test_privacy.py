"""How far one client, or one shard, can move the aggregate under strategies that add noise for privacy around ours."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from fedgc.strategies.reporting.largest_part import largest_part
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Result,
    Strategy,
)
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, FractionalRepetition, WorkLists
from fedgc.decoders import (
    CappedDecoder,
    Decoder,
    FirstArrivalDecoder,
    FixedDecoder,
    LeastSquaresDecoder,
    OptimalUnbiasedDecoder,
)
from fedgc.gram import GramModel
from fedgc.memory import UpdateMemory
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, RoundFold, RoundPlan, RoundState
from fedgc.simulation import run_virtual
from fedgc.updates import average_statistics
from tests.apps import arrays_of, steady

SIZES = np.array([10.0, 30.0, 20.0, 40.0])
NORM = 2.0
ENTRIES = 5
#: In each case the most weight of a coded update, times its part of the examples, is known beforehand with this cap.
CAP = 1.5

Vector = NDArray[np.float64]
Means = dict[int, Vector]


class Case:
    """A code with its arrivals: the clients' chances, and what each may send."""

    def __init__(self, decoder: Decoder, *, lists: str | None = None) -> None:
        self.code: Code
        self.arrivals: ArrivalModel
        gram = GramModel.uniform(4, 0.5)
        if lists is None:
            self.code = FractionalRepetition([0, 0, 1, 1], [0, 0, 1, 1])
            self.arrivals = IndependentArrivals(np.array([0.5, 0.3, 0.6, 0.2]))
            self.sent = [[[], [client]] for client in range(4)]
        else:
            orders = ([0, 1, 2], [2, 1, 0], [3])
            self.code = WorkLists([[o] if lists == "whole" else [[s] for s in o] for o in orders], 4)
            chances = [[0.2, 0.3, 0.1, 0.4], [0.3, 0.2, 0.2, 0.3], [0.4, 0.6]]
            self.arrivals = ProgressArrivals(self.code, chances)
            self.sent = [
                [self.code.rows_after(client, done).tolist() for done in range(len(order) + 1)]
                for client, order in enumerate(orders)
            ]
        calibrated = decoder.calibrate(self.code, self.arrivals, gram)
        nodes = tuple(range(self.code.n_clients))
        self.plan = RoundPlan(
            nodes, self.code, np.zeros(len(nodes)), self.arrivals, gram, calibrated, None, None, nodes
        )
        self.holds = calibrated.code.encoding_matrix != 0.0

    def sets(self) -> Iterator[list[list[int]]]:
        """Yield what each client sends, for every set of arrivals with something in it."""
        yield from (list(rows) for rows in itertools.product(*self.sent) if any(rows))

    def fold(self, rows: list[list[int]], means: Means) -> RoundFold:
        """Return what has come, if the clipped means of the rows are these."""
        fold = RoundFold(RoundState(SIZES), self.plan, {"w": np.zeros(ENTRIES)})
        for client, sent in enumerate(rows):
            if sent:
                shards = np.flatnonzero(self.holds[sent].any(axis=0))
                sums = {row: {"w": means[row] * SIZES[self.holds[row]].sum()} for row in sent}
                fold.add(client, CodedUpdate(sums, shards, SIZES[shards]))
        return fold

    def aggregate(self, rows: list[list[int]], means: Means) -> Vector:
        return np.asarray(self.fold(rows, means).decoded()["w"]) / SIZES.sum()

    def means(self, updates: Vector) -> Means:
        """Return the mean update of every row over its examples, clipped."""
        matrix = self.plan.decoder.code.encoding_matrix
        return {
            row: clipped((matrix[row] * SIZES) @ updates / SIZES[self.holds[row]].sum()) for row in range(len(matrix))
        }


def clipped(vector: Vector) -> Vector:
    return vector * min(1.0, NORM / max(float(np.linalg.norm(vector)), 1e-300))


CASES: dict[str, Callable[[], Case]] = {
    "blocks, optimal": lambda: Case(OptimalUnbiasedDecoder()),
    "blocks, fixed": lambda: Case(FixedDecoder()),
    "blocks, fixed, capped": lambda: Case(CappedDecoder(FixedDecoder(), CAP)),
    "blocks, first arrival": lambda: Case(FirstArrivalDecoder()),
    "blocks, least squares": lambda: Case(LeastSquaresDecoder()),
    "shards, optimal": lambda: Case(OptimalUnbiasedDecoder(), lists="shard"),
    "shards, fixed, capped": lambda: Case(CappedDecoder(FixedDecoder(), CAP), lists="shard"),
    "whole lists, optimal": lambda: Case(OptimalUnbiasedDecoder(), lists="whole"),
    "whole lists, least squares": lambda: Case(LeastSquaresDecoder(), lists="whole"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_unit_moves_the_aggregate_by_more_than_its_part(case: Callable[[], Case]) -> None:
    """Over all arrivals: each client, and each shard with all its copies, by zero and by whatever else; and no less."""
    made, rng = case(), np.random.default_rng(3)
    same = {row: NORM * np.eye(ENTRIES)[0] for row in range(made.code.n_rows)}
    nothing = np.zeros(ENTRIES)
    for rows in made.sets():
        fold = made.fold(rows, same)
        total = fold.decoded()
        assert total is not None
        part = largest_part(fold, SIZES, ["w"])
        assert part is not None
        came = [row for sent in rows for row in sent]
        of_shards = [[row for row in came if made.holds[row, shard]] for shard in range(4)]
        moved = []
        for unit in (*rows, *of_shards):
            # Rows of one unit may have weights of both signs: the worst is where each points where it adds up.
            signs = {row: same[row] * np.where(fold.weights[row] < 0.0, -1.0, 1.0) for row in same}
            without = signs | dict.fromkeys(unit, nothing)
            moved.append(np.linalg.norm(made.aggregate(rows, signs) - made.aggregate(rows, without)))
            others = {row: clipped(rng.normal(size=ENTRIES) * 9.0) for row in unit}
            apart = made.aggregate(rows, signs) - made.aggregate(rows, signs | others)
            assert np.linalg.norm(apart) <= 2.0 * part * NORM * (1.0 + 1e-9)
        assert max(moved) == pytest.approx(part * NORM, rel=1e-9)
        # A shard's data alone, among others in the sums that it is in.
        updates = rng.normal(size=(4, ENTRIES)) * 3.0
        for shard in range(4):
            changed = updates.copy()
            changed[shard] = -5.0 * updates[shard]
            apart = made.aggregate(rows, made.means(updates)) - made.aggregate(rows, made.means(changed))
            assert np.linalg.norm(apart) <= 2.0 * part * NORM * (1.0 + 1e-9)


@pytest.mark.parametrize("lists", [None, "shard"])
def test_a_cap_on_settled_weights_bounds_the_part_before_the_round(lists: str | None) -> None:
    """W s for a client, h W s for a shard of h holders; of work lists s is that of all of a client's shards."""
    made = Case(CappedDecoder(FixedDecoder(), CAP), lists=lists)
    share = max(float(SIZES[made.code.shards_of(client)].sum()) for client in range(made.code.n_clients)) / SIZES.sum()
    parts = []
    for rows in made.sets():
        fold = made.fold(rows, {row: np.ones(ENTRIES) for row in range(made.code.n_rows)})
        fold.decoded()
        parts.append(largest_part(fold, SIZES, ["w"]))
        assert fold.weights.max() <= CAP
    assert max(filter(None, parts)) <= 2 * CAP * share


def test_running_statistics_are_moved_by_no_more_either() -> None:
    """They are divided by the sum of the weights, where that is less than one."""
    made = Case(FirstArrivalDecoder())
    same = {row: NORM * np.eye(ENTRIES)[0] for row in range(4)}
    for rows in made.sets():
        fold = made.fold(rows, same)
        fold.decoded()
        part = largest_part(fold, SIZES, ["bn.running_mean"])
        total = float(made.code.coverage(fold.weights) @ SIZES) / SIZES.sum()
        moved = []
        for unit in rows:
            without = same | dict.fromkeys(unit, np.zeros(ENTRIES))
            apart = made.aggregate(rows, same) - made.aggregate(rows, without)
            moved.append(np.linalg.norm(average_statistics({"bn.running_mean": apart}, total)["bn.running_mean"]))
        assert part == pytest.approx(max(moved) / NORM, rel=1e-9)


def test_with_a_memory_no_part_is_told() -> None:
    made = Case(OptimalUnbiasedDecoder())
    fold = made.fold([[0], [], [], []], {0: np.ones(ENTRIES)})
    fold.memory = UpdateMemory.empty(4)
    assert largest_part(fold, SIZES, ["w"]) is None


def private(inner: Strategy) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(inner, 0.0, NORM, 6)


def train(
    value: float = 1e3, *, around: Callable[[Strategy], Strategy] | None = private, rounds: int = 1, **options: Any
) -> tuple[NDArray[Any], GradientCoding]:
    """Train with shard 0 moving the model by so much, and the others hardly, under a strategy that clips."""
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    known: dict[str, Any] = {"num_shards": 6, "shard_examples": [10] * 6, "deadline": 1e4, "early_end": False}
    strategy = GradientCoding(inner, **{**known, **options})
    app, server = ClientApp(), ServerApp()
    results: list[Result] = []

    @app.train()
    @gradient_coded()
    def update(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(10, delta={"w": np.array([value if shard_id == 0 else 1e-9, 0.0])})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"w": Array(np.zeros(2))})
        if around is None:
            results.append(strategy.start(grid, start, num_rounds=rounds))
            return
        with strategy.deadline_grid(grid) as timed:
            results.append(around(strategy).start(timed, start, num_rounds=rounds))

    run_virtual(server, app, steady(6))
    return arrays_of(results[0].arrays)["w"], strategy


@pytest.mark.parametrize(
    "options",
    [{}, {"load": 3}, {"decoder": "fixed"}, {"schedule": "work-list"}, {"schedule": "work-list", "sums": "whole"}],
    ids=str,
)
def test_under_flowers_clipping_a_shard_moves_the_model_by_its_part(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of blocks of equal size that all come, each is the largest part."""
    moved, strategy = train(**options)
    still, _ = train(1e-9, **options)  # Flower divides by the length of each sum
    part = strategy.history[0].largest_part
    assert part is not None and part > 1.5 / 6.0
    assert strategy.history[0].metrics["fedgc-largest-part"] == part
    assert abs(moved[0] - still[0]) <= part * NORM * (1.0 + 1e-6)
    if options.get("schedule") != "work-list":
        assert moved[0] - still[0] == pytest.approx(part * NORM, rel=1e-6)
    assert f"is {part * 6:.3g} times too small for it" in caplog.text


def too_small(caplog: pytest.LogCaptureFixture) -> int:
    return sum("noise that a strategy around this one may add" in record.getMessage() for record in caplog.records)


def test_that_the_noise_is_too_small_is_said_once_and_only_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    train(rounds=3)
    assert too_small(caplog) == 1
    train(rounds=2, memory=True)
    assert too_small(caplog) == 2
    assert "what clients sent in past rounds counts again" in caplog.text
    train(around=None, rounds=2)
    sure = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
    _, plain = train(rounds=1, load=1, reliability=sure)
    assert plain.history[0].largest_part == pytest.approx(1.0 / 6.0, rel=1e-12)
    assert too_small(caplog) == 2


class Between(FedAvg):
    """A strategy around another, as Flower's are."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        self.strategy = strategy


PRIVATE: Iterable[Callable[[Strategy], Strategy]] = [
    partial(DifferentialPrivacyServerSideFixedClipping, noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=6),
    partial(DifferentialPrivacyClientSideFixedClipping, noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=6),
    partial(DifferentialPrivacyServerSideAdaptiveClipping, noise_multiplier=0.1, num_sampled_clients=6),
    partial(DifferentialPrivacyClientSideAdaptiveClipping, noise_multiplier=0.1, num_sampled_clients=6),
]


@pytest.mark.parametrize("inside", PRIVATE, ids=lambda make: make.func.__name__)
def test_strategies_for_privacy_are_refused_inside(inside: Callable[[Strategy], Strategy]) -> None:
    for inner in (inside(FedAvg()), Between(inside(FedAvg())), inside(Between(FedAvg()))):
        with pytest.raises(ValueError, match=r"put Differential\w+ around GradientCoding, see .*deadline_grid; got it"):
            GradientCoding(inner, num_shards=6, deadline=1.0)
    inside(GradientCoding(Between(FedAvg()), num_shards=6, deadline=1.0))
