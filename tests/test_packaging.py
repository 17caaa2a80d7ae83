"""What a user gets: one namespace, light imports, every package in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"fedgc": "fedgc", "fedgc.strategies": "strategies", "fedgc.clients": "clients"}


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_fedgc_loads_neither_flower_nor_torch() -> None:
    heavy = "{'flwr', 'torch', 'ray', 'matplotlib', 'sklearn', 'cvxpy', 'pydantic', 'typer'}"
    assert in_a_fresh_process(f"import fedgc, sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_a_clients_process_does_not_wait_for_what_only_servers_need() -> None:
    """On a SuperNode each message starts one."""
    heavy = "{'torch', 'ray', 'sklearn', 'cvxpy', 'pydantic', 'scipy.stats', 'scipy.optimize', 'fedgc.strategies'}"
    assert in_a_fresh_process(f"import fedgc.clients, sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_help_loads_neither_flower_nor_torch() -> None:
    code = "import fedgc.cli, sys; print(sorted({'flwr', 'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]"


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == FOLDERS
    found = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    assert set(settings["packages"]) == found


@pytest.mark.parametrize("name", ["strategies", "clients"])
def test_there_is_no_second_namespace(name: str, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print(u.find_spec('{name}'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "None"
    assert in_a_fresh_process(f"import fedgc.{name} as m; print(m.__name__)") == f"fedgc.{name}"


def test_dependencies_point_down_only() -> None:
    """The round's mathematics know no Flower; strategies and clients do not know each other."""
    for path in (ROOT / "fedgc").glob("*.py"):
        assert "flwr" not in _imports(path), path
    with_flower = {"records", "simulation", "experiment", "tasks"}
    families = {path.parent.name for path in (ROOT / "fedgc").glob("*/__init__.py")} - with_flower
    assert len(families) > 10
    for family in families:
        for path in (ROOT / "fedgc" / family).glob("*.py"):
            assert not {"flwr", "fedgc.strategies", "fedgc.clients"} & _imports(path), path
            # Above the round, as strategies are, is what replays it.
            assert family in {"round", "replay"} or "fedgc.round" not in _imports(path), path
    for here, there in (("strategies", "fedgc.clients"), ("clients", "fedgc.strategies")):
        for path in (ROOT / here).rglob("*.py"):
            assert not any(name.startswith(there) for name in _imports(path)), path


def _imports(path: Path) -> set[str]:

    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names | {name.split(".")[0] for name in names}
