"""A run that is killed and resumed in the embedded runtime is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import RowOfShards, ShardUpdate, coded_in_a_row, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Result, Strategy

from fedgc.assignment import AssignmentConstraints
from fedgc.checkpoint import CheckpointFolder, pack_tree, read_checkpoint
from fedgc.checkpoint.file import write_checkpoint
from fedgc.deadline import AutomaticDeadline
from fedgc.errors import CheckpointError
from fedgc.fleets import build_fleet
from fedgc.memory import MemoryStore
from fedgc.simulation import VirtualRun, run_virtual

N_SHARDS, ROUNDS, MODEL = 12, 6, np.zeros(3)
OPTIONS: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1}


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


def client_app(*, in_a_row: bool = False) -> ClientApp:
    """A client with randomness, state of its own and an evaluation."""
    app = ClientApp()

    @gradient_coded(num_shards=N_SHARDS)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        weights = arrays["w"].numpy()
        noise = np.random.default_rng(int(config["shard-seed"])).normal(size=weights.shape)  # type: ignore[arg-type]
        return ShardUpdate(1 + shard_id % 3, delta={"w": 0.1 * (shard_id - weights) + 0.1 * noise})

    @coded_in_a_row(num_shards=N_SHARDS // 3, pieces=3)
    def train_row(row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        w = arrays["w"].numpy().copy()
        for batch in row.batches(lambda shard_id: range(4 * shard_id, 4 * shard_id + 4), size=3):
            w += 0.1 * (np.cos(batch).sum() - w) + 0.01 * np.random.random(w.shape)
        return ShardUpdate(row.num_examples, {"w": w})

    app.train()(train_row if in_a_row else train)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        seen = context.state.metric_records.setdefault("seen", MetricRecord({"times": 0}))
        seen["times"] = int(seen["times"]) + 1  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 1, "times": seen["times"], "luck": random.random()})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


STRATEGIES: dict[str, Callable[[], tuple[Strategy, dict[str, Any]]]] = {
    "work lists, clients evaluate": lambda: (
        FedAvg(fraction_evaluate=0.5, min_evaluate_nodes=1, **OPTIONS), {"schedule": "work-list"}
    ),
    "some clients, full schedule, momentum": lambda: (
        FedAvgM(fraction_train=0.6, fraction_evaluate=0.0, server_learning_rate=0.5, server_momentum=0.9, **OPTIONS),
        {"deadline": 15.0},
    ),
    "Adam, automatic deadline": lambda: (
        FedAdam(fraction_evaluate=0.0, eta=0.1, **OPTIONS),
        {"schedule": "work-list", "deadline": AutomaticDeadline(initial=6.0)},
    ),
    "full schedule, automatic deadline": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS), {"deadline": AutomaticDeadline(initial=6.0)},
    ),
    "limits, full schedule": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS),
        {"constraints": AssignmentConstraints(storage=[3, 4, N_SHARDS, N_SHARDS, N_SHARDS, N_SHARDS])},
    ),
    "memory": lambda: (FedAvg(fraction_evaluate=0.0, **OPTIONS), {"memory": True}),
    "failure domains": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS),
        {"failure_domains": ["a", "a", "a", "b", "b", "b"], "load": 3},
    ),
    "memory in half precision": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS), {"memory": MemoryStore("float16"), "schedule": "work-list"}
    ),
    "known fleet": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS), {"schedule": "work-list", "timing": fleet(), "sums": "whole"}
    ),
    "a code of the literature": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS), {"code": "scheme-II", "deadline": AutomaticDeadline(initial=6.0)}
    ),
    "work lists of a code of the literature": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS), {"code": "uncoded", "schedule": "work-list", "sums": "whole"}
    ),
    "in a row": lambda: (
        FedAvg(fraction_evaluate=0.0, **OPTIONS),
        {"in_a_row": True, "schedule": "work-list", "deadline": AutomaticDeadline(initial=6.0)},
    ),
    "settled weights": lambda: (FedAvg(fraction_evaluate=0.0, **OPTIONS), {"decoder": "fixed", "first_deadline": 20.0}),
}  # fmt: skip


def fleet() -> Any:
    return build_fleet({"preset": "uneven", "clients": 6}, seed=1)


def run(
    name: str, folder: Path | None, *, kill_at: tuple[str, int] | None = None, rounds: int = ROUNDS, **options: Any
) -> tuple[GradientCoding, Result | None, VirtualRun | None, list[int]]:
    """Train, and die in a round's training or evaluation if told to; return what is left."""
    inner, more = STRATEGIES[name]()
    options = {"num_shards": N_SHARDS, "deadline": 6.0, "seed": 5, **more, "checkpoints": folder, **options}
    strategy = GradientCoding(inner, **options)
    server, found, evaluated = ServerApp(), [], []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if kill_at == ("evaluate", server_round):
            raise Killed
        evaluated.append(server_round)
        return MetricRecord({"norm": float(np.linalg.norm(arrays["w"].numpy())), "luck": np.random.random()})

    if kill_at is not None and kill_at[0] == "train":
        original = strategy.aggregate_train

        def dying(server_round: int, replies: Any) -> Any:
            if strategy._journal.rounds_before + server_round == kill_at[1]:
                raise Killed
            return original(server_round, replies)

        strategy.aggregate_train = dying  # type: ignore[method-assign]

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        initial = ArrayRecord({"w": Array(MODEL)})
        found.append(strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=evaluate))

    try:
        done = run_virtual(server, client_app(in_a_row=strategy.planning.in_a_row), fleet(), num_shards=N_SHARDS)
    except Killed:
        return strategy, None, None, evaluated
    return strategy, found[0], done, evaluated


def check_same(one: tuple[GradientCoding, Result | None, VirtualRun | None, Any], other: Any) -> None:
    """Check that two runs left the same: model, metrics, messages and all that a further round would depend on."""
    for (strategy, result, done, _), (other_strategy, other_result, other_done, _) in [(one, other)]:
        assert result is not None
        assert done is not None
        assert result.arrays == other_result.arrays
        for name in ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp"):
            told, other_told = ({n: dict(m) for n, m in getattr(r, name).items()} for r in (result, other_result))
            told.pop(0, None)  # before the first round: not a round of a resumed run
            other_told.pop(0, None)
            assert json.dumps(told) == json.dumps(other_told)
        assert done.trace == other_done.trace
        assert done.seconds == other_done.seconds
        folders = [CheckpointFolder(s.checkpoints.folder) for s in (strategy, other_strategy)]
        (n, tree), (m, other_tree) = (folder.newest() or (0, None) for folder in folders)
        assert n == m
        left, right = pack_tree(without_dates(tree)), pack_tree(without_dates(other_tree))
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].tobytes() == right[key].tobytes(), key


def without_dates(tree: Any) -> Any:
    """Return a checkpoint without the real time of messages, from which the time to live of replies counts."""
    if isinstance(tree, dict):
        return {key: without_dates(value) for key, value in tree.items() if key not in {"created_at", "ttl"}}
    if isinstance(tree, list | tuple):
        return type(tree)(without_dates(item) for item in tree)
    return tree


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole = run(name, tmp_path / "whole")
    assert whole[1] is not None
    assert len(whole[0].history) == ROUNDS
    folder = tmp_path / "killed"
    # In the first round, in an evaluation, twice in one round, in the last one.
    for kill in (("train", 1), ("evaluate", 2), ("train", 4), ("train", 4), ("evaluate", ROUNDS)):
        assert run(name, folder, kill_at=kill, resume=True)[1] is None
    check_same(run(name, folder, resume=True), whole)


def test_with_nothing_left_to_do_the_result_is_there_again(tmp_path: Path) -> None:
    name = "memory"
    whole = run(name, tmp_path)
    again = run(name, tmp_path, resume=True)
    assert again[3] == []
    check_same(again, whole)


def test_a_resumed_run_may_be_made_longer(tmp_path: Path) -> None:
    name = "work lists, clients evaluate"
    run(name, tmp_path / "short", rounds=4)
    # Reassignment weighs what moving costs against the rounds that are left only with fetch_seconds, so that the number
    # of rounds changes nothing here.
    check_same(run(name, tmp_path / "short", resume=True), run(name, tmp_path / "whole"))


def test_saving_changes_nothing(tmp_path: Path) -> None:
    name = "some clients, full schedule, momentum"
    _, result, done, _ = run(name, tmp_path / "saved")
    _, plain, plain_done, _ = run(name, None)
    assert result is not None
    assert plain is not None
    assert done is not None
    assert plain_done is not None
    assert result.arrays == plain.arrays
    assert done.trace == plain_done.trace


SCRIPT = """
import sys
from pathlib import Path
from tests.test_resume import die_in_round, run
die_in_round(Path(sys.argv[1]), int(sys.argv[2]))
"""


def die_in_round(folder: Path, server_round: int) -> None:
    """Train in this process and let it be killed in the middle of a round's training."""
    original = GradientCoding.aggregate_train

    def dying(self: GradientCoding, number: int, replies: Any) -> Any:
        if len(self.history) + 1 == server_round:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, number, replies)

    GradientCoding.aggregate_train = dying  # type: ignore[method-assign]
    run("work lists, clients evaluate", folder, resume=True)


def test_a_process_that_is_killed_outright_is_gone_on_from(tmp_path: Path) -> None:
    for server_round in (3, 5):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), str(server_round)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert CheckpointFolder(tmp_path / "killed").rounds[-1] == server_round - 1
    name = "work lists, clients evaluate"
    check_same(run(name, tmp_path / "killed", resume=True), run(name, tmp_path / "whole"))


def newest(folder: Path) -> Path:
    return max(folder.glob("round-*.safetensors"))


@pytest.mark.parametrize("harm", ["truncated", "a bit", "empty", "foreign", "another version"])
def test_a_checkpoint_that_cannot_be_used_is_refused_and_the_one_before_is_used(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "work lists, clients evaluate"
    run(name, tmp_path / "hurt", rounds=5)
    path = newest(tmp_path / "hurt")
    data = bytearray(path.read_bytes())
    if harm == "truncated":
        data = data[: len(data) // 2]
    elif harm == "a bit":
        data[-100] ^= 4
    elif harm == "empty":
        data = bytearray()
    elif harm == "foreign":
        data = bytearray(b"PK\x03\x04" + bytes(500))
    else:
        monkeypatch.setattr("fedgc.checkpoint.file.VERSION", 99)
        data = bytearray(_rewritten(path))
        monkeypatch.undo()
    path.write_bytes(data)
    resumed = run(name, tmp_path / "hurt", resume=True)
    assert resumed[3][0] == 5  # from round 4, whose evaluation is in its checkpoint
    assert f"{path}: " in caplog.text
    assert "the checkpoint before it is used" in caplog.text
    check_same(resumed, run(name, tmp_path / "whole"))


def _rewritten(path: Path) -> bytes:
    write_checkpoint(path.with_name("other"), {})
    return path.with_name("other").read_bytes()


def test_completion_times_of_an_older_format_are_refused(tmp_path: Path) -> None:
    name = "full schedule, automatic deadline"
    run(name, tmp_path, rounds=3)
    for path in sorted(tmp_path.glob("round-*")):
        tree = read_checkpoint(path)
        times = _find(tree, "completion_times")
        # As version 2 was, which had no scores of predictions.
        del times["log_scores"]
        times["version"] = 2
        write_checkpoint(path, tree)
    refused("completion times must be in format version 3; got version 2", name, tmp_path, resume=True)


def _find(tree: Any, key: str) -> Any:
    """Return the value of a key, wherever it is."""
    if isinstance(tree, dict):
        return tree[key] if key in tree else next((f for f in (_find(v, key) for v in tree.values()) if f), None)
    return None


def test_where_none_can_be_used_nothing_is_written_over(tmp_path: Path) -> None:
    name = "memory"
    run(name, tmp_path, rounds=3)
    files = sorted(tmp_path.glob("round-*"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(b"?")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints can be used"):
        run(name, tmp_path, resume=True)
    assert [path.read_bytes() for path in files] == [b"?", b"?"]


def refused(expected: str, name: str, folder: Path, **options: Any) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        run(name, folder, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "memory"
    run(name, tmp_path, rounds=3)
    refused("pass resume=True to go on from there", name, tmp_path)
    refused("num_shards must be 12, as in the checkpoint; got 6", name, tmp_path, resume=True, num_shards=6)
    refused("schedule must be 'full'", name, tmp_path, resume=True, schedule="work-list")
    refused("memory must be True, as in the checkpoint; got False", name, tmp_path, resume=True, memory=False)
    with monkeypatch.context() as patch:
        patch.setattr("tests.test_resume.MODEL", np.zeros(4))
        refused("array 'w' is float64 of shape (3,) in it and float64 of shape (4,)", name, tmp_path, resume=True)
    row = tmp_path / "row"
    run("in a row", row, rounds=3)
    refused("in_a_row must be True, as in the checkpoint; got False", "in a row", row, resume=True, in_a_row=False)
    adam = tmp_path / "adam"
    run("Adam, automatic deadline", adam, rounds=3)
    refused(
        "the inner strategy must be FedAdam, as in the checkpoint; got FedAvg",
        "work lists, clients evaluate",
        adam,
        resume=True,
    )


def test_the_folder_keeps_as_many_as_it_is_told(tmp_path: Path) -> None:
    run("memory", CheckpointFolder(tmp_path, keep=3), rounds=5)  # type: ignore[arg-type]
    assert CheckpointFolder(tmp_path).rounds == [3, 4, 5]
    (tmp_path / ".unfinished-abc").write_bytes(b"of a process that was killed")
    run("memory", CheckpointFolder(tmp_path, keep=3), rounds=6, resume=True)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *(f"round-{n:08d}.safetensors" for n in (4, 5, 6))}
    assert read_checkpoint(newest(tmp_path))["run"]["num_shards"] == N_SHARDS


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be an integer of at least 2; got 1"):
        CheckpointFolder(tmp_path, keep=1)
    with pytest.raises(ValueError, match="checkpoints must be a path or a CheckpointFolder; got 3"):
        GradientCoding(num_shards=2, deadline=1.0, checkpoints=3)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="the folder cannot be made"):
        GradientCoding(num_shards=2, deadline=1.0, checkpoints=tmp_path / "file")
