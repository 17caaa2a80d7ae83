"""A fleet of eight SuperNodes on Flower's own SuperLink, with TLS and node authentication, whose nodes are killed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.simulation import run_virtual
from tests.apps import steady
from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from deployment_error import DeploymentError  # isort: skip
from fleet import MARK, LoopbackFleet  # isort: skip
from kills import KillEveryRound  # isort: skip
from loopback_fleet import loopback_fleet, supernode_command  # isort: skip
from node_keys import make_node_key  # isort: skip
from preflight import check_superlink  # isort: skip
from processes import free_ports, is_listening, processes_with, wait_until  # isort: skip
from unit import Unit  # isort: skip

APP = Path(__file__).parent / "deployed_app"
N_NODES, KILLS = 8, 3
#: Seconds by which a round may end after its deadline.
OVERSHOOT = 0.5

pytestmark = [pytest.mark.alone, needs_proc]


@dataclass(frozen=True)
class Deployed:
    """The fleet after the app's run, and what the run left."""

    fleet: LoopbackFleet
    out: Path
    told: dict[str, Any]
    virtual: dict[str, Any]
    virtual_out: Path
    ids: list[int]
    victims: list[int]
    unregistered: Unit
    plain: Unit


def in_virtual_time(out: Path) -> dict[str, Any]:
    """The same app in the embedded runtime: nobody is killed, and shards come from the clients' own source."""
    out.mkdir()
    sys.path.insert(0, str(APP))
    try:
        server, client = (importlib.import_module(f"deployed_app.{side}_app") for side in ("server", "client"))
        config = {"out": str(out), "store": "", "rounds": 2, "disturbed-rounds": KILLS}
        run_virtual(server.app, client.app, steady(N_NODES), run_config=config)
    finally:
        sys.path.remove(str(APP))
        for name in [name for name in sys.modules if name.split(".")[0] == "deployed_app"]:
            del sys.modules[name]
    return json.loads((out / "told.json").read_text())


def strangers(fleet: LoopbackFleet, folder: Path) -> list[Unit]:
    """A node whose key is not registered, and one that talks plain text."""
    key, ports = make_node_key(folder / "stranger", "stranger"), free_ports(2)
    commands = {
        "unregistered": supernode_command(fleet.port, ports[0], "partition-id=0", files=fleet.certificates, key=key),
        "plain": supernode_command(fleet.port, ports[1], "partition-id=0", files=None, key=None),
    }
    return [
        Unit(name, command, log=fleet.logs / f"{name}.log", environment=fleet.environment, restart_seconds=None)
        for name, command in commands.items()
    ]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("fleet")
    out, virtual_out = folder / "out", folder / "virtual"
    out.mkdir()
    virtual = in_virtual_time(virtual_out)
    rng = np.random.default_rng(11)
    victims = rng.permutation(N_NODES)[:KILLS].tolist()
    # Each attempt to come back takes seconds of the processors that the others work with.
    with loopback_fleet(N_NODES, folder / "logs", restart_seconds=20.0) as fleet:
        ids = [fleet.node_id(node) for node in range(N_NODES)]
        unregistered, plain = strangers(fleet, folder)
        unregistered.start()
        plain.start()
        killer = KillEveryRound(fleet, victims, rng.uniform(0.5, 4.0, KILLS).tolist(), begin="clients may be killed")
        config = f"out='{out}' store='{folder / 'stores'}' rounds=2 disturbed-rounds={KILLS}"
        done = fleet.run(APP, config, timeout=400.0, on_line=killer)
        assert done.returncode == 0, done.stdout
        assert (out / "told.json").exists(), done.stdout
        told = json.loads((out / "told.json").read_text())
        yield Deployed(fleet, out, told, virtual, virtual_out, ids, victims, unregistered, plain)
        plain.stop()
    assert not processes_with(f"{MARK}={fleet.environment[MARK]}")
    assert not is_listening(fleet.port)


def test_pushed_shards_give_the_embedded_runtimes_model_bit_for_bit(deployed: Deployed) -> None:
    """Eight nodes with TLS and keys, shards from the server: as without any network and with shards at hand."""
    here, there = np.load(deployed.out / "undisturbed.npz"), np.load(deployed.virtual_out / "undisturbed.npz")
    assert deployed.told["nodes"] == sorted(deployed.ids)
    assert deployed.told["pushed"] >= 16  # every shard, to each of its holders
    assert [sum(one["arrived"]) for one in deployed.told["undisturbed"]] == [N_NODES] * 2
    for name, value in here.items():
        assert value.tobytes() == there[name].tobytes(), name
    assert deployed.told["accuracy"][0] == deployed.virtual["accuracy"][0] > 0.85


def test_no_round_fails_when_nodes_are_killed(deployed: Deployed) -> None:
    rounds = deployed.told["disturbed"]
    assert len(rounds) == KILLS
    for victim, one in zip(deployed.victims, rounds, strict=True):
        assert one["seconds"] <= one["deadline"] + OVERSHOOT, one
        assert any(one["arrived"]), one
        assert not dict(zip(one["nodes"], one["arrived"], strict=True)).get(deployed.ids[victim]), one
        assert all("Node Unavailable" in reason for reason in one["rejected"].values()), one
    assert deployed.told["accuracy"][1] == pytest.approx(deployed.virtual["accuracy"][1], abs=0.02)


def test_the_posterior_shows_who_was_killed(deployed: Deployed) -> None:
    prob = {int(node): value for node, value in deployed.told["straggle_prob"].items()}
    killed = {deployed.ids[victim] for victim in deployed.victims}
    assert min(prob[node] for node in killed) > max(prob[node] for node in set(deployed.ids) - killed), prob


def test_an_unregistered_node_is_refused(deployed: Deployed) -> None:
    unit = deployed.unregistered
    assert wait_until(lambda: unit.exit_code is not None, 30.0)
    assert unit.exit_code != 0
    log = unit.log.read_text()
    assert "Failed to activate SuperNode" in log
    assert "SuperNode ID" not in log


def test_a_plain_text_node_is_refused(deployed: Deployed) -> None:
    unit, fleet = deployed.plain, deployed.fleet
    log = unit.log.read_text()
    assert "Connection attempt failed" in log
    assert "SuperNode ID" not in log
    with pytest.raises(DeploymentError, match="it may expect TLS: give --root-certificates"):
        check_superlink(f"127.0.0.1:{fleet.port}", None, insecure=True)


def test_no_others_took_part(deployed: Deployed) -> None:
    for one in deployed.told["undisturbed"] + deployed.told["disturbed"]:
        assert set(one["nodes"]) <= set(deployed.ids)
    known = deployed.fleet.flwr("supernode", "list", "loopback", "--format", "json")
    assert {int(node["node-id"]) for node in json.loads(known)["nodes"]} == set(deployed.ids)


def test_killed_nodes_come_back_as_who_they_were(deployed: Deployed) -> None:
    """After a minute at most, in which the SuperLink takes them for alive and refuses them; the unit tries again."""
    deployed.fleet.wait_for_nodes(100.0)
    assert [deployed.fleet.node_id(node) for node in range(N_NODES)] == deployed.ids
    assert min(deployed.fleet.nodes[victim].starts for victim in deployed.victims) > 1
    assert deployed.fleet.nodes[next(iter(set(range(N_NODES)) - set(deployed.victims)))].starts == 1
