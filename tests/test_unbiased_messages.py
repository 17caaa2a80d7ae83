"""Unbiased through Flower: every state of a small fleet is played with real messages, and the mean is the aggregate."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.codes import WorkLists, redraw_places
from fedgc.coherence import KnownCoherence
from fedgc.fleets import LogNormalFleet, WorkDraw
from fedgc.memory import UpdateMemory
from fedgc.round import RoundPlan, RoundState
from fedgc.simulation import run_virtual

Arrays = dict[str, NDArray[np.float64]]
Fate = int | None

DEADLINE = 10.0
SIZES = [3, 1, 4, 1, 5]
RNG = np.random.default_rng(11)
START: Arrays = {"w": RNG.standard_normal(3), "b": RNG.standard_normal((2, 2))}
UPDATES, REMEMBERED = (
    [{name: RNG.standard_normal(value.shape) for name, value in START.items()} for _ in SIZES] for _ in range(2)
)
#: Shards, holders, and for each client the sixteenths of its rounds in which 0, 1, 2, ... shards of its list are done.
FLEETS: dict[str, tuple[int, int, list[list[int]]]] = {
    "3 holders of one block": (3, 3, [[1, 5, 3, 7], [6, 2, 5, 3], [3, 8, 3, 2]]),
    "2 blocks of 2": (4, 2, [[5, 3, 8], [3, 5, 8], [8, 2, 6], [2, 9, 5]]),
    "1 block of 2": (3, 2, [[1, 4, 5, 6], [3, 8, 3, 2]]),
}


@dataclass(frozen=True)
class Chances:
    """What the server knows of the clients: their true probabilities."""

    progress: NDArray[np.float64]
    loss_detection: float = np.inf
    presence: None = None

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        return np.array([[sum(own[k:]) for k in range(max_shards + 1)] for own in self.progress])

    def partial_reach(self, deadline: float, lengths: Any) -> NDArray[np.float64]:
        return self.reach(deadline, int(np.max(lengths)))

    def straggle_prob(self, deadline: float, load: Any) -> NDArray[np.float64]:
        loads = np.broadcast_to(load, len(self.progress))
        return 1.0 - np.array([sum(own[int(k) :]) for own, k in zip(self.progress, loads, strict=True)])


class Scripted(LogNormalFleet):
    """Clients that get so many shards done, or are silent."""

    fates: Sequence[Fate]

    def draw(self, client: int, server_round: int, **_: Any) -> WorkDraw:
        fate = self.fates[client]
        return WorkDraw(0.0, 0.0, 0.0) if fate is None else WorkDraw(0.0, DEADLINE / (fate + 0.5), np.inf)


def states(plan: RoundPlan, progress: NDArray[np.float64]) -> Iterator[tuple[list[Fate], float]]:
    """Yield every combination of progress with its probability; who has done nothing is silent or says so."""
    lengths = [plan.code.shards_of(client).size for client in range(plan.code.n_clients)]
    partial = isinstance(plan.code, WorkLists)
    chances = []
    for own, length in zip(progress, lengths, strict=True):
        capped = [*own[:length], sum(own[length:])]
        chances.append(capped if partial else [1.0 - capped[-1], *[0.0] * (length - 1), capped[-1]])
    for number, done in enumerate(itertools.product(*(range(length + 1) for length in lengths))):
        probability = float(np.prod([own[k] for own, k in zip(chances, done, strict=True)]))
        if probability > 0.0:
            silent = [k == 0 and (not partial or (number + client) % 2 == 0) for client, k in enumerate(done)]
            yield [None if away else k for away, k in zip(silent, done, strict=True)], probability


def rounds_of_places(plan: RoundPlan, n_shards: int) -> list[int]:
    """Return numbers of rounds whose places are all permutations of a block, each once; the first if none change."""
    decoder = plan.base or plan.decoder
    seen: dict[bytes, int] = {}
    for rounds in range(6, 200):
        if rounds % 5 < 4:  # in every fifth a strategy fits completion times, which takes long and changes nothing here
            seen.setdefault(redraw_places(decoder.code, seed=0, server_round=rounds + 1).tobytes(), rounds)
    if decoder.code.interchangeable is not None:
        assert len(seen) == np.prod(np.arange(1, n_shards + 1))
    return list(seen.values())


def mean_update(fleet_name: str, memory: bool, options: dict[str, Any]) -> tuple[Arrays, float, int]:
    """Play all states; return the mean change of the model, the probability that nothing comes, and the states."""
    n_shards, holders, sixteenths = FLEETS[fleet_name]
    progress = np.array(sixteenths) / 16.0
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=n_shards,
        load=holders,
        deadline=2.0 * DEADLINE,
        first_deadline=DEADLINE,  # another than usual, so that nothing is learnt from it, which takes long
        early_end=False,
        shard_examples=SIZES[:n_shards],
        timing=Chances(progress),
        coherence=KnownCoherence(energy=1.0, overlap=0.3),
        memory=memory,
        # With a memory the default is biased.
        **{"decoder": "optimal-unbiased", **options},
    )
    app, server = ClientApp(), ServerApp()

    @app.train()
    @gradient_coded()
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(SIZES[shard_id], delta=UPDATES[shard_id])

    fleet = Scripted(len(progress), seed=1)
    mean: Arrays = {name: np.zeros(value.shape) for name, value in START.items()}
    empty, count = 0.0, 0

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        nonlocal empty, count
        initial = ArrayRecord({name: Array(value) for name, value in START.items()})
        fleet.fates = [9] * len(progress)
        strategy.start(grid, initial, num_rounds=1)
        plan = strategy.state.plan
        assert plan is not None
        remembered = UpdateMemory(np.arange(n_shards), dict(enumerate(REMEMBERED[1:n_shards], start=1)))
        numbers = rounds_of_places(plan, n_shards)
        for rounds in numbers:
            before: RoundState = replace(strategy.state, rounds=rounds, memory=remembered if memory else None)
            for fates, probability in states(plan, progress):
                strategy.state, fleet.fates = before, fates
                result = strategy.start(grid, initial, num_rounds=1)
                assert strategy.history[-1].n_arrived == sum(bool(fate) for fate in fates)
                count += 1
                if not result.arrays:
                    empty += probability / len(numbers)
                    continue
                for name, array in result.arrays.items():
                    mean[name] += probability / len(numbers) * (array.numpy() - START[name])

    run_virtual(server, app, fleet)
    return mean, empty, count


LISTS = [{"schedule": "work-list", "sums": sums} for sums in ("shard", "share", "whole")]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Flower writes a page for each of hundreds of runs."""
    for name in ("flwr", "flwr.fedgc"):
        caplog.set_level(logging.CRITICAL, logger=name)


@pytest.mark.parametrize("memory", [False, True], ids=["no memory", "memory"])
@pytest.mark.parametrize("options", [{}, {"decoder": "fixed"}, *({**one, "redraw": False} for one in LISTS)], ids=str)
def test_the_mean_over_all_states_is_the_full_aggregate(options: dict[str, Any], memory: bool) -> None:
    check("3 holders of one block", options, memory, least=64 if "schedule" in options else 8)


@pytest.mark.parametrize("options", [{}, *({**one, "redraw": False} for one in LISTS)], ids=str)
def test_so_it_is_where_blocks_stand_in_for_each_other(options: dict[str, Any]) -> None:
    check("2 blocks of 2", options, memory=True, least=81 if "schedule" in options else 16)


@pytest.mark.parametrize(("sums", "memory"), [("shard", False), ("share", False), ("whole", False), ("share", True)])
def test_so_it_is_over_all_states_and_places(sums: str, memory: bool) -> None:
    """Shards of different sizes change places, all six orders of them."""
    check("1 block of 2", {"schedule": "work-list", "sums": sums, "redraw": True}, memory, least=6 * 16)


def test_a_biased_rule_is_seen() -> None:
    mean, _, _ = mean_update("2 blocks of 2", memory=False, options={"decoder": "least-squares"})
    expected = sum(size * update["w"] for size, update in zip(SIZES[:4], UPDATES[:4], strict=True)) / sum(SIZES[:4])
    assert np.abs(mean["w"] - expected).max() > 0.01


def check(fleet: str, options: dict[str, Any], memory: bool, *, least: int) -> None:
    mean, empty, count = mean_update(fleet, memory, options)
    assert count == least
    n_shards = FLEETS[fleet][0]
    for name in START:
        expected = sum(SIZES[j] * UPDATES[j][name] for j in range(n_shards)) / sum(SIZES[:n_shards])
        # A round in which nothing comes leaves the model as it is: what memory alone would have added is missing then.
        held = sum(one[name] for one in REMEMBERED[1:n_shards]) / sum(SIZES[:n_shards])
        missing = empty * held if memory else 0.0
        np.testing.assert_allclose(mean[name] + missing, expected, atol=1e-10)
