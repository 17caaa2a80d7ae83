"""How the figures of a report look: lines that stay apart in colour and in grey, axes, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedgc.experiment.figure import COLOURS

#: Beside the colours, which colour-blind readers tell apart, these tell lines apart in grey: numbers of styles, markers
#: and colours have no common factor, so that lines repeat after 140 only.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
_MARKERS = ("o", "s", "^", "D", "v")

#: Strategies beyond which a legend below the panels is too long, and lines as for a few would hide each other.
FEW = 6


def look_of(index: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the strategy with that number.

    Examples
    --------
    >>> looks = [tuple(look_of(index).values()) for index in range(60)]
    >>> len(set(looks)), len({look[1:] for look in looks[:20]})
    (60, 20)
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def wrapped(label: str, width: int = 40) -> str:
    """Return a label in lines of so many characters at most."""
    return textwrap.fill(label, width) or label


def legend_outside(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Put the legend where it covers nothing: below the panels if it is short, else on their right."""
    below = len(labels) <= FEW
    legend = figure.legend(
        handles,
        [wrapped(label) for label in labels],
        loc="outside lower center" if below else "outside right upper",
        ncols=min(2, len(labels)) if below else 1,
        fontsize=9,
        frameon=False,
        handlelength=3.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign


def legend_width(labels: Sequence[str]) -> float:
    """Return the inches that a figure has to be wider for :func:`legend_outside`."""
    longest = max(len(line) for label in labels for line in wrapped(label).splitlines())
    return 0.0 if len(labels) <= FEW else 0.7 + 0.075 * longest


def layout(*, square: bool = False) -> ConstrainedLayoutEngine:
    """Return a layout that leaves a margin around axis labels, which the usual one lets touch the edge.

    `square` is for panels whose sides are to be equal.
    """
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, compress=square)


def plain(axes: Axes) -> None:
    """Take away what carries nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
