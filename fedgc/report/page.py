"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedgc.pages.style import STYLE
from fedgc.pages.text import safe
from fedgc.report.grids import Grid, by_seed, details, grids
from fedgc.report.read import Results
from fedgc.report.tables import Entry
from fedgc.report.unit import Unit

_MORE_STYLE = """
td.best{font-weight:700}td.number,th.number{text-align:right}figure{margin:.75rem 0}
figure img{width:100%;height:auto;background:#fff;border-radius:.25rem}
pre{overflow-x:auto;font-size:.8rem;background:var(--card);border:1px solid var(--line);
border-radius:.5rem;padding:.75rem}td:last-child{min-width:0}
"""


@dataclass(frozen=True, eq=False)
class Part:
    """An experiment in a report.

    Attributes
    ----------
    results : Results
        Its results.
    entries : sequence of Entry
        The entries of its tables.
    unit : {"rounds", "seconds"}
        What they count.
    reference : str or None
        Label of the strategy that ratios are relative to, if there are to be any.
    figures : mapping of str to (bytes, str)
        PNG and caption by file name.
    """

    results: Results
    entries: Sequence[Entry]
    unit: Unit
    reference: str | None
    figures: Mapping[str, tuple[bytes, str]]

    @property
    def tuned_on(self) -> list[int]:
        """Seeds on which its strategies were tuned before they were measured; none if there was nothing to choose."""
        config = self.results.config
        tuning = config.get("tuning") or {"seeds": [], "keys": []}
        swept = set(tuning["keys"]) & set(config.get("sweep", {}))
        chosen = swept or any(one.get("grid") for one in config["strategies"])
        return list(tuning["seeds"]) if chosen else []


def report_html(parts: Sequence[Part]) -> str:
    """Return the page of a report."""
    title = ", ".join(safe(part.results.name) for part in parts)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    body = "\n".join(section for part in parts for section in _sections(part))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="fedgc report">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>'
        f"<style>{STYLE}{_MORE_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sections(part: Part) -> Iterator[str]:
    results = part.results
    seeds = sorted({run.seed for run in results.runs})
    yield f"<h1>{safe(results.name, 200)}</h1>"
    for grid in grids(part.entries, results.target, part.unit, part.reference, tuned_on=part.tuned_on):
        yield f'<p class="note">{safe(grid.note, 500)}</p>'
        yield _html(grid)
    for png, caption in part.figures.values():
        data = base64.b64encode(png).decode()
        picture = f'<img alt="{safe(caption, 300)}" src="data:image/png;base64,{data}">'
        yield f"<figure>{picture}<figcaption>{safe(caption, 300)}</figcaption></figure>"
    yield (
        f"<details><summary>Every strategy at its best choice</summary>{_html(details(part.entries, part.unit))}"
        "</details>"
    )
    seed_by_seed = by_seed(part.entries, results.target, part.unit)
    yield (
        f'<details><summary>Every seed</summary><p class="note">{safe(seed_by_seed.note, 500)}</p>'
        f"{_html(seed_by_seed)}</details>"
    )
    versions = ", ".join(f"{safe(name)} {safe(version)}" for name, version in results.versions.items())
    yield (
        "<details><summary>Configuration, seeds and versions</summary>"
        f"<p class='note'>Seeds {', '.join(map(str, seeds))}; {versions}; "
        f"commit {safe(results.commit or 'not known')}.</p>"
        f"<pre>{safe_block(json.dumps(results.config, indent=2))}</pre></details>"
    )


def safe_block(text: str) -> str:
    """Return text of several lines, safe in a page."""
    return "\n".join(safe(line, 300) for line in text.splitlines())


def _html(grid: Grid) -> str:
    kinds = [' class="number"' if cell.number else "" for cell in grid.rows[0]] if grid.rows else [""] * len(grid.head)
    head = "".join(
        f'<th scope="col"{kind}>{safe(title, 60)}</th>' for title, kind in zip(grid.head, kinds, strict=True)
    )
    rows = []
    for row in grid.rows:
        cells = [
            f'<td class="number{" best" if cell.best else ""}">{safe(cell.text, 120)}</td>'
            if cell.number
            else f"<td>{safe(cell.text, 120)}</td>"
            for cell in row
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
