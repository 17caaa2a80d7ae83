"""Every script that README names still fits the package: it is loaded, as its command would."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for pattern in ("*.py", "*/*.py", "benchmarks/*/*.py") for path in (ROOT / "experiments").glob(pattern)
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_load(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if script.name.startswith("pfl_"):
        pytest.importorskip("pfl")  # of the extra `peers`
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    assert runpy.run_path(str(script), run_name="loaded")["__doc__"]


def test_all_scripts_that_the_readme_runs_are_among_them() -> None:
    guides = (ROOT / "README.md", *(ROOT / "experiments").glob("*/README.md"))
    named = {word for guide in guides for word in guide.read_text().split() if word.startswith("experiments/")}
    scripts = {word.strip("`,.;:") for word in named if ".py" in word}
    assert scripts
    assert scripts <= {str(path.relative_to(ROOT)) for path in SCRIPTS}


def regenerate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regenerate", ROOT / "experiments" / "regenerate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_configuration_is_run_by_its_name() -> None:
    folders = [ROOT / "experiments" / name for name in ("paper", "wallclock", "neighbours")]
    found = {f"{path.parent.name}/{path.stem}" for folder in folders for path in folder.glob("*.toml")}
    # The smoke tests are run by an option; GOCO's is an example beside a script that chooses along a longer grid.
    assert found - {"paper/smoke", "wallclock/smoke"} <= set(regenerate().EXPERIMENTS)


@pytest.mark.parametrize("drawn", [True, False])
def test_what_a_sweep_keeps(drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = regenerate()
    monkeypatch.setattr(module, "HERE", tmp_path / "experiments")

    def run(*arguments: str | Path) -> None:
        if arguments[2] == "run":
            record_every = 1 if Path(arguments[3]).stem == "ablations" else 10
            Path(arguments[5]).mkdir(parents=True)
            (Path(arguments[5]) / "config.json").write_text(json.dumps({"config": {"record_every": record_every}}))
        else:
            folder = Path(arguments[3]) / "report"
            folder.mkdir(parents=True)
            names = ["tables.md", "table.csv", "seeds.csv", "seconds-to-target.png", "loss-by-seconds.png"]
            for name in [*names, *(["calibration.png"] if drawn else []), "report.html"]:
                (folder / name).write_text(name)

    monkeypatch.setattr(module, "run", run)
    module.EXPERIMENTS["wallclock/fleets"](tmp_path / "a")
    module.EXPERIMENTS["wallclock/ablations"](tmp_path / "b")
    kept = {path.name for path in (tmp_path / "experiments" / "wallclock" / "results").iterdir()}
    usual = {"tables.md", "table.csv", "seeds.csv", "seconds-to-target.png"}
    assert kept == {f"{name}-{file}" for name in ("fleets", "ablations") for file in usual} | {
        "ablations-loss-by-seconds.png"  # of each tenth round there are only straight lines
    } | ({"fleets-calibration.png"} if drawn else set())
