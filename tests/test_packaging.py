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
    # flwr.serverapp is not among them: Flower loads it with whatever else is imported of it.
    heavy = "{'torch', 'ray', 'sklearn', 'cvxpy', 'pydantic', 'scipy.stats', 'scipy.optimize', *ours}"
    ours = "{'fedgc.strategies', 'fedgc.simulation', 'fedgc.fleets'}"
    code = f"import fedgc.clients, sys; ours = {ours}; print(sorted({heavy} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]"


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


#: Flower, what is built on it, and the round as a whole: other packages import none of it, but for those below.
UPPER = (
    "flwr",
    "fedgc.round",
    "fedgc.simulation",
    "fedgc.clients",
    "fedgc.strategies",
    "fedgc.tasks",
    "fedgc.experiment",
)
#: What each package may import of it beside itself.
ALLOWED = {
    "fedgc.records": {"flwr"},
    "fedgc.simulation": {"flwr"},
    # What replays rounds is above them, as strategies are, and trains the tasks.
    "fedgc.replay": {"fedgc.round", "fedgc.tasks"},
    # A task is what a client does with a shard.
    "fedgc.tasks": {"flwr", "fedgc.clients"},
    "fedgc.clients": {"flwr", "fedgc.simulation"},
    "fedgc.strategies": {"flwr", "fedgc.round", "fedgc.simulation"},
    "fedgc.experiment": set(UPPER) - {"fedgc.experiment"},
    "fedgc.report": {"fedgc.experiment"},
    "fedgc.commands": {"fedgc.experiment"},
}


def test_dependencies_point_down_only() -> None:
    """The round's mathematics know no Flower; strategies and clients do not know each other."""
    used: dict[str, set[str]] = {}
    for start, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            package = f"{start}.{parts[0]}" if start == "fedgc" and parts else start
            names = _imports(path)
            above = {upper for upper in UPPER if any(_is_within(name, upper) for name in names)} - {package}
            assert above <= ALLOWED.get(package, set()), path
            used.setdefault(package, set()).update(above)
    assert len(used) >= 30
    # What is no longer imported is no longer allowed.
    assert {package: above for package, above in used.items() if above} == ALLOWED


def test_nothing_below_flower_loads_it() -> None:
    """Whatever it is that imports it: what one imports may import others."""
    above = {*UPPER, "fedgc.records", "fedgc.replay", "fedgc.report"} - {"fedgc.round"}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    names = [name for name in packages if not any(_is_within(name, upper) for upper in above)]
    modules = [
        f"{name}.{path.stem}"
        for name in names
        for path in (ROOT / name.replace(".", "/")).glob("*.py")
        if not path.stem.startswith("__")
    ]
    assert {"fedgc.play.rounds", "fedgc.planning.recorded", "fedgc.round.before.plan"} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print(sorted({{'flwr', 'torch', 'ray'}} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]"


def test_what_a_module_imports_is_seen_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "import a.b as c\nfrom fedgc import clients\ndef f():\n    from flwr.app import Array\n"
    )
    names = _imports(tmp_path / "module.py")
    assert {"a.b", "fedgc.clients", "flwr.app"} <= names
    assert _is_within("flwr.app", "flwr") and _is_within("fedgc.round", "fedgc.round")
    assert not _is_within("fedgc.rounding", "fedgc.round")


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere; of ``from a import b``, a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, path
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
