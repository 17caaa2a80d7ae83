"""Every script that README names still fits the package: it is loaded, as its command would."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

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
