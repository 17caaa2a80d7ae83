"""Curves over the rounds as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from fedgc.pages.text import number, safe

#: Points of a curve at most: longer ones are drawn as means over rounds that follow each other.
_POINTS = 300
#: Size of the drawing in its own units; it is stretched to the page.
_WIDTH, _HEIGHT = 600.0, 100.0

Values = Sequence[float | None]


class Curve(NamedTuple):
    """A curve of a chart: its name, its class in the style sheet, and a value for each round."""

    name: str
    style: str
    values: Values


def chart(title: str, curves: Sequence[Curve], rounds: Sequence[int]) -> str:
    """Return a figure with curves over the rounds, from zero up.

    Parameters
    ----------
    title : str
        What they show.
    curves : sequence of Curve
        The curves.
    rounds : sequence of int
        The rounds' numbers.

    Notes
    -----
    Scale and legend stand beside the drawing, which is stretched to the width that there is, as text in a drawing would
    be too small to read on a phone.
    """
    drawn = [curve._replace(values=_means(curve.values)) for curve in curves]
    top = max((value for curve in drawn for value in curve.values if value is not None), default=0.0) or 1.0
    keys = " ".join(f'<span class="key {curve.style}">{safe(curve.name)}</span>' for curve in curves)
    paths = "".join(f'<path class="{curve.style}" d="{_path(curve.values, top)}"/>' for curve in drawn)
    return (
        f"<figure><figcaption>{safe(title)}: {keys}</figcaption>"
        f'<div class="plot"><span class="top">{number(top)}</span><span class="zero">0</span>'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="{safe(title)}">'
        f"{paths}</svg>"
        f'<span class="first">round {rounds[0]}</span><span class="last">{rounds[-1]}</span></div></figure>'
    )


def _means(values: Values) -> list[float | None]:
    """Return the values, or means of those that are known over equal stretches; None for what is not finite.

    Examples
    --------
    >>> _means([1.0, None, math.inf])
    [1.0, None, None]
    >>> means = _means([float(k) for k in range(3 * _POINTS)])
    >>> len(means), means[:2]
    (300, [1.0, 4.0])
    """
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    if len(known) <= _POINTS:
        return known
    ends = [len(known) * k // _POINTS for k in range(_POINTS + 1)]
    stretches = ([v for v in known[i:j] if v is not None] for i, j in pairwise(ends))
    return [sum(some) / len(some) if some else None for some in stretches]


def _path(values: Values, top: float) -> str:
    """Return the curve as an SVG path, with a gap where a value is not known.

    Examples
    --------
    >>> _path([0.0, 1.0, None, 0.5], 1.0)
    'M0,100h0L200,0M600,50h0'
    """
    step, parts, drawing = _WIDTH / max(len(values) - 1, 1), [], False
    for k, value in enumerate(values):
        if value is not None:
            # Of a lone point the h0 makes a dot.
            x, y = k * step, _HEIGHT * (1.0 - value / top)
            parts.append(f"L{x:.4g},{y:.4g}" if drawing else f"M{x:.4g},{y:.4g}h0")
        drawing = value is not None
    return "".join(parts)
