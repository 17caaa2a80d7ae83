"""Strategies around ours, Flower's for differential privacy above all: what they drive is decoded just the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import beside_assignment, gradient_coded
from fedgc.strategies import GradientCoding, RoundReport, RoundReporter
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
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

from fedgc.fleets import Fleet, LogNormalFleet, WorkDraw
from fedgc.reliability import ReliabilityPosterior
from fedgc.simulation import VirtualRun, run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, initial_arrays, shard_delta, steady, train_shard

Wrapper = Callable[[Strategy, float], Strategy]

#: Each with its mod for the client's side; no noise.
AROUND: dict[str, tuple[Wrapper, list[Any]]] = {
    "server, fixed": (lambda inner, norm: DifferentialPrivacyServerSideFixedClipping(inner, 0.0, norm, 6), []),
    "server, adaptive": (
        lambda inner, norm: DifferentialPrivacyServerSideAdaptiveClipping(
            inner, 0.0, 6, norm, clip_norm_lr=1e-12, clipped_count_stddev=0.0
        ),
        [],
    ),
    "client, fixed": (
        lambda inner, norm: DifferentialPrivacyClientSideFixedClipping(inner, 0.0, norm, 6),
        [beside_assignment(fixedclipping_mod)],
    ),
    "client, adaptive": (
        lambda inner, norm: DifferentialPrivacyClientSideAdaptiveClipping(
            inner, 0.0, 6, norm, clip_norm_lr=1e-12, clipped_count_stddev=0.0
        ),
        [beside_assignment(adaptiveclipping_mod)],
    ),
}
#: One client does next to nothing in time, one is slow; nobody is away.
STRAGGLERS = {"median": [1.0, 1.0, 2.0, 1.0, 1.3, 500.0]}


class Plain(Strategy):
    """A strategy that leaves everything to the one inside."""

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    def configure_train(self, *args: Any) -> Iterable[Message]:
        return self.inner.configure_train(*args)

    def aggregate_train(self, *args: Any) -> Any:
        return self.inner.aggregate_train(*args)

    def configure_evaluate(self, *args: Any) -> Iterable[Message]:
        return self.inner.configure_evaluate(*args)

    def aggregate_evaluate(self, *args: Any) -> Any:
        return self.inner.aggregate_evaluate(*args)

    def summary(self) -> None:
        self.inner.summary()


def coding(**options: Any) -> GradientCoding:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    known = {"num_shards": N_SHARDS, "shard_examples": EXAMPLES, "deadline": 3.5, "early_end": False}
    return GradientCoding(inner, **{**known, **options})


def failing(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Client 4 fails in the second round."""
    if context.node_config["partition-id"] == 4 and message.content["config"]["server-round"] == 2:
        raise RuntimeError("battery empty")
    return call_next(message, context)


def train(
    strategy: GradientCoding,
    around: Strategy | None = None,
    *,
    mods: Iterable[Any] = (),
    fleet: Fleet | None = None,
    rounds: int = 3,
) -> tuple[dict[str, NDArray[Any]], VirtualRun]:
    """Train with the strategy by itself, or with one around it on its grid."""
    app, server = ClientApp(), ServerApp()
    app.train(mods=list(mods))(gradient_coded()(train_shard))
    results: list[Result] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        if around is None:
            results.append(strategy.start(grid, initial_arrays(), num_rounds=rounds))
        else:
            with strategy.deadline_grid(grid) as timed:
                results.append(around.start(timed, initial_arrays(), num_rounds=rounds))

    run = run_virtual(server, app, fleet if fleet is not None else steady(**STRAGGLERS))
    return arrays_of(results[0].arrays), run


OPTIONS: dict[str, dict[str, Any]] = {
    "blocks": {},
    "whole lists": {"schedule": "work-list", "sums": "whole"},
    "with memory": {"schedule": "work-list", "sums": "whole", "memory": True},
    "shards": {"schedule": "work-list", "sums": "shard"},
}


@cache
def alone_with(options: str) -> tuple[dict[str, NDArray[Any]], list[RoundReport], float]:
    """Model, reports and seconds of the strategy by itself."""
    strategy = coding(**OPTIONS[options])
    arrays, run = train(strategy, mods=[failing])
    return arrays, strategy.history, run.seconds


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, options) for name in (*AROUND, "plain") for options in ("blocks", "whole lists")),
        ("client, fixed", "with memory"),
        # Flower's mods on the client's side take one sum per reply.
        ("server, fixed", "shards"),
        ("server, adaptive", "shards"),
    ],
)
def test_without_noise_or_clipping_nothing_changes(name: str, options: str) -> None:
    """With stragglers, partial work and a failure, and a round after it for which reliability and times are learnt."""
    make, mods = AROUND.get(name, (lambda inner, norm: Plain(inner), []))
    inside = coding(**OPTIONS[options])
    arrays, run = train(inside, make(inside, 1e6), mods=[failing, *mods])
    expected, history, seconds = alone_with(options)
    assert [report.n_arrived for report in inside.history] == [report.n_arrived for report in history]
    assert [report.rejected for report in inside.history] == [report.rejected for report in history]
    assert set(inside.history[1].rejected) == {104}
    assert max(report.n_arrived for report in inside.history) < 6
    assert run.seconds == seconds
    for report, other in zip(inside.history, history, strict=True):
        np.testing.assert_allclose(report.straggle_prob, other.straggle_prob, rtol=1e-9)
        assert report.seconds == other.seconds
    for key, value in expected.items():
        np.testing.assert_allclose(arrays[key], value, atol=1e-6)


@pytest.mark.parametrize("name", AROUND)
def test_updates_are_clipped_to_the_norm(name: str) -> None:
    """Each client's mean update over its shards, clipped, and the decoded mean of these when all come."""
    make, mods = AROUND[name]
    norm = 2.0
    certain = ReliabilityPosterior(prior_arrivals=1e15, prior_misses=1e-6)
    strategy = coding(load=1, deadline=50.0, reliability=certain)
    arrays, _ = train(strategy, make(strategy, norm), mods=mods, fleet=steady(), rounds=1)
    start = arrays_of(initial_arrays())
    expected = {name: np.zeros(value.shape) for name, value in start.items()}
    clipped = 0
    for shard_id, size in enumerate(EXAMPLES):
        update = shard_delta(shard_id, start)
        length = float(np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in update.values())))
        clipped += length > norm
        for key, value in update.items():
            expected[key] += size / sum(EXAMPLES) * min(1.0, norm / length) * value
    assert 0 < clipped < N_SHARDS
    for key, value in expected.items():
        np.testing.assert_allclose(arrays[key], start[key] + value, atol=1e-6)


@pytest.mark.parametrize("options", ["blocks", "whole lists"])
def test_local_privacy_on_the_clients_side_needs_no_strategy_around(options: str) -> None:
    """Neither noise nor clipping; replies are folded as they come."""
    local = LocalDpMod(clipping_norm=1e6, sensitivity=0.0, epsilon=1.0, delta=1e-5)
    strategy = coding(**OPTIONS[options])
    arrays, _ = train(strategy, mods=[failing, beside_assignment(local)])
    expected, history, _ = alone_with(options)
    assert [report.rejected for report in strategy.history] == [report.rejected for report in history]
    for key, value in expected.items():
        np.testing.assert_allclose(arrays[key], value, atol=1e-6)


class Sometimes(LogNormalFleet):
    """Nobody has a shard done in the first round, and nobody answers in the second; the third is as ever."""

    def draw(self, client: int, server_round: int, **_: Any) -> WorkDraw:
        return [WorkDraw(3.0, 9.0, np.inf), WorkDraw(0.0, 0.0, 0.0), WorkDraw(0.0, 0.5, np.inf)][server_round - 1]


@cache
def alone_sometimes() -> tuple[dict[str, NDArray[Any]], list[RoundReport], float]:
    """Model, reports and seconds of the strategy by itself."""
    strategy = coding(**OPTIONS["whole lists"])
    arrays, run = train(strategy, fleet=Sometimes(6, seed=1))
    return arrays, strategy.history, run.seconds


@pytest.mark.parametrize("name", AROUND)
def test_rounds_without_work_are_passed_over_and_learnt_from(name: str) -> None:
    make, mods = AROUND[name]
    inside = coding(**OPTIONS["whole lists"])
    arrays, run = train(inside, make(inside, 1e6), mods=mods, fleet=Sometimes(6, seed=1))
    expected, history, seconds = alone_sometimes()
    assert [report.n_arrived for report in inside.history] == [report.n_arrived for report in history] == [0, 0, 6]
    assert run.seconds == seconds
    np.testing.assert_allclose(inside.history[2].straggle_prob, history[2].straggle_prob, rtol=1e-9)
    for key, value in expected.items():
        np.testing.assert_allclose(arrays[key], value, atol=1e-6)


def test_on_another_grid_the_outer_strategys_timeout_holds() -> None:
    """Flower's own start on the runtime's grid: what has come is decoded, though nobody's times are learnt."""
    # By itself the strategy learns times, and would size the blocks by them.
    strategy, alone = (coding(load=1, reassignment_gain=1.0) for _ in range(2))
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded()(train_shard))
    results: list[Result] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        results.append(Plain(strategy).start(grid, initial_arrays(), num_rounds=3, timeout=3.5))

    run = run_virtual(server, app, steady(**STRAGGLERS))
    expected, plain_run = train(alone, rounds=3)
    assert [report.n_arrived for report in strategy.history] == [report.n_arrived for report in alone.history]
    assert run.seconds == plain_run.seconds
    assert {report.seconds for report in strategy.history} == {None}
    for key, value in expected.items():
        np.testing.assert_allclose(arrays_of(results[0].arrays)[key], value, atol=1e-6)


def test_flowers_mods_refuse_an_assignment_that_is_not_hidden() -> None:
    """Should this fail, beside_assignment has become superfluous."""
    make, _ = AROUND["client, fixed"]
    strategy = coding()
    _, run = train(strategy, make(strategy, 1.0), mods=[fixedclipping_mod], rounds=1)
    assert {event.detail for event in run.trace if event.kind == "failed"} == {
        "fixedclipping_mod expects exactly one ConfigRecord, but found 2 ConfigRecord(s)."
    }


def test_the_train_function_gets_what_is_hidden_from_a_mod() -> None:
    seen: list[list[str]] = []

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        seen.append(sorted(message.content.config_records))
        return call_next(message, context)

    strategy = coding()
    train(strategy, mods=[beside_assignment(mod)], rounds=1, fleet=steady())
    assert seen == [["config"]] * 6
    assert strategy.history[0].n_arrived == 6


def told_at_the_end(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == "flwr.fedgc"]
    starts = [k for k, line in enumerate(lines) if line.startswith("Gradient coding, ")]
    assert len(starts) == 1, lines
    return [line.lstrip("\t├└─ ") for line in lines[starts[0] :]]


@pytest.mark.parametrize("name", AROUND)
def test_a_run_that_a_strategy_around_drives_is_summed_up(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """With its last round, of which the strategy around makes nothing since nobody has anything done."""
    make, mods = AROUND[name]

    class Ending(LogNormalFleet):
        def draw(self, client: int, server_round: int, **_: Any) -> WorkDraw:
            return WorkDraw(0.0, 0.5, np.inf) if server_round < 3 else WorkDraw(3.0, 9.0, np.inf)

    strategy = coding()
    with caplog.at_level("INFO", logger="flwr"):
        train(strategy, make(strategy, 1e6), mods=mods, fleet=Ending(6, seed=1), rounds=3)
    assert [report.n_arrived for report in strategy.history] == [6, 6, 0]
    summary = told_at_the_end(caplog)
    assert summary[0] == "Gradient coding, 3 rounds, means over rounds:"
    early = sum(report.seconds < report.deadline for report in strategy.history)
    assert early < 3
    assert any(line.startswith(f"Ends of rounds: {early} of 3 early, the others 0 s after") for line in summary)
    assert "Rounds without any arrival: 1" in summary and "Late replies: 0, heard in 0 of 3 rounds" in summary


def test_a_run_around_that_fails_is_summed_up_and_reporters_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    class Closing(RoundReporter):
        closed = 0

        def write(self, report: RoundReport) -> None:
            pass

        def close(self) -> None:
            self.closed += 1

    class Failing(Plain):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            if server_round == 3:
                raise RuntimeError("out of memory")
            return super().aggregate_train(server_round, replies)

    reporter = Closing()
    strategy = coding(reporters=[reporter])
    with caplog.at_level("INFO", logger="flwr"), pytest.raises(RuntimeError, match="out of memory"):
        train(strategy, Failing(strategy), rounds=5)
    # Nothing is made up of the round whose replies nobody has looked into.
    assert told_at_the_end(caplog)[0] == "Gradient coding, 2 rounds, means over rounds:"
    assert len(strategy.history) == 2
    assert reporter.closed == 1


def test_without_a_block_a_run_ends_when_the_next_begins(caplog: pytest.LogCaptureFixture) -> None:
    strategy, server = coding(), ServerApp()
    app = ClientApp()
    app.train()(gradient_coded()(train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        Plain(strategy).start(strategy.deadline_grid(grid), initial_arrays(), num_rounds=2)
        assert "Gradient coding, " not in caplog.text
        strategy.start(grid, initial_arrays(), num_rounds=1)

    with caplog.at_level("INFO", logger="flwr"):
        run_virtual(server, app, steady(**STRAGGLERS))
    assert caplog.text.count("Gradient coding, 2 rounds, means over rounds:") == 1
    assert caplog.text.count("Gradient coding, 1 round:") == 1


@pytest.mark.parametrize("around", [True, False])
def test_that_nothing_is_checkpointed_is_said(around: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under a strategy around, and under Flower's own loop, where this strategy's start is not called."""
    strategy, server = coding(checkpoints=tmp_path), ServerApp()
    app = ClientApp()
    app.train()(gradient_coded()(train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        if around:
            with strategy.deadline_grid(grid) as timed:
                Plain(strategy).start(timed, initial_arrays(), num_rounds=2)
        else:
            Strategy.start(strategy, grid, initial_arrays(), num_rounds=2)

    run_virtual(server, app, steady())
    assert not list(tmp_path.iterdir())
    line = "no checkpoints are written: only the start() of GradientCoding itself writes them"
    assert caplog.text.count(line) == 1
    caplog.clear()

    def again(grid: Grid, context: Context) -> None:
        strategy.start(grid, initial_arrays(), num_rounds=1)

    writing = ServerApp()
    writing.main()(again)
    run_virtual(writing, app, steady())
    assert list(tmp_path.iterdir())
    assert line not in caplog.text
