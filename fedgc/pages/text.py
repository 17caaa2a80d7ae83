"""Numbers, times and foreign strings as they stand on a page."""

from __future__ import annotations

import html
import math
from typing import Any

#: Stands for what is not known.
UNKNOWN = "\u2013"


def safe(text: object, longest: int = 80) -> str:
    r"""Return text that may have come from anywhere, such that a browser shows it and nothing else.

    Markup is escaped, what is not printable (marks that turn the direction of writing around too) becomes a
    replacement character, and what is too long is cut.

    Examples
    --------
    >>> safe("<b>\u202eid</b>"), safe("x" * 100, longest=5)
    ('&lt;b&gt;�id&lt;/b&gt;', 'xxxx…')
    """
    shown = str(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in shown), quote=True)


def number(value: Any, digits: int = 3) -> str:  # noqa: ANN401
    """Return a number to so many digits, or a dash where there is none; lists and text as they are, but safe.

    Examples
    --------
    >>> number(0.12345), number(12345), number(None), number(float("nan"))
    ('0.123', '12,345', '–', '–')
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return safe(value)
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,d}" if isinstance(value, int) else f"{value:,.{digits}g}" if abs(value) < 1e5 else f"{value:.3g}"


def percent(value: float) -> str:
    """Return a probability in per cent, never quite 0 or 100 unless it is.

    Examples
    --------
    >>> percent(0.312), percent(0.0004), percent(0.9999), percent(0.0)
    ('31 %', '0.04 %', '>99 %', '0 %')
    """
    hundredths = 100.0 * value
    if 0.0 < hundredths < 1.0:
        return f"{hundredths:.1g} %" if hundredths >= 1e-3 else "<0.001 %"
    return ">99 %" if 99.5 <= hundredths < 100.0 else f"{hundredths:.0f} %"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.0421, 9.94, 75, 3 * 3600 + 59, 200000, None)]
    ['0.0421 s', '9.94 s', '1 min 15 s', '3 h 0 min', '2 d 7 h', '–']
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 60.0:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for large, small, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60)):
        if whole >= size:
            return f"{whole // size} {large} {whole % size // part} {small}"
    return f"{whole // 60} min {whole % 60} s"


def count(n: int, what: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> count(1, "block"), count(1200, "block")
    ('1 block', '1,200 blocks')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"
