"""The units of systemd/ do what they say: their commands are run here with this machine's paths, without systemd."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flower_runtime import needs_proc

# On the path since tests.flower_runtime was imported.
from certificates import make_certificates  # isort: skip
from node_keys import make_node_key  # isort: skip
from processes import end_all, free_ports, is_listening, wait_until  # isort: skip
from unit import RESTART_SECONDS, Unit  # isort: skip

UNITS = Path(__file__).parents[1] / "experiments" / "deployment" / "systemd"
INSTALLED = "/opt/fedgc/.venv/bin"
pytestmark = needs_proc


@dataclass(frozen=True)
class UnitFile:
    """What a unit file says, with this machine's paths in it."""

    options: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, replaced: dict[str, str]) -> UnitFile:
        text = (UNITS / f"{name}.service").read_text()
        for there, here in replaced.items():
            assert there in text, there
            text = text.replace(there, here)
        options: dict[str, list[str]] = {}
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            if "=" in line and not line.startswith("#"):
                name, value = line.split("=", 1)
                options.setdefault(name, []).append(value)
        return cls(options)

    def environment(self) -> dict[str, str]:
        pairs = [pair for line in self.options["Environment"] for pair in line.split()]
        pairs += [line for file in self.options.get("EnvironmentFile", []) for line in Path(file).read_text().split()]
        return dict(pair.split("=", 1) for pair in pairs)

    def command(self, option: str) -> list[str]:
        known = self.environment()
        return [
            re.sub(r"\$\{(\w+)\}", lambda name: known[name[1]], word) for word in shlex.split(*self.options[option])
        ]


@pytest.fixture
def units(tmp_path: Path) -> Iterator[tuple[UnitFile, UnitFile, int]]:
    """Both units, files where they name them, and the port that the node calls."""
    link_port, node_port = free_ports(2)
    etc, var = tmp_path / "etc", tmp_path / "var"
    make_certificates(etc, ["superlink.example.org"])  # and the names of this machine, which its own helper calls it by
    make_node_key(etc, "node")
    var.mkdir()
    (etc / "supernode.env").write_text(f"SUPERLINK=localhost:{link_port}\nPARTITION=1\nPARTITIONS=2\n")
    (var / "config.toml").write_text(
        f'[superlink.fleet]\naddress = "localhost:{link_port}"\nroot-certificates = "{etc / "ca.crt"}"\n'
    )
    here = {
        "/opt/fedgc/experiments/deployment": str(UNITS.parent),
        INSTALLED: str(Path(sys.executable).parent),
        "/etc/flower": str(etc),
        "/var/lib/flower": str(var),
    }
    yield (
        UnitFile.read("flower-superlink", {**here, "--port 9092": f"--port {link_port}"}),
        UnitFile.read("flower-supernode", {**here, "--port 9094": f"--port {node_port}"}),
        link_port,
    )
    end_all(f"FLWR_HOME={var}")


def test_a_node_waits_for_its_superlink(units: tuple[UnitFile, UnitFile, int], tmp_path: Path) -> None:
    superlink, supernode, port = units
    before = subprocess.run(supernode.command("ExecStartPre"), capture_output=True, text=True, check=False)
    assert before.returncode != 0
    assert before.stderr == f"error: nothing listens at localhost:{port}: start the SuperLink, or check --superlink\n"

    assert subprocess.run(superlink.command("ExecStartPre"), check=False).returncode == 0
    environment = {**os.environ, **superlink.environment()}
    link = Unit("superlink", superlink.command("ExecStart"), log=tmp_path / "superlink.log", environment=environment)
    link.start()
    assert wait_until(lambda: is_listening(port), 60.0), link.log.read_text()
    key = tmp_path / "etc" / "node.pub"
    register = ["flwr", "supernode", "register", key, "fleet"]
    assert subprocess.run(register, env=environment, capture_output=True, check=False).returncode == 0

    assert subprocess.run(supernode.command("ExecStartPre"), check=False).returncode == 0
    environment = {**os.environ, **supernode.environment()}
    node = Unit("supernode", supernode.command("ExecStart"), log=tmp_path / "supernode.log", environment=environment)
    node.start()
    assert wait_until(lambda: "SuperNode ID" in node.log.read_text(), 60.0), node.log.read_text()
    assert node.command[-1] == "partition-id=1 num-partitions=2"
    node.stop()
    link.stop()
    assert (tmp_path / "var" / "superlink.db").exists()


@pytest.mark.parametrize("name", ["flower-superlink", "flower-supernode"])
def test_units_start_again_for_ever(name: str) -> None:
    options = UnitFile.read(name, {}).options
    assert options["Restart"] == ["always"]
    assert options["StartLimitIntervalSec"] == ["0"]
    assert options["RestartSec"] == [f"{RESTART_SECONDS:g}"]
    assert options["KillMode"] == ["control-group"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["flower-superlink", "flower-supernode"])
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    text = (UNITS / f"{name}.service").read_text().replace(INSTALLED, str(Path(sys.executable).parent))
    (tmp_path / f"{name}.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / f"{name}.service"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr, done.stderr
