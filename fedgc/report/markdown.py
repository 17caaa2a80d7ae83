"""Tables as Markdown, with pipes, as a README shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fedgc.pages.text import safe
from fedgc.report.grids import Cell, Grid, grids
from fedgc.report.page import Part


def report_markdown(parts: list[Part]) -> str:
    """Return the tables of all experiments as Markdown."""
    return "\n\n".join(block for part in parts for block in _blocks(part)) + "\n"


def _blocks(part: Part) -> Iterator[str]:
    yield f"## {escaped(part.results.name)}"
    for grid in grids(part.entries, part.results.target, part.unit, part.reference, tuned_on=part.tuned_on):
        yield escaped(grid.note)
        yield table(grid)


def table(grid: Grid) -> str:
    r"""Return a table with pipes, its numbers aligned on the right.

    Examples
    --------
    >>> print(table(Grid("", ("Strategy", "Seconds"), ((Cell("a|b", number=False), Cell("3 ± 1", best=True)),))))
    | Strategy | Seconds |
    | :-- | --: |
    | a\|b | **3 ± 1** |
    """
    aligned = ["--:" if cell.number else ":--" for cell in grid.rows[0]]
    lines = [map(escaped, grid.head), aligned, *(map(_cell, row) for row in grid.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text)


def escaped(text: str) -> str:
    r"""Return text that Markdown shows as it is.

    Examples
    --------
    >>> escaped("a_b|<i>$x$")
    'a\\_b\\|&lt;i&gt;\\$x\\$'
    >>> escaped("the fleet's")
    "the fleet's"
    """
    # In text, unlike in attributes, quotes stand for themselves.
    plain = safe(text, 500).replace("&#x27;", "'").replace("&quot;", '"')
    return re.sub(r"([\\|*_`$~\[\]])", r"\\\1", plain)
