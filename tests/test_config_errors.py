"""Configurations: what is wrong with one is said in a line that names the key; those that are shipped are right."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedgc.strategies.rivals import RIVALS

from fedgc.decoders import DECODERS
from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config, load_config
from fedgc.fleets import ShiftedExponentialFleet
from tests.command_line import EXPERIMENTS, SMALLEST, fedgc

FLEET_KEYS = ", ".join(
    sorted((*ShiftedExponentialFleet.PARAMETERS, "client", "clients", "groups", "loss_detection", "model", "preset"))
)
SETTLED = ", ".join(name for name, kind in DECODERS.items() if kind.weights_settled)


BAD = {
    "rounds=0": "rounds must be greater than or equal to 1; got 0",
    "rounds=2.5": "rounds must be a valid integer; got 2.5",
    'rounds="five"': "rounds must be a valid integer; got 'five'",
    "colour=1": "colour is not a known key, allowed are name, rounds, seeds, target_accuracy, target_loss, "
    "stop_at_target, record_every, runtime, timing, deadline_unit, time_limit, tensorboard, sweep, "
    "sweep_titles, tuning, decentralised, task, fleet, strategies; got 1",
    "decentralised.foo=1": "decentralised.foo is not a known key, allowed are graph, edges, mixing, radius, "
    "regularisation, decay; got 1",
    "tuning={seeds=[9], bye=1}": "tuning.bye is not a known key, allowed are seeds, by, keys; got 1, did you mean by?",
    "task.depth=3": "task.depth is not a known key, allowed are name, shards, partition, alpha, hidden, "
    "local_epochs, batch_size, learning_rate; got 3",
    "strategies.1.loads=3": "strategies.1.loads is not a known key, allowed are inner, "
    "server_learning_rate, server_momentum, beta_1, beta_2, adaptivity, second_moment, second_decoder, kind, label, "
    "deadline, deadline_rule, deadline_share, deadline_cover, noise_sensitivity, load, pieces, schedule, sums, redraw, "
    "order, in_a_row, early_end, code, decoder, max_weight, memory, coherence, secure_sum, fractional_bits, bits, "
    "bit_budget, quantiser, failure_domains, residency, grid; got 3, did you mean load?",
    "strategies.1.secure_sum=true": f"strategies.1.decoder must be one of {SETTLED} for secure_sum; got "
    "'optimal-unbiased'",
    "strategies.1.noise_sensitivity=1.0": "strategies.1.noise_sensitivity must be left out unless deadline_rule is "
    "'auto'; got 1.0 with 'fixed'",
    "strategies.1.secure_sum=1": "strategies.1.secure_sum must be a valid boolean; got 1",
    "strategies.1.fractional_bits=7": "strategies.1.fractional_bits must be greater than or equal to 8; got 7",
    "strategies.1.fractional_bits=49": "strategies.1.fractional_bits must be less than or equal to 48; got 49",
    "tensorboard=3": "tensorboard must be a valid string; got 3",
    'tensorboard=""': "tensorboard must have at least 1 character; got ''",
    "strategies.1.deadline=0": "strategies.1.deadline must be greater than 0; got 0",
    "strategies.1.deadline=-2.5": "strategies.1.deadline must be greater than 0; got -2.5",
    "strategies.1.deadline_share=0.5": "strategies.1.deadline_share must be left out unless deadline_rule is "
    "'quantile'; got 0.5 with 'fixed'",
    'strategies.1={kind="gradient-coding", label="x", deadline=4e3, deadline_rule="auto"}': "strategies.1.deadline, "
    "initial must be at most longest = 3600; got 4000 (of the rule 'auto')",
    "strategies.1.load=5": "strategies.1.load must be an integer from 1 to 4; got 5 "
    "(load may not exceed fleet.clients)",
    "strategies.1.max_weight=0": "strategies.1.max_weight must be greater than 0; got 0",
    "strategies.1.load=0": "strategies.1.load must be an integer of at least 1, or 'auto'; got 0",
    "task.shards=1": "task.shards must be at least fleet.clients = 4 for 'fedavg'; got 1",
    "fleet.model=gamma": "fleet.model must be one of log-normal, paper, pareto, shifted-exponential, trace; "
    "got 'gamma'",
    "fleet.preset=tablets": "fleet.preset must be one of accelerators, lambda, lognormal, paper, pareto, phones, "
    "sessions, uneven; got 'tablets'",
    "fleet.dropout=1.5": "fleet.dropout must lie in [0, 1]; got 1.5 for client 0",
    "fleet.speed=1": f"fleet.speed must be one of {FLEET_KEYS} in a shifted-exponential fleet; got 'speed', "
    "did you mean spread?",
    "fleet.clints=3": f"fleet.clints must be one of {FLEET_KEYS} in a shifted-exponential fleet; got 'clints', "
    "did you mean clients?",
    'fleet={preseet="phones"}': "fleet.model must be given, or preset in its place; got 'preseet', "
    "did you mean preset?",
    "tuning={seed=[101]}": "tuning.seed is not a known key, allowed are seeds, by, keys; got [101], "
    "did you mean seeds?",
    "fleet.clients=none": "fleet.clients must be an integer from 1 to 10000000; got 'none'",
    "fleet=3": "fleet must be a valid dictionary; got 3",
    "strategies.1.kind=fedsgd": f"strategies.1.kind must be one of gradient-coding, {', '.join(RIVALS)}, "
    "decentralised, block-coordinates; got 'fedsgd', did you mean fedavg?",
    "strategies.1.inner=fedadm": "strategies.1.inner must be one of fedadam, fedavg, fedavgm, fedyogi; got 'fedadm', "
    "did you mean fedadam?",
    "strategies.1.decoder=best": f"strategies.1.decoder must be one of auto, {', '.join(DECODERS)}; got 'best'",
    "strategies.1.label=FedAvg, waits for everyone": "strategies.1.label must differ from the other labels; got "
    "'FedAvg, waits for everyone' again",
    "strategies=[]": "strategies must have at least 1 item after validation, not 0; got []",
    "strategies.7.load=2": "--set strategies.7.load: position must be an integer from 0 to 1; got '7'",
    "rounds.x=2": "--set rounds.x: 'x' must be inside a table or a list; got 5",
    "seeds=[-1]": "seeds.0 must be greater than or equal to 0; got -1",
    "seeds=[1, 1]": "seeds must not name a seed twice; got [1, 1]",
    "target_accuracy=1.5": "target_accuracy must be less than or equal to 1; got 1.5",
    "task.learning_rate=1e300": "task.learning_rate must be less than or equal to 1000; got 1e+300",
    "fleet.clients=100000000000": "fleet.clients must be an integer from 1 to 10000000; got 100000000000",
    "target_accuracy=nan": "target_accuracy must be a finite number; got nan",
    "target_accuracy=true": "target_accuracy must be a valid number; got True",
    'target_accuracy="0.5"': "target_accuracy must be a valid number; got '0.5'",
    'name=""': "name must have at least 1 character; got ''",
    "task.hidden=99999999999999999999": "task.hidden must be less than or equal to 10000; got 99999999999999999999",
    "seeds=[99999999999999999999999]": "seeds.0 must be less than 4294967296; got 99999999999999999999999",
    "rounds=1\nfoo=2": "--set must name one key; got 'rounds=1\\nfoo=2'",
    "fleet.groups=3": "fleet.groups must be a list of tables; got 3",
    "rounds": "--set must be of the form key=value; got 'rounds'",
    "fleet..clients=2": "--set must be of the form key=value; got 'fleet..clients=2'",
    'sweep."task.alpha=[1.0]': "--set must be of the form key=value; got 'sweep.\"task.alpha=[1.0]'",
    'sweep."task.alfa"=[1.0]': "task.alfa is not a known key, allowed are name, shards, partition, alpha, hidden, "
    "local_epochs, batch_size, learning_rate; got 1.0, did you mean alpha? (at task.alfa=1.0)",
}


def test_a_key_that_is_swept_is_not_set_in_vain() -> None:
    config = SMALLEST.with_name("wallclock") / "fleets.toml"
    assert load_config(config, ['sweep."fleet.preset"=["phones"]']).sweep == {"fleet.preset": ["phones"]}
    with pytest.raises(ConfigError, match=r'^--set fleet.preset must not be swept; give sweep."fleet.preset" instead'):
        load_config(config, ["fleet.preset=phones"])


@pytest.mark.parametrize(("override", "message"), BAD.items())
def test_bad_values_name_key_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('sums="whole"', "sums must be left out for schedule 'full', where a client sends one sum of all its shards;"),
        ("redraw=true", "redraw must be left out for schedule 'full', where the order of a client's shards does not"),
    ],
)
def test_what_only_work_lists_heed_is_refused_on_the_full_schedule(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, [f"strategies.1.{change}"])
    assert str(caught.value).startswith(f"strategies.1.{message}")
    load_config(SMALLEST, [f"strategies.1.{change}", 'strategies.1.schedule="work-list"'])


@pytest.mark.parametrize("override", ["strategies.1.deadline=0", "fleet.model=gamma", "colour=1"])
def test_bad_values_end_with_one_line_exit_code_2_and_no_file(override: str, tmp_path: Path) -> None:
    done = fedgc("run", SMALLEST, "--set", override, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"fedgc: {BAD[override]}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (['schedule="work-list"', 'sums="whole"'], "sums must be 'shard' for secure_sum: the client adds them up; got"),
        (["memory=true"], "memory must be False for secure_sum, which leaves no single update to remember; got True"),
    ],
)
def test_what_a_secure_sum_cannot_do_is_told_before_the_run(more: list[str], message: str) -> None:
    changes = [f"strategies.1.{change}" for change in ("secure_sum=true", 'decoder="fixed"', *more)]
    with pytest.raises(ConfigError) as caught:
        load_config(SMALLEST, changes)
    assert str(caught.value).startswith(f"strategies.1.{message}")
    load_config(SMALLEST, changes[:2])


def test_unreadable_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config must be a readable file; got .*missing.toml' \(No such file"):
        load_config(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = = 3")
    with pytest.raises(ConfigError, match=r"config must be valid TOML; got"):
        load_config(broken)
    with pytest.raises(ConfigError, match=r"name must be given; got nothing"):
        check_config({})


def test_overrides_reach_tables_lists_and_new_keys() -> None:
    overrides = [
        "strategies.1.load=4",
        "fleet.mean=0.25",
        'strategies.1.decoder="fixed"',
        "name=Mine",
        "task.alpha=1.0",
    ]
    config = load_config(SMALLEST, overrides)
    assert config.strategies[1].load == 4  # type: ignore[union-attr]
    assert config.strategies[1].decoder == "fixed"  # type: ignore[union-attr]
    assert (config.fleet["mean"], config.name, config.task.alpha) == (0.25, "Mine", 1.0)


SHIPPED = [path for path in sorted(EXPERIMENTS.rglob("*.toml")) if path.name != "pyproject.toml"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_shipped_configs_are_valid(path: Path) -> None:
    load_config(path)
