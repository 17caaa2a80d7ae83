"""Thousands of malformed replies: training goes on as if their senders had been silent, bit for bit."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from fedgc.coherence import KnownCoherence
from fedgc.fleets import LogNormalFleet, WorkDraw
from fedgc.simulation import run_virtual
from tests.malformed_replies import CHANGES, MIXTURE, OTHERS, copy_of, malformed

N_CLIENTS, N_SHARDS, ROUNDS = 16, 16, 20
SIZES = [1 + (5 * shard) % 7 for shard in range(N_SHARDS)]
KINDS = {*CHANGES, *OTHERS, MIXTURE}
#: What comes of itself: the others are a matter of the process, or of the network.
DELIVERED = sorted(KINDS - {"raises", "twice"})
#: Never answers, so that every round lasts until its deadline whatever the others do.
SILENT = 0


def who_is_bad(seed: int) -> set[tuple[int, int]]:
    """Pairs of client and round; nobody is bad three times in a row, after which it would not be asked."""
    rng, bad = np.random.default_rng(seed), set()
    for server_round in range(1, ROUNDS + 1):
        for client in range(1, N_CLIENTS):
            again = {(client, server_round - 1), (client, server_round - 2)} <= bad
            if rng.random() < 0.6 and not again:
                bad.add((client, server_round))
    return bad


class Absent(LogNormalFleet):
    """Clients of a steady pace, of which some are silent in some rounds."""

    absent: set[tuple[int, int]]

    def draw(self, client: int, server_round: int, **_: Any) -> WorkDraw:
        here = client != SILENT and (client, server_round) not in self.absent
        return WorkDraw(0.1 * client, 0.5 + 0.1 * client, np.inf if here else 0.0)


class Senders:
    """A mod that makes malformed replies of good ones, and a network that delivers several to one message."""

    def __init__(self, bad: set[tuple[int, int]]) -> None:
        self.bad = bad
        self.sent: dict[str, list[Message]] = {}
        self.kinds: Counter[str] = Counter()
        self.nodes: dict[int, set[int]] = {}
        self.before: dict[int, Message] = {}

    def __call__(self, message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        reply = call_next(message, context)
        client, server_round = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])
        rng = np.random.default_rng([7, client, server_round])
        bad = (client, server_round) in self.bad
        if bad and rng.random() < 0.1:
            self.note("raises", message)
            raise RuntimeError("battery empty")
        batch: list[Message] = [] if bad else [copy_of(reply, message)]
        if not bad and rng.random() < 0.2:
            self.note("twice", message)
            batch.append(copy_of(reply, message))
        for kind in rng.choice(DELIVERED, size=int(rng.integers(7, 15) if bad else rng.integers(0, 3))):
            wrong = malformed(kind, reply, message, rng, self.before.get(client))
            if wrong is not None:
                self.note(str(kind), message)
                # What a client sends beside its good reply may come before it or after it.
                batch.insert(0 if rng.random() < 0.5 else len(batch), wrong)
        self.before[client] = copy_of(reply, message)
        self.sent[message.metadata.message_id] = batch
        return reply

    def note(self, kind: str, message: Message) -> None:
        self.kinds[kind] += 1
        self.nodes.setdefault(int(message.content["config"]["server-round"]), set()).add(message.metadata.dst_node_id)

    def deliver(self, grid: Grid) -> None:
        """Deliver what was sent in place of the one reply that a client's process returns."""
        pull = grid.pull_messages

        def pull_messages(ids: Any) -> list[Message]:
            came: list[Message] = []
            for reply in pull(ids):
                batch = self.sent.get(reply.metadata.reply_to_message_id)
                came += [reply] if batch is None or reply.has_error() else batch
            return came

        grid.pull_messages = pull_messages  # type: ignore[method-assign]


def train_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
    weight = np.zeros((2, 3))
    weight.flat[shard_id % 6] = 1.0 + shard_id
    delta = {"weight": weight - 0.1 * arrays["weight"].numpy(), "bias": np.array([0.3 * shard_id], dtype=np.float32)}
    return ShardUpdate(SIZES[shard_id], delta=delta, metrics={"loss": float(shard_id)})


def run(
    options: dict[str, Any], absent: set[tuple[int, int]], senders: Senders | None = None
) -> tuple[list[dict[str, NDArray[Any]]], GradientCoding, Result]:
    fleet = Absent(N_CLIENTS, seed=1)
    fleet.absent = absent
    inner = FedAvg(fraction_evaluate=0.0)
    strategy = GradientCoding(inner, num_shards=N_SHARDS, load=4, shard_examples=SIZES, early_end=False, **options)
    app, server = ClientApp(), ServerApp()
    app.train(mods=[] if senders is None else [senders])(gradient_coded()(train_shard))
    models: list[dict[str, NDArray[Any]]] = []
    results: list[Result] = []

    def keep(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        models.append({name: array.numpy() for name, array in arrays.items()})
        return MetricRecord({"round": server_round})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        if senders is not None:
            senders.deliver(grid)
        start = ArrayRecord({"weight": Array(np.zeros((2, 3))), "bias": Array(np.zeros(1, dtype=np.float32))})
        results.append(strategy.start(grid, start, num_rounds=ROUNDS, evaluate_fn=keep))

    run_virtual(server, app, fleet)
    return models, strategy, results[0]


def times_of(strategy: GradientCoding) -> dict[int, list[tuple[float, bool]]]:
    """Return the seconds that each node took in its rounds, and whether it was silent for so long."""
    history = strategy.state.completion_times.history
    assert history is not None
    return {
        int(node): [
            (float(seconds), bool(silent))
            for seconds, silent in zip(
                history.seconds[row, : history.count[row]], history.censored[row, : history.count[row]], strict=True
            )
        ]
        for node, row in zip(history.node_ids, history.rows(history.node_ids), strict=True)
    }


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        # Blocks stay as they are: what silence says of times comes a round later than what a malformed reply says,
        # which is enough for blocks sized by these times to differ.
        ({"deadline": 10.0, "reassignment_gain": 1.0}, 1),
        (
            {
                "deadline": 4.0,  # the quickest do four shards in that time, the slowest one
                "schedule": "work-list",
                "sums": "share",
                "memory": True,
                "timing": Absent(N_CLIENTS, seed=1, sigma=0.5, dropout=0.5, median=2.0),
                "coherence": KnownCoherence(),
            },
            2,
        ),
    ],
    ids=["blocks, all learnt", "work lists with memory"],
)
def test_malformed_replies_are_as_good_as_none(
    options: dict[str, Any], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="flwr")
    bad = who_is_bad(seed)
    senders = Senders(bad)
    models, strategy, result = run(options, set(), senders)
    left_out = set(re.findall(r"round (\d+): node (\d+) is left out: .", caplog.text))
    expected, other, _ = run(options, bad)

    assert len(models) == len(expected) == ROUNDS + 1
    for model, without in zip(models, expected, strict=True):
        for name in model:
            np.testing.assert_array_equal(model[name], without[name])
    assert np.isfinite(models[-1]["weight"]).all() and np.abs(models[-1]["weight"]).max() > 1.0
    for report, other_report in zip(strategy.history, other.history, strict=True):
        server_round = report.server_round
        assert report.n_clients == N_CLIENTS
        assert report.n_arrived == other_report.n_arrived
        assert set(report.rejected) == senders.nodes[server_round]
        assert all(report.rejected.values())
        assert {(str(server_round), str(node)) for node in report.rejected} <= left_out
        assert result.train_metrics_clientapp[server_round]["fedgc-rejected"] == len(report.rejected)
    if "timing" not in options:
        times, times_without = times_of(strategy), times_of(other)
        assert times.keys() == times_without.keys()
        for node, seen in times.items():
            # Whether the silence of the last round lasts nobody waits to hear.
            last = len(seen) - len(times_without[node])
            assert last == (1 if node - 100 != SILENT and (node - 100, ROUNDS) in bad else 0)
            assert seen[: len(seen) - last] == times_without[node]
    if "schedule" in options:
        assert len({report.shards_done for report in strategy.history}) > 5
    assert sum(senders.kinds.values()) > 1500
    assert set(senders.kinds) == KINDS
    assert min(senders.kinds.values()) >= 8, senders.kinds
