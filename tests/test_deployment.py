"""A fleet of eight SuperNodes with TLS and node authentication, of which some are killed and others cut off."""

from __future__ import annotations

import importlib
import json
import re
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
from bad_network import BadNetwork  # isort: skip
from commands import supernode_command  # isort: skip
from deployment_error import DeploymentError  # isort: skip
from fleet import MARK, LoopbackFleet  # isort: skip
from kills import KillEveryRound  # isort: skip
from loopback_fleet import loopback_fleet  # isort: skip
from node_keys import make_node_key  # isort: skip
from preflight import check_superlink  # isort: skip
from processes import free_ports, is_listening, processes_with, wait_until  # isort: skip
from unit import Unit  # isort: skip

APP = Path(__file__).parent / "deployed_app"
#: First a node is killed in each of some rounds, then others are cut off, and some rounds more end it.
N_NODES, KILLS, ROUNDS = 8, 3, 7
#: Nodes behind a network that is bad from the beginning, worse later, and then cut for so many deadlines.
BEHIND, CUT = (5, 6, 7), 1.5
BAD, WORSE = BadNetwork(delay=0.02, loss=0.02), BadNetwork(delay=0.05, loss=0.05, broken=0.002)
#: What the app says before the disturbed part.
BEGIN = "clients may be killed"
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
        config = {
            "out": str(out),
            "store": "",
            "deadline": 0.0,
            "checkpoints": "",
            "rounds": 2,
            "disturbed-rounds": ROUNDS,
            "killed": "",
        }
        run_virtual(server.app, client.app, steady(N_NODES), run_config=config)
    finally:
        sys.path.remove(str(APP))
        for name in [name for name in sys.modules if name.split(".")[0] == "deployed_app"]:
            del sys.modules[name]
    return json.loads((out / "told.json").read_text())


class Disturbance:
    """Kills, and then a cut, as the run's output tells that it is time for them."""

    def __init__(self, fleet: LoopbackFleet, victims: list[int], seconds: list[float]) -> None:
        self.kills = KillEveryRound(fleet, victims, seconds, begin=BEGIN)
        self.fleet, self.deadline, self.begun = fleet, 0.0, False

    def __call__(self, line: str) -> None:
        assert self.fleet.link is not None
        self.kills(line)
        if BEGIN in line:
            self.begun, self.fleet.link.network = True, WORSE
        if found := re.search(r"Deadline: ([0-9.]+) s", line):
            self.deadline = float(found[1])
        if self.begun and f"[ROUND {KILLS + 1}/" in line:
            self.fleet.link.cut(CUT * self.deadline)


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
    victims = rng.permutation(N_NODES - len(BEHIND))[:KILLS].tolist()
    # Each attempt to come back takes seconds of the processors that the others work with.
    with loopback_fleet(N_NODES, folder / "logs", restart_seconds=20.0, network=BAD, behind=BEHIND) as fleet:
        ids = [fleet.node_id(node) for node in range(N_NODES)]
        unregistered, plain = strangers(fleet, folder)
        unregistered.start()
        plain.start()
        disturbance = Disturbance(fleet, victims, rng.uniform(0.5, 4.0, KILLS).tolist())
        config = f"out='{out}' store='{folder / 'stores'}' rounds=2 disturbed-rounds={ROUNDS}"
        config += f" killed='{' '.join(map(str, victims))}'"
        done = fleet.run(APP, config, timeout=400.0, on_line=disturbance)
        assert done.returncode == 0, done.stdout
        assert (out / "told.json").exists(), done.stdout
        told = json.loads((out / "told.json").read_text())
        yield Deployed(fleet, out, told, virtual, virtual_out, ids, victims, unregistered, plain)
        plain.stop()
    assert not processes_with(f"{MARK}={fleet.environment[MARK]}")
    assert not is_listening(fleet.port)


def test_pushed_shards_give_the_embedded_runtimes_model_bit_for_bit(deployed: Deployed) -> None:
    """Eight nodes with TLS and keys, shards from the server, three behind a bad network: as without any of it."""
    here, there = np.load(deployed.out / "undisturbed.npz"), np.load(deployed.virtual_out / "undisturbed.npz")
    assert deployed.told["nodes"] == sorted(deployed.ids)
    assert deployed.told["pushed"] >= 16  # every shard, to each of its holders
    assert [sum(one["arrived"]) for one in deployed.told["undisturbed"]] == [N_NODES] * 2
    for name, value in here.items():
        assert value.tobytes() == there[name].tobytes(), name
    assert deployed.told["accuracy"][0] == deployed.virtual["accuracy"][0] > 0.85


def test_no_round_fails_when_nodes_are_killed_or_cut_off(deployed: Deployed) -> None:
    rounds = deployed.told["disturbed"]
    assert len(rounds) == ROUNDS
    for one in rounds:
        assert one["seconds"] <= one["deadline"] + OVERSHOOT, one
        assert any(one["arrived"]), one
        assert all("Node Unavailable" in reason for reason in one["rejected"].values()), one
    came = [{node for node, here in zip(one["nodes"], one["arrived"], strict=True) if here} for one in rounds]
    for victim, here in zip(deployed.victims, came, strict=False):
        assert deployed.ids[victim] not in here
    behind = {deployed.ids[node] for node in BEHIND}
    assert not behind & came[KILLS]
    assert behind & came[KILLS - 1], "they came until they were cut off"
    # The first round of theirs may begin in the middle of a deadline, with a process to start: its reply is late then.
    assert behind & (came[-2] | came[-1]), "and come again"
    assert deployed.told["accuracy"][1] == pytest.approx(deployed.virtual["accuracy"][1], abs=0.02)


def test_the_posterior_shows_who_was_killed_or_cut_off(deployed: Deployed) -> None:
    prob = {int(node): value for node, value in deployed.told["straggle_prob"].items()}
    disturbed = {deployed.ids[node] for node in (*deployed.victims, *BEHIND)}
    assert min(prob[node] for node in disturbed) > max(prob[node] for node in set(deployed.ids) - disturbed), prob


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
