"""The experiments beside the base paper's: what their tables say of runs that do not reach the target."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ADAM = Path(__file__).parents[1] / "experiments" / "paper" / "adam.py"


class Losses:
    """A task whose losses are given, whatever the step."""

    def __init__(self, *losses: float) -> None:
        self.losses = iter(losses)

    def initial_weights(self) -> Any:
        return np.zeros(2, dtype=np.float32)

    def weighted_gradients(self, weights: Any, coverages: Any) -> Any:
        return next(self.losses), np.ones((2, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("losses", "rounds"), [((2.0, 1.0, 0.05, 0.01), 2.0), ((2.0, 1.0, 0.5, 0.2), np.inf), ((2.0, np.inf), np.nan)]
)
def test_runs_that_diverge_are_told_from_those_that_never_get_there(losses: tuple[float, ...], rounds: float) -> None:
    module = runpy.run_path(str(ADAM), run_name="loaded")
    coverages = np.ones((4, 3), dtype=np.float32)
    np.testing.assert_equal(module["rounds_to_target"](Losses(*losses), coverages, coverages, 0.1), rounds)


def test_the_table_says_how_many_seeds_did_not_get_there() -> None:
    told = runpy.run_path(str(ADAM), run_name="loaded")["told"]
    (example,) = doctest.DocTestFinder(recurse=False).find(told, "told", globs={"told": told, "np": np})
    assert doctest.DocTestRunner().run(example).failed == 0
    assert told(np.array([np.nan, np.nan])) == ("diverged (2 of 2 seeds)", "")
