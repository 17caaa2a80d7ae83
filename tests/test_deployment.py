"""A fleet of eight SuperNodes on Flower's own SuperLink, with TLS and node authentication, whose nodes are killed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.simulation import run_virtual
from tests.apps import steady
from tests.flower_runtime import DEPLOYMENT, needs_proc

from fleet import LoopbackFleet  # noqa: I001  (on the path since tests.flower_runtime was imported)
from loopback_fleet import loopback_fleet, supernode_command
from node_keys import make_node_key
from processes import free_ports, processes_with, is_listening

APP = Path(__file__).parent / "deployed_app"
N_NODES, KILLS = 8, 3
#: Seconds by which a round may end after its deadline.
OVERSHOOT = 0.5

pytestmark = needs_proc


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


class Killer:
    """Kills a node in each round of the disturbed part, at some instant, and has it started again at once."""

    def __init__(self, fleet: LoopbackFleet, victims: list[int], seconds: list[float]) -> None:
        self.fleet = fleet
        self.left = list(zip(victims, seconds, strict=True))
        self.timers: list[threading.Timer] = []
        self.begun = False

    def __call__(self, line: str) -> None:
        self.begun = self.begun or "From here on clients may be killed" in line
        if self.begun and "[ROUND" in line and self.left:
            victim, after = self.left.pop(0)
            self.timers.append(threading.Timer(after, self.kill, [victim]))
            self.timers[-1].start()

    def kill(self, victim: int) -> None:
        self.fleet.kill(victim)
        self.fleet.restart(victim)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("fleet")
    out, virtual_out = folder / "out", folder / "virtual"
    out.mkdir()
    virtual = in_virtual_time(virtual_out)
    rng = np.random.default_rng(11)
    victims = rng.permutation(N_NODES)[:KILLS].tolist()
    with loopback_fleet(N_NODES, folder / "logs") as fleet:
        ids = [fleet.node_id(node) for node in range(N_NODES)]
        killer = Killer(fleet, victims, rng.uniform(0.5, 4.0, KILLS).tolist())
        config = f"out='{out}' store='{folder / 'stores'}' rounds=2 disturbed-rounds={KILLS}"
        done = fleet.run(APP, config, timeout=400.0, on_line=killer)
        assert done.returncode == 0, done.stdout
        assert (out / "told.json").exists(), done.stdout
        told = json.loads((out / "told.json").read_text())
        yield Deployed(fleet, out, told, virtual, virtual_out, ids, victims)
    assert not processes_with(f"FEDGC_LOOPBACK_FLEET={fleet.environment['FEDGC_LOOPBACK_FLEET']}")
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
    for number, one in enumerate(rounds):
        gone = {deployed.ids[victim] for victim in deployed.victims[: number + 1]}
        came = {node for node, arrived in zip(one["nodes"], one["arrived"], strict=True) if arrived}
        assert came
        assert one["seconds"] <= one["deadline"] + OVERSHOOT, one
        assert deployed.ids[deployed.victims[number]] in gone
    assert deployed.told["accuracy"][1] == pytest.approx(deployed.virtual["accuracy"][1], abs=0.02)


def test_the_posterior_shows_who_was_killed(deployed: Deployed) -> None:
    prob = {int(node): value for node, value in deployed.told["straggle_prob"].items()}
    killed = {deployed.ids[victim] for victim in deployed.victims}
    assert min(prob[node] for node in killed) > max(prob[node] for node in set(deployed.ids) - killed), prob
