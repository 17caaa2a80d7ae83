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

#: An eighth colour, dark red, for figures in which lines are not to repeat one.
_EIGHTH = "#882255"

#: What strategies that are not shown in colour have in common.
GREY = "0.78"

#: Inches that a page has room for: figures are drawn at the size at which they are printed.
PAGE = 7.2

#: Points of titles, of labels and legends, and of ticks and words in panels.
TITLE, LABEL, SMALL = 9.0, 8.0, 7.5

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


def line_look(index: int) -> dict[str, Any]:
    """Return the look of the line with that number, in a colour that the seven others of the first eight do not have.

    Examples
    --------
    >>> len({line_look(index)["color"] for index in range(8)})
    8
    """
    return {**look_of(index), **({"color": _EIGHTH} if index == len(COLOURS) else {})}


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


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], handle: float = 3.0) -> None:
    """Put the legend below the panels, in as many columns as a figure of its width has room for.

    `handle` is how long the lines in it are, in its own letters' height.
    """
    legend = figure.legend(
        handles,
        [wrapped(label) for label in labels],
        loc="outside lower center",
        ncols=_legend_columns(labels, figure.get_figwidth(), handle),
        fontsize=LABEL,
        frameon=False,
        handlelength=handle,
        columnspacing=1.5,
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def legend_height(labels: Sequence[str], width: float, handle: float = 3.0) -> float:
    """Return the inches that :func:`legend_below` takes of a figure that is so wide."""
    lines = max(len(wrapped(label).splitlines()) for label in labels)
    return 0.2 + 0.16 * lines * -(-len(labels) // _legend_columns(labels, width, handle))


def _legend_columns(labels: Sequence[str], width: float, handle: float) -> int:
    longest = max(len(line) for label in labels for line in wrapped(label).splitlines())
    return max(1, min(len(labels), 4, int((width - 0.2) / (0.3 + LABEL / 72.0 * handle + 0.062 * longest))))


def layout(*, square: bool = False) -> ConstrainedLayoutEngine:
    """Return a layout that leaves a margin around axis labels, which the usual one lets touch the edge.

    `square` is for panels whose sides are to be equal.
    """
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, compress=square)


def plain(axes: Axes, size: float = 9.0) -> None:
    """Take away what carries nothing; ticks have labels of so many points."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=size)
