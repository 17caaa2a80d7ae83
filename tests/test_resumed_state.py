"""What a resumed run knows: all that lives from one round to the next is saved, or need not be."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding, PushedShards
from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.nodes.kept_shards import KeptShards
from fedgc.strategies.nodes.newcomers import Newcomers
from fedgc.strategies.nodes.set_aside import SetAside
from fedgc.strategies.nodes.shard_counts import ShardCounts
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.past_round import PastRound
from fedgc.strategies.rounds.size_claims import SizeClaims
from flwr.serverapp.strategy import FedAvg

from fedgc.codes import FractionalRepetition
from fedgc.fleets import build_fleet
from fedgc.round import RoundState
from tests import test_resume
from tests.apps import steady, train
from tests.pushed_shards import INNER, SHARDS, app_of, stores_in
from tests.test_resume import N_SHARDS, OPTIONS, ROUNDS, Killed, check_same, run

#: Where each attribute of what lives across rounds is after a restart. Whoever adds one says here what becomes of it.
SAVED, OPTION = "in the checkpoint", "what the user has given: the same when the run is resumed"
DERIVED, PROCESS = "found anew from the rest", "of this process or its connection"
ROUND = "of one round: nothing between two"
KNOWN: dict[str, dict[str, str]] = {
    "GradientCoding": {
        **dict.fromkeys(("state", "nodes", "history", "_shard_counts", "strategy", "planning", "shards"), SAVED),
        **dict.fromkeys(("num_shards", "deadline", "first_deadline", "start_timeout", "nodes_timeout"), OPTION),
        **dict.fromkeys(("given_sizes", "secure_sum", "checkpoints", "resume", "early_end", "seed"), OPTION),
        **dict.fromkeys(("arrayrecord_key", "configrecord_key", "quantiser"), OPTION),
        "second_moment": OPTION,  # of the inner strategy
        "reporting": PROCESS,  # which reporters have failed, so that the log tells it once
        "_run": "see CodedRun",
        "_journal": "its results and what has been evaluated are in the checkpoint",
        "_evaluates": ROUND,
    },
    "CodedRun": {
        **dict.fromkeys(("past", "set_aside", "dissent", "newcomers", "_told", "first_report"), SAVED),
        **dict.fromkeys(("introduced", "silent_rounds", "silent_since", "heard_late"), SAVED),
        **dict.fromkeys(("rounds", "rounds_before", "tally", "partitions"), DERIVED),
        **dict.fromkeys(("_on_end", "phase", "began", "driven", "part_is_told", "unasked"), PROCESS),
        **dict.fromkeys(("open", "waiting", "unplannable_since"), ROUND),
        "grid": "see DeadlineGrid",
    },
    "DeadlineGrid": {
        **dict.fromkeys(("_grid", "clock", "earlier", "late"), SAVED),  # in virtual time, else lost with the process
        **dict.fromkeys(("_on_close", "_train_timeout", "_enough", "_on_reply", "_on_late", "_on_send"), PROCESS),
        **dict.fromkeys(("_only_work", "_usable", "one_at_a_time"), OPTION),
        **dict.fromkeys(("collected", "kept_back"), ROUND),
        **dict.fromkeys(("_pull", "at_once"), DERIVED),  # limits, from the model when the run and a round begin
        "_busy": PROCESS,  # not in virtual time
    },
    "Newcomers": dict.fromkeys(("_messages", "_heard", "_sent", "_answered"), SAVED),
    "SizeClaims": {
        **dict.fromkeys(("_sizes", "_said", "_late", "_first", "_typical", "disagreements"), SAVED),
        **dict.fromkeys(("_state", "_claims", "_code", "_given", "_shared"), DERIVED),
    },
    "PushedShards": {
        **dict.fromkeys(("_shards", "_message_bytes", "_ask_first"), OPTION),
        **dict.fromkeys(("_nodes", "history"), SAVED),
        "_digests": DERIVED,
    },
    "KeptShards": dict.fromkeys(("kept", "pending", "answered", "takes_pushes"), SAVED),
    "SetAside": {**dict.fromkeys(("_bad", "_until"), SAVED), "_after": DERIVED},
    "ShardCounts": {"_num_shards": OPTION, "_warned": SAVED},
    "PastRound": {
        **dict.fromkeys(("round", "collected", "silent", "replies", "answered", "rejected", "copies"), SAVED),
        "store": OPTION,
    },
    "OpenRound": {
        **dict.fromkeys(("server_round", "arrays", "messages", "deadline", "sizes", "_doubted"), SAVED),
        **dict.fromkeys(("plan", "tasks", "state", "_client_by_message"), DERIVED),
        "secret": "in the past round's copies",
        **dict.fromkeys(("metrics", "rejected", "bad", "failed", "_taken", "_waiting"), ROUND),
        "settings": OPTION,  # but for the known sizes, which are in the checkpoint
    },
}


def test_of_all_that_lives_across_rounds_it_is_known_what_becomes_of_it(tmp_path: Path) -> None:
    strategy = run("memory", tmp_path, rounds=1)[0]
    assert strategy._run.grid is not None
    claims = SizeClaims(RoundState(strategy.given_sizes), FractionalRepetition([0, 0], [0] * N_SHARDS))
    there = {type(one).__name__: set(vars(one)) for one in (strategy, strategy._run, strategy._run.grid, claims)}
    others = (Newcomers(), PushedShards(SHARDS), KeptShards(), SetAside(), ShardCounts(N_SHARDS))
    there |= {type(one).__name__: set(vars(one)) for one in others}
    there |= {kind.__name__: {field.name for field in fields(kind)} for kind in (PastRound, OpenRound)}
    assert there == {name: set(attributes) for name, attributes in KNOWN.items()}
    assert there["CodedRun"] == set(vars(CodedRun()))


@pytest.mark.parametrize("ask_first", [False, True])
def test_shards_are_not_pushed_again_after_a_restart(ask_first: bool, tmp_path: Path) -> None:
    def pushed(name: str, kill_at: int | None = None) -> tuple[GradientCoding, Any]:
        strategy = GradientCoding(
            FedAvg(**INNER),
            num_shards=len(SHARDS),
            deadline=20.0,
            shards=PushedShards(SHARDS, ask_first=ask_first),
            checkpoints=tmp_path / name,
            resume=True,
        )
        original = strategy.aggregate_train

        def dying(server_round: int, replies: Any) -> Any:
            if strategy._journal.rounds_before + server_round == kill_at:
                raise Killed
            return original(server_round, replies)

        strategy.aggregate_train = dying  # type: ignore[method-assign]
        app = app_of(store=stores_in(tmp_path / f"{name} stores"))
        return strategy, train(strategy, steady(), rounds=ROUNDS, app=app)[0]

    whole, result = pushed("whole")
    with pytest.raises(Killed):
        pushed("killed", kill_at=4)
    resumed, again = pushed("killed")
    assert resumed.shards is not None
    assert whole.shards is not None
    assert resumed.shards.history == whole.shards.history
    assert resumed.shards.n_bytes_sent == whole.shards.n_bytes_sent > 0
    assert not any(pushes.n_shards for pushes in resumed.shards.history[3:])
    assert again.arrays == result.arrays


def use_fleet(monkeypatch: pytest.MonkeyPatch, preset: str, clients: int, seed: int) -> None:
    monkeypatch.setattr(test_resume, "fleet", lambda: build_fleet({"preset": preset, "clients": clients}, seed=seed))


def test_a_node_that_has_joined_is_known_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fleet(monkeypatch, "phones", 6, seed=0)
    options: dict[str, Any] = {"deadline": 10.0, "start_timeout": 1.0}
    whole = run("memory", tmp_path / "whole", **options)
    assert [report.n_clients for report in whole[0].history] == [5, 6, 6, 6, 6, 6]  # one joins in the first round
    for server_round in (2, 3):
        folder = tmp_path / f"killed {server_round}"
        assert run("memory", folder, kill_at=("train", server_round), resume=True, **options)[1] is None
        resumed = run("memory", folder, resume=True, **options)
        assert [report.n_clients for report in resumed[0].history] == [5, 6, 6, 6, 6, 6]
        check_same(resumed, whole)


def test_what_late_replies_have_said_of_sizes_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fleet(monkeypatch, "lambda", 9, seed=2)
    name, options = "work lists, clients evaluate", {"deadline": 10.0}
    whole = run(name, tmp_path / "whole", **options)
    for server_round in (3, 4, 5):
        folder = tmp_path / f"killed {server_round}"
        assert run(name, folder, kill_at=("train", server_round), resume=True, **options)[1] is None
        check_same(run(name, folder, resume=True, **options), whole)


def test_late_replies_of_which_only_the_sum_counts_can_be_read_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sizes = "only the sum", [1 + shard % 3 for shard in range(N_SHARDS)]
    options = {"decoder": "fixed", "secure_sum": True, "shard_examples": sizes}
    inner = {"fraction_train": 0.5, "fraction_evaluate": 0.0, **OPTIONS}
    monkeypatch.setitem(test_resume.STRATEGIES, name, lambda: (FedAvg(**inner), options))
    # Fixed-point sums are out of the range of half precision, so that only a round that knows them can read them.
    monkeypatch.setattr(test_resume, "MODEL", np.full(3, 20.0, dtype=np.float16))
    whole = run(name, tmp_path / "whole")
    assert any(report.late for report in whole[0].history)
    for server_round in range(2, ROUNDS + 1):
        folder = tmp_path / f"killed {server_round}"
        assert run(name, folder, kill_at=("train", server_round), resume=True)[1] is None
        check_same(run(name, folder, resume=True), whole)
