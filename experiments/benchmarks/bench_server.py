"""What a server spends on the replies of a round, beside Flower's own averaging of the same replies.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/benchmarks/bench_server.py [--replies 20] [--repeats 15] [--load 2]

Both get the same Flower messages in turn, in one process. Three ways: all replies at once, as Flower takes them; one by
one as they come, as a round takes them; and of that what is left to do once the last has come, for which a round waits.
Beside them what it takes only to read every reply from memory once, below which nothing can be. Then the peak
memory beyond the model, by tracemalloc, if each reply is made when it comes.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from fedgc.strategies import GradientCoding
from fedgc.strategies.messages.reply_limits import drop_arrays
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fedgc.records.array_bytes import view
from fedgc.simulation.run import _task_identity
from fedgc.updates.weighted_sum import squared_length

#: Shapes of models of 5.4 million entries in single precision: a few large arrays, or many small ones.
MODELS = {"large arrays": [(1000, 1000)] * 5 + [(400, 1000)], "180 arrays": [(100, 300)] * 180}


def model(shapes: Sequence[tuple[int, ...]], seed: int) -> ArrayRecord:
    """Return a model of random numbers."""
    rng = np.random.default_rng(seed)
    return ArrayRecord({f"w{i}": Array(rng.random(shape, dtype=np.float32)) for i, shape in enumerate(shapes)})


def fedavg() -> FedAvg:
    """Return the inner strategy, which is also what it is compared with."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def open_round(initial: ArrayRecord, n: int, load: int) -> tuple[GradientCoding, list[Message]]:
    """Return a strategy that has sent the messages of a round, and these."""
    strategy = GradientCoding(fedavg(), num_shards=n, deadline=60.0, load=load)
    nodes: Any = SimpleNamespace(get_node_ids=lambda: range(1, n + 1), get_nodes=list)
    messages = list(strategy.configure_train(1, initial, ConfigRecord(), nodes))
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = f"m{number}"
    return strategy, messages


def reply_to(message: Message, arrays: ArrayRecord) -> Message:
    """Return what a client answers: copies of a block answer the same, as their arrays are chosen by the block."""
    shards = list(message.content["fedgc"]["shard-ids"])
    told = ConfigRecord({"shard-ids": shards, "shard-examples": [10] * len(shards)})
    metrics = MetricRecord({"num-examples": 10 * len(shards)})
    own = ArrayRecord(dict(arrays))  # the strategy empties what it has worked off
    return Message(RecordDict({"arrays": own, "metrics": metrics, "fedgc": told}), reply_to=message)


def first_shard(message: Message) -> int:
    """Return what tells the blocks apart."""
    return int(message.content["fedgc"]["shard-ids"][0])


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def times(name: str, n: int, load: int, repeats: int) -> None:
    """Print the median seconds of each way."""
    initial = model(MODELS[name], 0)
    updates = [model(MODELS[name], 1 + k) for k in range(n)]
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for way in ("Flower's aggregate_arrayrecords", "Flower's FedAvg", "all at once", "one by one", "reading only"):
            strategy, messages = open_round(initial, n, load)
            replies = [reply_to(message, updates[first_shard(message)]) for message in messages]
            if way.endswith("records"):
                contents = [reply.content for reply in replies]
                took = timed(lambda contents=contents: aggregate_arrayrecords(contents, "num-examples"))  # type: ignore[misc]
            elif way.endswith("FedAvg"):
                took = timed(lambda replies=replies: fedavg().aggregate_train(1, replies))  # type: ignore[misc]
            elif way == "reading only":
                flat = [view(array) for reply in replies for array in reply.content["arrays"].values()]
                took = timed(lambda flat=flat: [squared_length(array) for array in flat])  # type: ignore[misc]
            elif way == "all at once":
                took = timed(lambda s=strategy, replies=replies: s.aggregate_train(1, replies))  # type: ignore[misc]
            else:
                # What the strategy's grid calls with each reply as it comes, but for its time, from which is learnt.
                took = timed(lambda s=strategy, replies=replies: [s._run.open.take(reply) for reply in replies])  # type: ignore[misc]
                after = timed(lambda s=strategy: s.aggregate_train(1, []))  # type: ignore[misc]
                seconds.setdefault("after the last", []).append(after)
                took += after
            seconds.setdefault(way, []).append(took)
    base = np.array(seconds["Flower's aggregate_arrayrecords"])
    print(f"{name}, {n} replies, load {load}; medians of {repeats}, and of the ratio of each repeat")
    for way, took in seconds.items():
        print(f"  {way:32s} {np.median(took):7.3f} s  {np.median(base / took):5.2f} times as fast")


def memory(name: str, n: int, load: int) -> None:
    """Print the peak of both."""
    shapes = MODELS[name]
    initial = model(shapes, 0)
    size = 4 * sum(int(np.prod(shape)) for shape in shapes)

    def coded() -> None:
        for message in messages:
            reply = reply_to(message, model(shapes, 1 + first_shard(message)))
            if strategy._run.open.take(reply):
                drop_arrays(reply)
        strategy.aggregate_train(1, [])

    def averaged() -> None:
        replies = [reply_to(message, model(shapes, 1 + first_shard(message))) for message in messages]
        fedavg().aggregate_train(1, replies)

    for who, work in (("GradientCoding", coded), ("Flower's FedAvg", averaged)):
        strategy, messages = open_round(initial, n, load)
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"  {who:32s} {peak / 1e6:7.0f} MB, {peak / size:.1f} models; {n} replies of {size / 1e6:.0f} MB")


def main() -> None:
    """Time and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--load", type=int, action="append")
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}")
    with _task_identity():
        for name in MODELS:
            for load in args.load or (2, 1):
                times(name, args.replies, load, args.repeats)
        memory("large arrays", 50, 2)


if __name__ == "__main__":
    main()
