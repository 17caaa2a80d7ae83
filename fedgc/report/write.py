"""Write a report: figures as PNG and PDF, tables as CSV, and one page with all of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fedgc.experiment.files import write_whole
from fedgc.report.figures import accuracy_figure, calibration_figure, condition_text, time_figure
from fedgc.report.page import report_html
from fedgc.report.read import Results
from fedgc.report.tables import TUNED, Entry, entries

_CAPTIONS = {
    "accuracy": "Test accuracy against virtual time: mean over seeds, band from the lowest to the highest.",
    "time-to-target": "Seconds to the target relative to the soonest strategy, with 95 % confidence intervals.",
    "calibration": "Residual error measured against predicted, a point for each run.",
}


def write_report(folder: Path, some: Sequence[Results], tuned: Collection[str] = TUNED) -> list[Path]:
    """Write ``report.html``, and for each experiment a table and its figures, into a folder.

    Parameters
    ----------
    folder : Path
        The folder, which is made.
    some : sequence of Results
        The experiments, in the order of the page.
    tuned : collection of str
        Keys of sweeps that every strategy may choose the best value of; the others are conditions.

    Returns
    -------
    list of Path
        The files, the page first. They depend on the results only: no date, no path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts, files = [], []
    for number, results in enumerate(some):
        prefix = "" if len(some) == 1 else f"{number + 1}-"
        found = entries(results, tuned)
        files.append(write_whole(folder / f"{prefix}table.csv", _table(found)))
        figures = {}
        drawn = {
            "accuracy": accuracy_figure(found, results.target),
            "time-to-target": time_figure(found),
            "calibration": calibration_figure(found),
        }
        for name, figure in drawn.items():
            if figure is None:
                continue
            png, pdf = (_saved(figure, kind) for kind in ("png", "pdf"))
            files += [
                write_whole(folder / f"{prefix}{name}.{kind}", data) for kind, data in (("png", png), ("pdf", pdf))
            ]
            figures[name] = png, _CAPTIONS[name]
        parts.append((results, found, figures))
    return [write_whole(folder / "report.html", report_html(parts).encode()), *files]


def _table(found: Sequence[Entry]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("condition", "strategy", "choice", "choices", "seeds", "reached", "seconds", "half_width", "accuracy")
    writer.writerow(head)
    for entry in found:
        accuracy = float(np.mean([run.accuracy[-1] for run in entry.runs]))
        writer.writerow(
            (
                condition_text(entry.condition),
                entry.strategy,
                condition_text(entry.choice),
                entry.n_choices,
                len(entry.runs),
                entry.n_reached,
                *("" if not np.isfinite(value) else f"{value:.6g}" for value in (entry.mean, entry.half_width)),
                f"{accuracy:.4f}",
            )
        )
    return text.getvalue().encode()


def _saved(figure: Figure, kind: str) -> bytes:
    # Dates would make two reports on the same results differ.
    nothing = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}[kind]
    data = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}):
        figure.savefig(data, format=kind, dpi=200, metadata=nothing)
    return data.getvalue()
