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

#: Width of an interval, relative to its middle, below which all seeds have one ratio, and what is left is rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Ratio:
    """How an entry compares with the reference's under the same condition.

    Attributes
    ----------
    mean, low, high : float
        Geometric mean over the seeds that both have of the ratio of one to the other, and the ends of its 95 %
        confidence interval; infinite and NaN where either never reached the target with one of them, NaN ends with a
        single seed too.
    text : str
        All three, or what stands in their place.
    """

    mean: float
    low: float
    high: float
    text: str


def ratio_to(entry: Entry, reference: Entry) -> Ratio:
    """Return the ratio of an entry's way to the target to the reference's, paired by seed.

    With one seed both meet the same shards and the same draws of the clients, so that the ratio scatters less than
    either does. Of the log ratios ``x_s = log(a_s / b_s)`` of n seeds, with mean m and standard deviation sd, it is the
    geometric mean ``exp(m)``, with the interval ``exp(m - h)`` to ``exp(m + h)``, ``h = t sd / sqrt(n)`` for the 0.975
    quantile t of Student's distribution with n - 1 degrees of freedom.

    The arithmetic mean would favour the reference: where one method takes twice as long with one seed and half as long
    with another, it says 1.25, whichever of them is the reference. In the logarithm both directions count alike: the
    ratio of b to a is one over that of a to b, and so are the ends of its interval.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> def entry(*reached):
    ...     runs = tuple(SimpleNamespace(seed=seed) for seed in range(len(reached)))
    ...     return Entry("", {}, {}, 1, runs, np.array(reached), *mean_and_half_width(np.array(reached)))
    >>> ratio_to(entry(1.0, 3.0), entry(2.0, 6.0)).text, ratio_to(entry(1.0, np.inf), entry(2.0, 6.0)).text
    ('0.5 (0.5 to 0.5)', 'never (1 of 2 seeds)')
    >>> ratio_to(entry(1.0), entry(np.inf)).text
    'reference never (1 of 1 seeds)'
    """
    own = dict(zip((run.seed for run in entry.runs), entry.reached, strict=True))
    other = dict(zip((run.seed for run in reference.runs), reference.reached, strict=True))
    both = [seed for seed in own if seed in other]
    mine, its = (np.array([found[seed] for seed in both]) for found in (own, other))
    if not np.isfinite(mine).all():
        return _without_number(never_text(mine))
    if not np.isfinite(its).all():
        return _without_number(f"reference {never_text(its)}")
    if not both or not (np.minimum(mine, its) > 0.0).all():
        return _without_number("not known")
    centre, half = mean_and_half_width(np.log(mine / its))
    mean, low, high = (float(np.exp(value)) for value in (centre, centre - half, centre + half))
    return Ratio(mean, low, high, range_text(mean, low, high))


def _without_number(text: str) -> Ratio:
    return Ratio(np.inf, np.nan, np.nan, text)


def range_text(mean: float, low: float, high: float) -> str:
    """Return a ratio and its 95 % interval as text, to two significant digits of half the interval's width.

    Where its ends are more than a factor of four apart each number has two significant digits of its own.

    Examples
    --------
    >>> range_text(0.781, 0.602, 1.013), range_text(0.9402, 0.9311, 0.9494), range_text(1.1, 0.0284, 42.6)
    ('0.78 (0.60 to 1.01)', '0.9402 (0.9311 to 0.9494)', '1.1 (0.028 to 43)')
    >>> range_text(1.0, 1.0, 1.0), range_text(1.234, np.nan, np.nan)
    ('1 (1 to 1)', '1.23')
    """
    if np.isnan(low):
        return interval_text(mean, low)
    if high - low < _ROUNDING * mean:
        return f"{mean:.6g} ({low:.6g} to {high:.6g})"
    numbers = (mean, low, high)
    scales = numbers if high > 4.0 * low else [0.5 * (high - low)] * 3
    texts = [
        f"{value:.{max(0, 1 - int(np.floor(np.log10(scale))))}f}" for value, scale in zip(numbers, scales, strict=True)
    ]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


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
        confidence interval; empty where there is none. The mean is the arithmetic one, unlike that of :class:`Ratio`:
        a prediction is one of the mean, and right if the ratios are one in the mean.
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
