"""A fleet's SuperLink is killed and started again; plain text stays possible; nothing is left when it goes down."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg

from tests.apps import N_SHARDS, steady, train
from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from fleet import CONNECTION, MARK  # isort: skip
from loopback_fleet import loopback_fleet  # isort: skip
from processes import is_listening, processes_with  # isort: skip

APP = Path(__file__).parent / "deployed_app"

pytestmark = [pytest.mark.alone, needs_proc]


def of_another_model(tmp_path: Path) -> Path:
    """A folder of checkpoints."""
    inner = FedAvg(fraction_evaluate=0.0)
    folder = tmp_path / "checkpoints"
    train(GradientCoding(inner, num_shards=N_SHARDS, deadline=10.0, checkpoints=folder), steady())
    return folder


def test_a_superlink_with_a_database_comes_back_and_knows_its_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback_fleet(1, tmp_path, secure=False, database=True) as fleet:
        # For flwr run --stream, a run that its ServerApp refuses is one like any other.
        config = f"out='{tmp_path}' store='' rounds=0 disturbed-rounds=1 checkpoints='{of_another_model(tmp_path)}'"
        done = fleet.run(APP, config, timeout=60.0)
        assert done.returncode == 1
        said = capsys.readouterr().err
        line = r"error: the run \d+ has failed \(.*the checkpoint must be of the same model; .*\); the logs are in .*\n"
        assert re.fullmatch(line, said), said

        node = fleet.node_id(0)
        pid = fleet.superlink.pid
        fleet.kill_superlink()
        assert not is_listening(fleet.port)
        assert not fleet.superlink.processes()
        assert fleet.nodes[0].pid is not None
        fleet.restart_superlink()
        assert fleet.superlink.pid not in (None, pid)
        # The node has been given no new id, and its SuperNode was not started again for it.
        assert str(node) in fleet.flwr("supernode", "list", CONNECTION, "--format", "json")
        assert fleet.node_id(0) == node
        assert fleet.nodes[0].starts == 1

        fleet.stop(0)  # it takes leave, so that the next start is not refused
        fleet.restart(0)
        fleet.wait_for_nodes(60.0)
        assert fleet.nodes[0].starts == 2
        mark = f"{MARK}={fleet.environment[MARK]}"
        assert processes_with(mark, "flower-supernode")
    assert not processes_with(mark)
    assert not is_listening(fleet.port)
    assert {"superlink.log", "supernode-0.log", "superlink.db"} <= {path.name for path in tmp_path.iterdir()}
