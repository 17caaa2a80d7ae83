"""Ratios: the way to the target relative to a reference, and residual errors relative to their prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedgc.errors import ConfigError
from fedgc.report.tables import Entry, interval_text, mean_and_half_width, never_text
from fedgc.validation import did_you_mean

#: Residual errors up to which there are none: everything came, and what is left is rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Ratio:
    """How an entry compares with the reference's under the same condition.

    Attributes
    ----------
    mean, half_width : float
        Mean over the seeds that both have of the ratio of one to the other, seed by seed, and half the width of its
        95 % confidence interval; infinite and NaN where either never reached the target with one of them.
    text : str
        Both, or what stands in their place.
    """

    mean: float
    half_width: float
    text: str


def ratio_to(entry: Entry, reference: Entry) -> Ratio:
    """Return the ratio of an entry's way to the target to the reference's, paired by seed.

    With one seed both meet the same shards and the same draws of the clients, so that the ratio scatters less than
    either does. A mean of ratios is what a reader expects of an experiment repeated once more; where single ratios
    scatter by a factor, it is above their median.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> def entry(*reached):
    ...     runs = tuple(SimpleNamespace(seed=seed) for seed in range(len(reached)))
    ...     return Entry("", {}, {}, 1, runs, np.array(reached), *mean_and_half_width(np.array(reached)))
    >>> ratio_to(entry(1.0, 3.0), entry(2.0, 6.0)).text, ratio_to(entry(1.0, np.inf), entry(2.0, 6.0)).text
    ('0.5 ± 0', 'never (1 of 2 seeds)')
    >>> ratio_to(entry(1.0), entry(np.inf)).text
    'reference never (1 of 1 seeds)'
    """
    own = dict(zip((run.seed for run in entry.runs), entry.reached, strict=True))
    other = dict(zip((run.seed for run in reference.runs), reference.reached, strict=True))
    both = [seed for seed in own if seed in other]
    mine, its = (np.array([found[seed] for seed in both]) for found in (own, other))
    if not np.isfinite(mine).all():
        return Ratio(np.inf, np.nan, never_text(mine))
    if not np.isfinite(its).all():
        return Ratio(np.inf, np.nan, f"reference {never_text(its)}")
    if not both or not (its > 0.0).all():
        return Ratio(np.inf, np.nan, "not known")
    mean, half = mean_and_half_width(mine / its)
    return Ratio(mean, half, interval_text(mean, half))


def reference_of(entry: Entry, found: Sequence[Entry], label: str) -> Entry | None:
    """Return the entry of the strategy of that label under the same condition, None if it has none."""
    return next((one for one in found if one.strategy == label and one.condition == entry.condition), None)


def check_reference(label: str, found: Sequence[Entry], where: str) -> None:
    """Check that a strategy of that label is among the entries.

    Raises
    ------
    ConfigError
        If it is not.
    """
    labels = list(dict.fromkeys(entry.strategy for entry in found))
    if label not in labels:
        hint = did_you_mean(label, labels)
        raise ConfigError(f"--relative-to must be a strategy of {where}, one of {labels}; got {label!r}{hint}")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Residual errors of an entry, each the mean over the rounds of all its runs that have it and a prediction.

    Attributes
    ----------
    entry : Entry
        Whose they are.
    predicted : float
        Mean prediction.
    observed, measured : str
        Ratio to the prediction by those who came, and by the updates of all shards: mean over the runs with 95 %
        confidence interval; empty where there is none.
    """

    entry: Entry
    predicted: float
    observed: str
    measured: str


def pairs_of(entry: Entry, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return means over each run's rounds of the residual error predicted, and of the one called `name`, (n_runs, 2).

    Of rounds that have both; runs without such a round, those that diverged, and those in which nothing was missed are
    left out: the ratio of two zeros that were rounded says nothing.
    """
    means = []
    for run in entry.runs:
        both = np.array([run.predicted, getattr(run, name)])
        known = np.isfinite(both).all(axis=0)
        if known.any():
            means.append(both[:, known].mean(axis=1))
    return np.array([pair for pair in means if (pair > _NOTHING).all()]).reshape(-1, 2)


def calibrations(found: Sequence[Entry]) -> Iterator[Calibration]:
    """Yield the calibration of each entry that predicts its residual error."""
    for entry in found:
        texts, predicted = {}, np.nan
        for name in ("measured", "observed"):
            pairs = pairs_of(entry, name)
            texts[name] = interval_text(*mean_and_half_width(pairs[:, 1] / pairs[:, 0])) if pairs.size else ""
            predicted = float(pairs[:, 0].mean()) if pairs.size else predicted
        if any(texts.values()):
            yield Calibration(entry, predicted, **texts)
