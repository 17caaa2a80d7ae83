"""Time to target of every strategy under every condition, each at the choices that are best for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedgc.report.read import Results, Run

#: Keys of a sweep that a method is tuned by, as it is by its grid; all others are conditions that it is given.
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
        Number of choices that were tried.
    runs : tuple of Run
        The runs at that choice, one for each seed.
    mean, half_width : float
        Mean seconds to the target over the seeds and half the width of its 95 % confidence interval (Student's t);
        infinite and NaN if a seed did not reach it; NaN too with a single seed.
    n_reached : int
        Number of seeds that reached it.
    """

    strategy: str
    condition: Mapping[str, str]
    choice: Mapping[str, str]
    n_choices: int
    runs: tuple[Run, ...]
    mean: float
    half_width: float
    n_reached: int


def entries(results: Results, tuned: Collection[str] = TUNED) -> list[Entry]:
    """Return an entry for each strategy and condition, ordered by condition.

    The best choice has the most seeds at the target, then the least mean seconds to it, then the highest final
    accuracy. It is chosen on the seeds that it is reported for, for every strategy alike, so that all are a little
    flattered, those with more choices more.
    """
    groups: dict[tuple[tuple[tuple[str, str], ...], str], dict[tuple[tuple[str, str], ...], list[Run]]] = {}
    for run in results.runs:
        condition = tuple((key, value) for key, value in run.settings.items() if key not in tuned)
        given = {**run.settings, **run.choice}.items()
        choice = tuple(pair for pair in given if pair not in condition)
        groups.setdefault((condition, run.strategy), {}).setdefault(choice, []).append(run)
    conditions = list(dict.fromkeys(condition for condition, _ in groups))
    found = []
    for condition in conditions:
        for (own, _), choices in groups.items():
            if own == condition:
                best = min(choices, key=lambda choice: _badness(choices[choice], results.target))
                found.append(_entry(dict(condition), dict(best), len(choices), choices[best], results.target))
    return found


def _badness(runs: Sequence[Run], target: float) -> tuple[int, float, float]:
    seconds = np.array([run.seconds_to(target) for run in runs])
    reached = np.isfinite(seconds)
    mean = float(seconds[reached].mean()) if reached.any() else np.inf
    return int((~reached).sum()), mean, -float(np.mean([run.accuracy[-1] for run in runs]))


def _entry(
    condition: Mapping[str, str], choice: Mapping[str, str], n_choices: int, runs: Sequence[Run], target: float
) -> Entry:
    seconds = np.array([run.seconds_to(target) for run in runs])
    reached = int(np.isfinite(seconds).sum())
    mean, half = np.inf, np.nan
    if reached == seconds.size:
        mean = float(seconds.mean())
        if seconds.size > 1:
            quantile = float(stats.t.ppf(0.975, seconds.size - 1))
            half = quantile * float(seconds.std(ddof=1)) / np.sqrt(seconds.size)
    return Entry(runs[0].strategy, condition, choice, n_choices, tuple(runs), mean, half, reached)


def best_of(some: Sequence[Entry]) -> Entry | None:
    """Return the entry that reaches the target soonest, None if none does with every seed."""
    reaching = [entry for entry in some if np.isfinite(entry.mean)]
    return min(reaching, key=lambda entry: entry.mean) if reaching else None


def seconds_text(entry: Entry) -> str:
    """Return an entry's seconds to the target as text.

    Examples
    --------
    >>> seconds_text(Entry("a", {}, {}, 1, (), 123.4, 5.6, 3))
    '123 ± 6'
    >>> seconds_text(Entry("a", {}, {}, 1, (), np.inf, np.nan, 0))
    'not reached'
    """
    if not np.isfinite(entry.mean):
        return f"{entry.n_reached} of {len(entry.runs)} seeds" if entry.n_reached else "not reached"
    mean, half = (f"{value:.0f}" if entry.mean >= 100.0 else f"{value:.3g}" for value in (entry.mean, entry.half_width))
    return mean if np.isnan(entry.half_width) else f"{mean} ± {half}"
