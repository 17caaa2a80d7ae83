"""The way to the target of every strategy under every condition, each at the choices that are best for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedgc.experiment.target import Target
from fedgc.experiment.tuning import rank
from fedgc.report.read import Results, Run
from fedgc.report.unit import Unit

#: Keys of a sweep that a method is tuned by, as it is by its grid, where the configuration does not say: all others are
#: conditions that it is given.
TUNED = ("task.learning_rate",)


@dataclass(frozen=True, eq=False)
class Entry:
    """One strategy under one condition, at its best choice.

    Attributes
    ----------
    strategy : str
        Its label.
    condition : mapping of str to str
        What it is given.
    choice : mapping of str to str
        What is best for it: what its grid and the tuned keys are set to.
    n_choices : int
        Number of choices that were tried, on these seeds or on those of a tuning before.
    runs : tuple of Run
        The runs at that choice, one for each seed.
    reached : ndarray, shape (n_seeds,)
        Rounds or virtual seconds to the target of each run, infinite where it was never reached.
    mean, half_width : float
        Its mean over the seeds and half the width of the 95 % confidence interval (Student's t); infinite and NaN if a
        seed did not reach the target; NaN too with a single seed.
    """

    strategy: str
    condition: Mapping[str, str]
    choice: Mapping[str, str]
    n_choices: int
    runs: tuple[Run, ...]
    reached: NDArray[np.float64]
    mean: float
    half_width: float

    @property
    def n_reached(self) -> int:
        """Number of seeds that reached the target."""
        return int(np.isfinite(self.reached).sum())


def entries(results: Results, tuned: Collection[str] | None = None, *, unit: Unit = "seconds") -> list[Entry]:
    """Return an entry for each strategy and condition, ordered by condition.

    The best choice has the most seeds at the target, then the least mean rounds or seconds to it, then the best final
    accuracy or loss. Without tuning before, it is chosen on the seeds that it is reported for, for every strategy
    alike, so that all are a little flattered, those with more choices more.

    Parameters
    ----------
    results : Results
        An experiment's.
    tuned : collection of str, optional
        Swept keys that strategies may choose; by default those of the experiment's tuning, or :data:`TUNED`.
    unit : str
        What the way to the target is counted in.
    """
    if tuned is None:
        tuned = (results.config.get("tuning") or {}).get("keys", TUNED)
    groups: dict[tuple[tuple[tuple[str, str], ...], str], dict[tuple[tuple[str, str], ...], list[Run]]] = {}
    for run in results.runs:
        condition = tuple((key, value) for key, value in run.settings.items() if key not in tuned)
        given = {**run.settings, **run.choice}.items()
        choice = tuple(pair for pair in given if pair not in condition)
        groups.setdefault((condition, run.strategy), {}).setdefault(choice, []).append(run)
    conditions = list(dict.fromkeys(condition for condition, _ in groups))
    found = []
    for condition in conditions:
        for (own, strategy), choices in groups.items():
            if own == condition:
                best = min(choices, key=lambda choice: _badness(choices[choice], results.target, unit))
                runs = tuple(choices[best])
                reached = np.array([run.first(results.target, unit) for run in runs])
                mean, half = mean_and_half_width(reached)
                tried = _tried(results, strategy, tuned)
                found.append(Entry(strategy, dict(condition), dict(best), tried, runs, reached, mean, half))
    return found


def _tried(results: Results, strategy: str, tuned: Collection[str]) -> int:
    """Return how many choices a strategy had, measured or not."""
    grids = {one["label"]: one.get("grid", {}) for one in results.config["strategies"]}
    swept = [values for key, values in results.config.get("sweep", {}).items() if key in tuned]
    return math.prod(len(values) for values in (*grids.get(strategy, {}).values(), *swept))


def _badness(runs: Sequence[Run], target: Target, unit: Unit) -> tuple[int, float, float]:
    ends = [-run.accuracy[-1] if target.quantity == "accuracy" else run.loss[-1] for run in runs]
    return rank([run.first(target, unit) for run in runs], [float(end) for end in ends])


def mean_and_half_width(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return a mean and half the width of its 95 % confidence interval by Student's t.

    Examples
    --------
    >>> mean, half = mean_and_half_width(np.array([1.0, 2.0, 3.0]))
    >>> mean, round(half, 3)
    (2.0, 2.484)
    >>> mean_and_half_width(np.array([1.0, np.inf])), mean_and_half_width(np.array([4.0]))
    ((inf, nan), (4.0, nan))
    """
    if not np.isfinite(values).all():
        return np.inf, np.nan
    if values.size == 1:
        return float(values[0]), np.nan
    quantile = float(stats.t.ppf(0.975, values.size - 1))
    return float(values.mean()), quantile * float(values.std(ddof=1)) / float(np.sqrt(values.size))


def best_of(some: Sequence[Entry]) -> Entry | None:
    """Return the entry that reaches the target soonest, None if none does with every seed."""
    reaching = [entry for entry in some if np.isfinite(entry.mean)]
    return min(reaching, key=lambda entry: entry.mean) if reaching else None


def interval_text(mean: float, half_width: float) -> str:
    """Return a mean and its 95 % interval, to two significant digits of the latter.

    Examples
    --------
    >>> interval_text(123.4, 56.0), interval_text(2.3456, 0.123), interval_text(23.0, np.nan), interval_text(1.0, 0.0)
    ('123 ± 56', '2.35 ± 0.12', '23', '1 ± 0')
    """
    if np.isnan(half_width):
        return f"{mean:.0f}" if mean >= 100.0 else f"{mean:.3g}"
    if half_width == 0.0:
        return f"{mean:.6g} ± 0"
    digits = max(0, 1 - int(np.floor(np.log10(half_width))))
    return f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def entry_text(entry: Entry) -> str:
    """Return an entry's way to the target as text.

    Examples
    --------
    >>> entry_text(Entry("a", {}, {}, 1, (), np.array([120.0, 126.8]), 123.4, 43.2))
    '123 ± 43'
    >>> entry_text(Entry("a", {}, {}, 1, (), np.array([3.0, np.inf, np.inf]), np.inf, np.nan))
    'never (2 of 3 seeds)'
    """
    return interval_text(entry.mean, entry.half_width) if np.isfinite(entry.mean) else never_text(entry.reached)


def never_text(reached: NDArray[np.float64]) -> str:
    """Return how many seeds never reached the target."""
    return f"never ({int((~np.isfinite(reached)).sum())} of {reached.size} seeds)"
