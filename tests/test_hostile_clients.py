"""A hostile client among eight honest ones: it costs its own contribution, and its node is named."""

from __future__ import annotations

import json
import logging
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import CsvResults, PushedShards
from fedgc.strategies.rounds.open_round import OpenRound
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedgc.fleets import Fleet
from fedgc.simulation import run_virtual
from tests.apps import N_SHARDS, arrays_of, initial_arrays, shard_app, steady, train
from tests.flower_runtime import needs_proc
from tests.hostile_fleet import (
    APP,
    ATTACKS,
    HOSTILE,
    N_CLIENTS,
    NODE,
    ONE,
    PATH,
    client_app,
    coding,
    loopback_fleet,
    server_app,
)
from tests.superlink_at_hand import SuperLinkAtHand

Spoil = Callable[[Message, int], Message | None]


def attacking(attack: str) -> Spoil:
    """What the hostile client makes of its replies."""

    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == HOSTILE:
            ATTACKS[attack](reply, np.random.default_rng(int(reply.metadata.group_id)))
        return None

    return spoil


def silent(*clients: int) -> Fleet:
    """A fleet of which some never answer."""
    return steady(N_CLIENTS, dropout=[float(client in clients) for client in range(N_CLIENTS)])


#: What is said of each attack that a reply alone gives away.
SAID = {
    "random bytes": "array 'weight' cannot be read",
    "giant array": r"record 'arrays' must have at most \d+ bytes, as the model; got 6710",
    "giant header": r"array 'weight' cannot be read: an array of shape \(137438953472,\)",
    "no bytes each": r"array 'weight' cannot be read: an array of shape \(1000000000,\)",
    "many parts": "array 'weight' cannot be read",
    "many records": r"a reply must hold at most \d+ records; got 200\d",
    "many arrays": "record 'arrays' must hold 2 arrays, as the model; got 2002",
    "NaN": "array 'weight' must be finite",
    "absurd": r"array 'weight' must have entries of at most 1e\+12 times",
    "huge metrics": "record 'metrics' must hold at most 1000 names; got 2003",
    "huge config": r"record 'fedgc' must have at most \d+ entries; got more",
    "paths": "a reply must hold one ArrayRecord, one MetricRecord",
    "others' shards": r"shard-ids must be .*; got",
    "more progress": r"shard-ids must be .*; got",
    "more examples": r"shard-examples must be .* as the server knows; got",
    "long reason": r"error 2: RuntimeError: battery empty\\nround 1: node 7 is left out",
}


@pytest.mark.parametrize(("attack", "said"), SAID.items(), ids=SAID)
@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_it_is_as_good_as_silent_and_named(
    schedule: str, attack: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Client 0 never answers, so that every round lasts until its deadline whatever the others do."""
    # Blocks and probabilities would go by when each was found to be of no use, too.
    strategy, other = (coding(schedule=schedule, reassignment_gain=1.0) for _ in range(2))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, silent(0), rounds=3, app=shard_app(attacking(attack)))
    log = caplog.text
    expected, _ = train(other, silent(0, HOSTILE), rounds=3)
    # Whoever is silent may still answer in the next round, so that its silence is evidence a round later than a reply
    # that was left out: what is believed of all the others differs a little, and with it how they are weighed.
    for name, value in arrays_of(expected.arrays).items():
        np.testing.assert_allclose(arrays_of(result.arrays)[name], value, rtol=1e-6)
    for server_round, report in enumerate(strategy.history, 1):
        assert report.n_arrived == N_CLIENTS - 2
        assert set(report.rejected) == {NODE}
        assert re.search(said, report.rejected[NODE]), report.rejected[NODE]
        assert len(report.rejected[NODE]) <= 520 and report.rejected[NODE].isprintable()
        assert f"round {server_round}: node {NODE} is left out: " in log
    assert len(log) < 20_000


@pytest.mark.parametrize("attack", SAID)
def test_too_much_is_neither_read_nor_told(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the reply, and saying what is wrong with it, takes less than a megabyte; what it holds is let go."""
    take, peaks, left = OpenRound.take, [], []

    def measured(self: OpenRound, reply: Message, seconds: float | None = None) -> bool:
        tracemalloc.start()
        worked_off = take(self, reply, seconds)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        left.append(reply)
        return worked_off

    monkeypatch.setattr(OpenRound, "take", measured)
    strategy = coding()
    train(strategy, steady(N_CLIENTS), app=shard_app(attacking(attack)))
    assert set(strategy.history[0].rejected) == {NODE}
    assert len(peaks) == N_CLIENTS
    assert max(peaks) < 1e6
    contents = [reply.content for reply in left if reply.has_content()]
    assert not any(content.array_records for content in contents)
    assert max(len(str(dict(content))) for content in contents) < 10_000


def test_metrics_are_kept_as_plain_numbers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are not averaged, and within the limits they could still be large."""
    kept: list[MetricRecord] = []
    take = OpenRound.take

    def measured(self: OpenRound, reply: Message, seconds: float | None = None) -> None:
        take(self, reply, seconds)
        kept.extend(self.metrics.values())

    def lists(reply: Message, partition: int) -> Message | None:
        metrics = next(iter(reply.content.metric_records.values()))
        metrics["losses"] = [0.5] * 15_000
        return None

    monkeypatch.setattr(OpenRound, "take", measured)
    result, _ = train(coding(), steady(N_CLIENTS), app=shard_app(lists))
    assert kept and all(set(metrics) == {"loss", "num-examples"} for metrics in kept)
    assert "loss" in result.train_metrics_clientapp[1] and "losses" not in result.train_metrics_clientapp[1]


def test_what_nodes_say_of_themselves_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Before the first round too: one is not heard at all, another's labels are cut."""

    def spoil(reply: Message, partition: int) -> Message | None:
        said = reply.content.config_records.get("fedgc")
        if said is not None and reply.metadata.group_id == "0":
            if partition == HOSTILE:
                said["label-site"] = ["x" * 1000] * 1000
            elif partition == 0:
                said["label-site"] = "here\n" * 2000
        return None

    strategy = coding(start_timeout=10.0)
    with caplog.at_level(logging.WARNING, logger="flwr"):
        train(strategy, steady(N_CLIENTS), app=shard_app(spoil), rounds=2)
    assert set(strategy.nodes) == set(range(100, NODE + 1))
    assert f"node {NODE} is not heard: record 'fedgc' must have at most 20000 entries" in caplog.text
    label = strategy.nodes[100].labels["site"]
    assert label.startswith("here\\nhere") and len(label) == 500
    # Who was not heard is asked again beside the first round, and works from the second one on.
    assert strategy.history[0].node_ids == tuple(range(100, NODE))
    assert strategy.history[-1].n_arrived == N_CLIENTS


@pytest.mark.parametrize(
    "attack", ["random bytes", "many arrays", "NaN", "others' shards", "huge config", "giant array"]
)
def test_a_strategy_around_ours_is_given_nothing_that_it_would_fail_on(attack: str) -> None:
    """Flower's differential privacy reads replies before they are decoded."""
    strategy = coding(reassignment_gain=1.0)
    around = DifferentialPrivacyServerSideFixedClipping(strategy, 0.0, 1e6, N_CLIENTS)
    server, results = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        with strategy.deadline_grid(grid) as timed:
            results.append(around.start(timed, initial_arrays(), num_rounds=3))

    run_virtual(server, shard_app(attacking(attack)), silent(0))
    assert [set(report.rejected) for report in strategy.history] == [{NODE}] * 3
    expected = coding(reassignment_gain=1.0)
    other, _ = train(expected, silent(0, HOSTILE), rounds=3)
    for name, value in arrays_of(other.arrays).items():
        np.testing.assert_allclose(arrays_of(results[0].arrays)[name], value, rtol=1e-5)


@pytest.mark.parametrize("attack", ["NaN", "more progress"])
def test_what_is_decoded_stays_unbiased(attack: str) -> None:
    """Each shard counts once on average over the arrivals of the honest ones, once their reliability is known."""
    strategy = coding()
    dropout = [0.3] * HOSTILE + [0.0]
    train(strategy, steady(N_CLIENTS, dropout=dropout), rounds=250, app=shard_app(attacking(attack)))
    settled = strategy.history[50:]
    assert sum(NODE in report.rejected for report in settled) >= 5
    coverage = np.array([report.coverage for report in settled])
    error = coverage.std(axis=0) / np.sqrt(len(settled))
    assert error.max() < 0.05
    np.testing.assert_array_less(np.abs(coverage.mean(axis=0) - 1.0), 4.0 * error + 0.02)


@pytest.fixture
def opened() -> Any:
    """Paths that this process is asked to open, make, move or remove while the test runs."""
    paths: list[str] = []
    on = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if on[0] and (event in {"open", "import"} or event.startswith(("os.", "shutil.", "tempfile.", "subprocess."))):
            paths.extend(str(arg) for arg in args)

    sys.addaudithook(hook)  # there is no way to remove one
    yield paths
    on[0] = False


def test_a_path_in_a_message_is_never_used_as_one(opened: list[str], tmp_path: Path) -> None:
    """In names and texts of replies, of evaluations, and of what nodes say of themselves."""

    def spoil(reply: Message, partition: int) -> Message | None:
        if partition != HOSTILE:
            return None
        ATTACKS["paths"](reply, np.random.default_rng(0))
        said = reply.content["fedgc"]
        said[f"label-{PATH}"] = PATH
        said["partition-id"] = PATH
        if reply.metadata.group_id == "2":  # what is well formed but for the names
            del reply.content[PATH], said["shard-ids"]
        return None

    store = PushedShards({shard: {"x": np.arange(3)} for shard in range(N_SHARDS)})
    strategy = coding(
        FedAvg(**ONE),
        start_timeout=5.0,
        shards=store,
        checkpoints=tmp_path / "checkpoints",
        reporters=[CsvResults(tmp_path / "results.csv")],
    )
    train(strategy, steady(N_CLIENTS), rounds=3, app=shard_app(spoil))
    assert NODE in strategy.history[0].rejected
    assert any(str(tmp_path) in path for path in opened)  # the hook is at work
    assert not any("hostile-marker" in path for path in opened)


def run_over_superlink(n_clients: int, attacks: list[str], rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Train on digits over Flower's own SuperLink state and handlers; return what the server told of each round."""
    out = folder / f"{n_clients}.json"
    numbers = {"num-clients": n_clients, "num-rounds": rounds, "num-shards": 12, "load": 3, "deadline": 100.0}
    config: Any = {"hostile": HOSTILE, "attacks": ",".join(attacks), "out": str(out), **numbers}
    link = SuperLinkAtHand(client_app.app, n_clients, config)
    with link.grid() as grid:
        server_app.app(grid, Context(link.run_id, 1, {}, RecordDict(), config))
    told = json.loads(out.read_text())
    for entry in told:
        entry["hostile"] = str(link.nodes[-1])
    return told  # type: ignore[no-any-return]


@pytest.mark.alone  # in real time, by which blocks and weights go
def test_the_model_is_as_good_as_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two rounds of forged updates, until it is set aside for these, and then everything else that it can think of."""
    attacks = ["", "forged", "forged", *sorted(SAID), "not to be read"]
    with caplog.at_level(logging.WARNING, logger="flwr"):
        told = run_over_superlink(N_CLIENTS, attacks, len(attacks), tmp_path)
    alone = run_over_superlink(N_CLIENTS - 1, [], len(attacks), tmp_path)
    node = told[0]["hostile"]
    assert {name for entry in told for name in entry.get("rejected", {})} == {node}
    assert f"node {node} has sent another sum than most" in caplog.text
    assert f"node {node} is not asked" in caplog.text
    assert f"node {node} is left out" in caplog.text
    last, best = (np.mean([entry["accuracy"] for entry in run[-5:]]) for run in (told, alone))
    assert best > 0.9
    assert last > best - 0.02


@pytest.mark.alone
@needs_proc
# The fleet's processes are ended, and not waited for by those who started them.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_real_processes_with_a_client_that_would_take_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's SuperLink and SuperNodes: 5 MiB that would be put together to 2 GB, and what cannot be read at all."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # processes that fight for cores take ten times as long
    out = tmp_path / "told.json"
    config = f"hostile=2 num-clients=3 num-rounds=3 num-shards=6 attacks=',many parts,not to be read' out='{out}'"
    with loopback_fleet(3, tmp_path / "logs") as fleet:
        done = fleet.run(APP, config, timeout=500.0)
    told = json.loads(out.read_text())
    assert [entry.get("arrived") for entry in told] == [None, 3, 2, 2], done.stdout
    (node,) = told[2]["rejected"]
    assert re.search(r"arrays of a reply must have at most \d+ bytes", told[2]["rejected"][node])
    assert "it cannot be read" in told[3]["rejected"][node]
    for server_round in (2, 3):
        assert f"round {server_round}: node {node} is left out" in done.stdout
    assert told[3]["accuracy"] > told[1]["accuracy"]
    # Round 1 was that of an honest client. Flower's own grid would take 4 GB for the second, and fail in the third.
    assert told[3]["peak-mb"] < told[1]["peak-mb"] + 100.0, [entry["peak-mb"] for entry in told]
