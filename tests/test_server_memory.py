"""The server's memory: two running sums and the reply in hand, however many clients reply."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedgc.memory import MemoryStore
from fedgc.simulation.run import _task_identity

SHAPES = [(800, 600)] * 4 + [(400, 500)]
SIZE = 4 * sum(int(np.prod(shape)) for shape in SHAPES)  # bytes of a model in single precision


def model(seed: int) -> ArrayRecord:
    rng = np.random.default_rng(seed)
    return ArrayRecord({f"w{index}": Array(rng.random(shape, dtype=np.float32)) for index, shape in enumerate(SHAPES)})


class Feed(Grid):
    """Makes each reply when it is fetched, so that no memory is taken but the server's."""

    def __init__(self, n_nodes: int) -> None:
        self.n_nodes = n_nodes
        self.open: dict[str, Message] = {}

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_nodes(self) -> Iterable[Any]:
        return []

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self.n_nodes + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.open)}"
            self.open[message.metadata.message_id] = message
        return list(self.open)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for key in sorted(message_ids):
            message = self.open.pop(key)
            metrics = {"num-examples": 10}
            content = RecordDict({"arrays": model(int(key[1:])), "metrics": MetricRecord(metrics)})
            if "fedgc" in message.content:
                shards = list(message.content["fedgc"]["shard-ids"])
                content["metrics"]["num-examples"] = 10 * len(shards)
                content["fedgc"] = ConfigRecord({"shard-ids": shards, "shard-examples": [10] * len(shards)})
            yield Message(content, reply_to=message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return list(self.pull_messages(self.push_messages(messages)))


def peak(strategy: Strategy, n_nodes: int) -> float:
    """Return the most memory that a round takes beyond what was there before it, in models."""
    with _task_identity():
        initial = model(0)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        strategy.start(Feed(n_nodes), initial, num_rounds=1)
        most = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return most / SIZE


def fedavg() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def coding(*, memory: bool | MemoryStore = False) -> GradientCoding:
    options = {"early_end": False, "reassignment_gain": 1.0}  # blocks that change are memory that is divided anew
    return GradientCoding(fedavg(), num_shards=50, deadline=60.0, load=2, memory=memory, **options)


def test_the_servers_memory_does_not_grow_with_the_replies() -> None:
    few, many = peak(coding(), 10), peak(coding(), 50)
    assert many < 5.0
    assert many < few + 0.5
    # Flower's own averaging keeps every reply.
    assert peak(fedavg(), 50) > 45.0


def test_with_control_variates_it_grows_with_the_blocks() -> None:
    # 50 clients in pairs are 25 blocks; their sums are what is remembered.
    assert 25.0 < peak(coding(memory=True), 50) < 30.0
    half = peak(coding(memory=MemoryStore(dtype="float16")), 50)
    assert 12.5 < half < 18.0


def test_with_control_variates_in_files_it_does_not(tmp_path: Path) -> None:
    """Two sums and two replies, as without, and an array in hand."""
    few, many = (peak(coding(memory=MemoryStore(folder=tmp_path)), n_nodes) for n_nodes in (10, 50))
    assert many < 5.5
    assert many < few + 0.5


RESIDENT = """
import sys
from pathlib import Path
from fedgc.memory import MemoryStore
from tests.test_server_memory import SHAPES, SIZE, Feed, _task_identity, coding, model

def kilobytes(name):
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith(name)).split()[1])

def rounds(n_nodes):
    coding(memory=MemoryStore(folder=sys.argv[1])).start(Feed(n_nodes), model(0), num_rounds=2)

with _task_identity():
    shapes, SHAPES[:] = SHAPES[:], [(3, 3)] * 5
    rounds(50)  # a small model first: libraries that are loaded late are no part of it
    SHAPES[:], before = shapes, kilobytes("VmRSS")
    for n_nodes in (10, 50):
        rounds(n_nodes)
        print(1024 * (kilobytes("VmHWM") - before) / SIZE)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_what_is_mapped_from_files_does_not_stay_resident(tmp_path: Path) -> None:
    """What tracemalloc does not see: the pages of mapped files too, over two rounds, in a process of its own."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root
    )
    few, many = (float(line) for line in done.stdout.split()[-2:])
    assert many < 10.0  # 58 with the same in memory
    assert many < few + 2.0


@pytest.mark.parametrize("n_nodes", [7])
def test_what_is_folded_is_the_mean_of_what_came(n_nodes: int) -> None:
    strategy = GradientCoding(fedavg(), num_shards=n_nodes, deadline=60.0, load=1, early_end=False)
    with _task_identity():
        result = strategy.start(Feed(n_nodes), model(0), num_rounds=1)
        plain = fedavg().start(Feed(n_nodes), model(0), num_rounds=1)
    report = strategy.history[0]
    np.testing.assert_allclose(report.coverage, report.coverage[0])
    for name, array in result.arrays.items():
        start, mean = model(0)[name].numpy(), plain.arrays[name].numpy()
        np.testing.assert_allclose(array.numpy(), start + report.coverage[0] * (mean - start), atol=2e-6)
