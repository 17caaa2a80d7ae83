"""The strategy's options: what is refused, what the log says of them, and limits that hold."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Bulyan, FedAdam, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum, Strategy

from fedgc.assignment import AssignmentConstraints
from fedgc.deadline import AutomaticDeadline
from fedgc.decoders import FixedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import load_config
from fedgc.fleets import build_fleet
from fedgc.simulation import run_virtual
from tests.apps import EXAMPLES, N_SHARDS, arrays_of, initial_arrays, steady, train, train_shard
from tests.coding_cases import certain, coding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0}, r"deadline must be a finite number above 0; got 0"),
        ({"deadline": float("nan")}, r"deadline must be a finite number above 0; got nan"),
        ({"first_deadline": -1.0}, r"first_deadline must be a finite number above 0; got -1.0"),
        ({"num_shards": 0}, r"num_shards must be an integer of at least 1; got 0"),
        ({"load": 1.5}, r"load must be an integer of at least 1; got 1.5"),
        ({"decoder": "best"}, r"decoder must be one of first-arrival, fixed, .*; got 'best'"),
        ({"shard_examples": [1, 2]}, r"shard_examples must have shape \(6,\); got shape \(2,\)"),
        ({"shard_examples": [1, 2, 3, 4, 5, -6]}, r"shard_examples must lie in \[0, inf\); got -6 for shard 5"),
        ({"reassignment_gain": "x"}, r"reassignment_gain must lie in \[0, 1\]; got 'x'"),
        ({"reliability": 3}, r"reliability must be a ReliabilityPosterior; got 3"),
        ({"shard_examples": [1.5] * 6}, r"shard_examples must be integers, not all 0; got \[1.5"),
        ({"strategy": 3}, r"strategy must be a Flower Strategy; got 3"),
        (
            {"strategy": FedAdam(weighted_by_key="tokens")},
            "weighted_by_key of the strategy must be 'num-examples': .* as num_examples of their .*; got 'tokens'",
        ),
        ({"decoder": 3}, r"decoder must be a name or a Decoder; got 3"),
        ({"shard_examples": [0] * 6}, r"shard_examples must be integers, not all 0; got \[0, 0"),
        ({"reassignment_gain": 2.0}, r"reassignment_gain must lie in \[0, 1\]; got 2.0"),
        ({"resume": True}, "resume needs checkpoints, the folder to go on from; got True and no folder"),
        ({"resume": "yes"}, "resume must be True or False; got 'yes'"),
        ({"early_end": "no"}, "early_end must be True or False; got 'no'"),
        ({"sums": "shard"}, "sums must be left out for schedule 'full', .*; got 'shard'"),
        ({"redraw": True}, "redraw must be left out for schedule 'full', .*; got True"),
        ({"fetch_seconds": 0.0}, "fetch_seconds must be left out for schedule 'full', .*; got 0.0"),
        ({"schedule": "work-list", "sums": "all"}, "sums must be one of shard, share, whole; got 'all'"),
        ({"schedule": "work-list", "redraw": 1}, "redraw must be True, False or None; got 1"),
        ({"timing": "x"}, "timing must be a Timing, a fleet say; got 'x'"),
        ({"coherence": 0.5}, "coherence must be a CoherenceEstimate; got 0.5"),
        ({"constraints": {"storage": [1]}}, "constraints must be AssignmentConstraints; got {'storage': "),
        ({"seed": -1}, r"seed must be an integer of at least 0; got -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        GradientCoding(**{"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_more_copies_than_nodes_are_said_once(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    strategy = coding(load=7, schedule=schedule, reliability=certain())
    train(strategy, steady(), rounds=2)
    assert caplog.text.count("round 1: load is 7, but only 6 nodes are there: every shard has as many holders") == 1
    assert caplog.text.count("load is 7") == 1
    assert strategy.history[0].shards_recovered == N_SHARDS
    caplog.clear()
    train(coding(load=6, schedule=schedule), steady(), rounds=2)
    assert "load is" not in caplog.text


@pytest.mark.parametrize(("told", "run_config"), [(40, {}), (None, {"num-shards": 40}), (N_SHARDS, {"num-shards": 40})])
def test_clients_for_another_number_of_shards_are_named_once(
    told: int | None, run_config: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    app, server = ClientApp(), ServerApp()
    app.train()(gradient_coded(num_shards=told)(train_shard))

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        coding().start(grid, initial_arrays(), num_rounds=3)

    run_virtual(server, app, steady(), run_config=run_config)
    line = (
        "round 1: num_shards is 40 in gradient_coded (or the run config) of nodes 100, 101, 102, 103, 104 and 1 more, "
        "and 6 in GradientCoding"
    )
    assert caplog.text.count(line) == (told != N_SHARDS)
    assert caplog.text.count("num_shards is") == (told != N_SHARDS)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize(
    ("limits", "load"),
    [
        (AssignmentConstraints(storage=[1, 2, 6, 6, 6, 6]), 2),
        (AssignmentConstraints(residency={0: [1, 4], 1: [1, 4], 5: [2, 3, 4]}), 2),
        (AssignmentConstraints(domain=["a", "a", "a", "b", "b", "c"]), 2),
        (AssignmentConstraints(computation=[6, 1, 6, 2, 6, 6]), 2),
        (AssignmentConstraints(storage=[3, 3, 3, 3, 3, 3], domain=["a", "b", "c", "a", "b", "c"]), 3),
    ],
)
def test_limits_hold_in_every_round(schedule: str, limits: AssignmentConstraints, load: int) -> None:
    """While clients straggle, blocks are formed anew and what is learnt of the clients changes."""
    held: list[dict[int, set[int]]] = []
    original = GradientCoding.configure_train

    def noting(self: GradientCoding, *arguments: Any) -> Any:
        messages = list(original(self, *arguments))
        records = {m.metadata.dst_node_id: m.content.config_records["fedgc"]["shard-ids"] for m in messages}
        held.append({node - 100: set(shards) for node, shards in records.items()})  # type: ignore[arg-type]
        return messages

    rule = AutomaticDeadline(initial=10.0)
    strategy = coding(load=load, schedule=schedule, constraints=limits, deadline=rule, reassignment_gain=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientCoding, "configure_train", noting)
        train(strategy, build_fleet({"preset": "phones", "clients": 6}, seed=4), rounds=12)
    assert len(held) == 12
    for shards_of in held:
        assert set().union(*shards_of.values()) == set(range(N_SHARDS))
        for shard in range(N_SHARDS):
            holders = [client for client, shards in shards_of.items() if shard in shards]
            assert len(holders) >= (load if schedule == "full" else 1)
            if limits.residency is not None:
                assert set(holders) <= set(limits.residency.get(shard, range(6)))  # type: ignore[union-attr]
            if limits.domain is not None:
                assert len({limits.domain[client] for client in holders}) == len(holders)
        for name in ("storage", "computation"):
            if (most := getattr(limits, name)) is not None:
                assert all(len(shards) <= most[client] for client, shards in shards_of.items())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"storage": [1] * 6}, "storage must hold at least 12 shards in all; got 6"),
        ({"residency": {3: [2]}}, "residency must allow at least 2 clients for every shard; got 1 for shard 3"),
        ({"domain": ["a"] * 6}, "domain must name at least 2 different domains, one for each holder; got 1"),
        ({"storage": [6] * 5}, "storage must have one entry per client, 6; got 5"),
    ],
)
def test_limits_that_cannot_be_met_are_refused_by_name(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train(coding(constraints=AssignmentConstraints(**limits)), steady(), rounds=1)
    assert "\n" not in str(caught.value)


def test_summary_and_defaults(caplog: pytest.LogCaptureFixture) -> None:
    strategy = GradientCoding(num_shards=4, deadline=5.0, decoder=FixedDecoder())
    assert isinstance(strategy.strategy, FedAvg)
    caplog.set_level(logging.INFO)
    strategy.summary()
    assert "Decoder: fixed" in caplog.text
    assert "Deadline: 5 s" in caplog.text


def app_with(**keys: str) -> ClientApp:
    app = ClientApp()
    app.train()(gradient_coded(num_shards=N_SHARDS, **keys)(train_shard))
    return app


def test_records_have_the_names_that_the_inner_strategy_gives_them() -> None:
    inner = FedAvg(fraction_evaluate=0.0, arrayrecord_key="weights", configrecord_key="told")
    clients = app_with(arrayrecord_key="weights", configrecord_key="told")
    models = []
    for within, app in ((inner, clients), (None, app_with())):
        strategy = coding(within, reliability=certain(), deadline=50.0)
        result, _ = train(strategy, steady(), app=app)
        assert strategy.history[0].n_arrived == 6
        models.append(arrays_of(result.arrays))
    for name, value in models[1].items():
        np.testing.assert_array_equal(models[0][name], value)
    wrong = coding(inner, deadline=50.0)
    train(wrong, steady(), app=app_with())
    assert "arrayrecord_key must name a record of the message" in next(iter(wrong.history[0].rejected.values()))


class Around(FedAvg):
    """A strategy around another, as Flower's are, with a name of its own that it does not use."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(arrayrecord_key="unused")
        self.strategy = strategy


def test_names_of_records_that_are_not_the_inner_strategys_are_refused() -> None:
    inner = Around(FedAvg(arrayrecord_key="weights"))
    assert coding(inner).arrayrecord_key == coding(inner, arrayrecord_key="weights").arrayrecord_key == "weights"
    with pytest.raises(ValueError, match=r"arrayrecord_key must be left out, or be that .*, 'weights'; got 'arrays'"):
        coding(inner, arrayrecord_key="arrays")
    with pytest.raises(ValueError, match=r"configrecord_key must be left out, or be .*, 'config'; got 'told'"):
        coding(inner, configrecord_key="told")


COMPARING = [Krum, MultiKrum, FedMedian, FedTrimmedAvg]


@pytest.mark.parametrize("kind", [FedAvg, *COMPARING])
def test_a_strategy_that_compares_clients_is_warned_of_and_changes_nothing(
    kind: type[FedAvg], caplog: pytest.LogCaptureFixture
) -> None:
    models = []
    for inner in (kind(fraction_evaluate=0.0), FedAvg(fraction_evaluate=0.0)):
        result, _ = train(coding(inner, reliability=certain(), deadline=50.0), steady(), rounds=2)
        models.append(arrays_of(result.arrays))
    for name, value in models[1].items():
        np.testing.assert_array_equal(models[0][name], value)
    assert caplog.text.count(f"{kind.__name__} compares clients, and gets one") == (kind in COMPARING)


def test_a_strategy_that_makes_nothing_of_one_reply_is_refused() -> None:
    for inner in (Bulyan(), Around(Bulyan())):
        with pytest.raises(ValueError, match="Bulyan makes none of a single one"):
            coding(inner)


ABLE = "fixed, least-squares, normalised-sum, optimal-unbiased, partial-mean, sum"
SMALLEST = Path(__file__).parents[1] / "experiments" / "smallest.toml"
WHOLE_UPDATES_ONLY = ["fixed-aligned", "fixed-general", "inverse-probability", "first-arrival", "scaled-mean"]


@pytest.mark.parametrize("decoder", WHOLE_UPDATES_ONLY)
def test_a_decoder_of_whole_updates_is_refused_for_work_lists(decoder: str) -> None:
    """When the strategy is made, and not once the clients have warmed up."""
    told = f"decoder must be one of {ABLE} for schedule 'work-list', where clients do a part; got '{decoder}"
    for more in ({}, {"max_weight": 3.0}):
        with pytest.raises(ValueError, match=told):
            coding(schedule="work-list", decoder=decoder, **more)
    changes = [f'strategies.1.decoder="{decoder}"', 'strategies.1.schedule="work-list"']
    with pytest.raises(ConfigError, match=f"strategies.1.{told}"):
        load_config(SMALLEST, changes)
    load_config(SMALLEST, changes[:1])


@pytest.mark.parametrize("sums", ["whole", "share"])
def test_settled_weights_need_a_sum_for_every_shard_of_a_work_list(sums: str) -> None:
    told = f"sums must be 'shard' for decoder 'fixed' on work lists; got '{sums}'"
    with pytest.raises(ValueError, match=told):
        coding(schedule="work-list", decoder="fixed", sums=sums)
    changes = ['decoder="fixed"', 'schedule="work-list"', f'sums="{sums}"']
    with pytest.raises(ConfigError, match=f"strategies.1.{told}"):
        load_config(SMALLEST, [f"strategies.1.{change}" for change in changes])
