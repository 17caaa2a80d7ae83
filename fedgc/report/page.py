"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence

from fedgc.report.figures import by_condition, condition_text
from fedgc.report.read import Results
from fedgc.report.tables import Entry, best_of, seconds_text
from fedgc.strategies.reporting.page.style import STYLE
from fedgc.strategies.reporting.page.text import count, percent, safe

_MORE_STYLE = """
td.best{font-weight:700}td.number{text-align:right}figure{margin:.75rem 0}
figure img{width:100%;height:auto;background:#fff;border-radius:.25rem}
pre{overflow-x:auto;font-size:.8rem;background:var(--card);border:1px solid var(--line);
border-radius:.5rem;padding:.75rem}td:last-child{min-width:0}
"""


def report_html(parts: Sequence[tuple[Results, Sequence[Entry], Mapping[str, tuple[bytes, str]]]]) -> str:
    """Return the page of a report.

    Parameters
    ----------
    parts : sequence of (Results, entries, figures)
        For each experiment its results, the entries of its table, and its figures: PNG and caption by file name.
    """
    title = ", ".join(safe(results.name) for results, _, _ in parts)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    body = "\n".join(section for part in parts for section in _sections(*part))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="fedgc report">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>'
        f"<style>{STYLE}{_MORE_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sections(results: Results, entries: Sequence[Entry], figures: Mapping[str, tuple[bytes, str]]) -> Iterator[str]:
    seeds = sorted({run.seed for run in results.runs})
    yield f"<h1>{safe(results.name, 200)}</h1>"
    yield (
        f'<p class="note">Seconds of virtual time to {percent(results.target)} test accuracy: mean over '
        f"{count(len(seeds), 'seed')} and 95 % confidence interval, each strategy at the choice that is best for it on "
        "these seeds. In bold the soonest.</p>"
    )
    yield matrix(entries)
    for png, caption in figures.values():
        data = base64.b64encode(png).decode()
        picture = f'<img alt="{safe(caption, 300)}" src="data:image/png;base64,{data}">'
        yield f"<figure>{picture}<figcaption>{safe(caption, 300)}</figcaption></figure>"
    yield f"<details><summary>Every strategy at its best choice</summary>{_details(entries)}</details>"
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


def matrix(entries: Sequence[Entry]) -> str:
    """Return the table of conditions and strategies."""
    groups = by_condition(entries)
    strategies = list(dict.fromkeys(entry.strategy for entry in entries))
    head = "".join(f'<th scope="col">{safe(title or "Strategy", 60)}</th>' for title in ("Strategy", *groups))
    if list(groups) == [""]:
        head = '<th scope="col">Strategy</th><th scope="col">Seconds</th>'
    rows = []
    for strategy in strategies:
        cells = []
        for group in groups.values():
            best = best_of(group)
            own = next((entry for entry in group if entry.strategy == strategy), None)
            text = "" if own is None else seconds_text(own)
            cells.append(f'<td class="number{" best" if own is not None and own is best else ""}">{text}</td>')
        rows.append(f"<tr><td>{safe(strategy)}</td>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _details(entries: Sequence[Entry]) -> str:
    head = "".join(
        f"<th>{title}</th>" for title in ("Condition", "Strategy", "Best choice", "Of", "Seconds", "Accuracy")
    )
    rows = []
    for entry in entries:
        accuracy = sum(float(run.accuracy[-1]) for run in entry.runs) / len(entry.runs)
        choice = condition_text(entry.choice) or "none"
        cells = (
            safe(condition_text(entry.condition), 120),
            safe(entry.strategy),
            safe(choice, 120),
            str(entry.n_choices),
            seconds_text(entry),
            f"{accuracy:.1%}",
        )
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
