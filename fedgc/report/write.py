"""Write a report: figures as PNG and PDF, tables as CSV and Markdown, and one page with all of it."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from fedgc.errors import ConfigError
from fedgc.experiment.files import write_whole
from fedgc.report.conditions import strategies_of
from fedgc.report.csv_tables import seeds_csv, strategies_csv
from fedgc.report.curves import Quantity, curve_figure
from fedgc.report.figures import calibration_figure, way_figure
from fedgc.report.markdown import report_markdown
from fedgc.report.page import Part, report_html
from fedgc.report.ratios import check_reference
from fedgc.report.read import Results
from fedgc.report.shown import shown
from fedgc.report.style import FEW
from fedgc.report.tables import Entry, entries
from fedgc.report.unit import AXIS, Unit
from fedgc.validation import did_you_mean


def write_report(
    folder: Path,
    some: Sequence[Results],
    tuned: Collection[str] | None = None,
    *,
    unit: Unit = "seconds",
    relative_to: str | None = None,
) -> list[Path]:
    """Write ``report.html``, ``tables.md``, and for each experiment its tables and figures, into a folder.

    ``table.csv`` has a row for each strategy and condition, ``seeds.csv`` one for each seed of these.

    Parameters
    ----------
    folder : Path
        The folder, which is made.
    some : sequence of Results
        The experiments, in the order of the page.
    tuned : collection of str
        Keys of sweeps that every strategy may choose the best value of; the others are conditions.
    unit : {"seconds", "rounds"}
        What the way to the target is counted in.
    relative_to : str, optional
        Label of a strategy of every experiment; tables of the ratio to it are added.

    Returns
    -------
    list of Path
        The files, the page first. They depend on the results only: no date, no path.

    Raises
    ------
    ConfigError
        If an experiment has no strategy of that label, or none sweeps a key that is to be chosen. Nothing is written
        then.
    """
    for key in tuned or ():
        swept = sorted({name for results in some for run in results.runs for name in run.settings})
        if key not in swept:
            raise ConfigError(
                f"--tune must be a key that is swept, one of {swept}; got {key!r}{did_you_mean(key, swept)}"
            )
    chosen = [entries(results, tuned, unit=unit) for results in some]
    if relative_to is not None:
        for results, found in zip(some, chosen, strict=True):
            check_reference(relative_to, found, results.name)
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = []
    files: list[Path] = []
    for number, (results, found) in enumerate(zip(some, chosen, strict=True)):
        prefix = "" if len(some) == 1 else f"{number + 1}-"
        tables = {"table": strategies_csv(found, unit, relative_to), "seeds": seeds_csv(found, results.target)}
        files += [write_whole(folder / f"{prefix}{name}.csv", data) for name, data in tables.items()]
        figures = {}
        for name, (figure, caption) in _figures(results, found, unit, relative_to).items():
            png, pdf = (_saved(figure, kind) for kind in ("png", "pdf"))
            files += [
                write_whole(folder / f"{prefix}{name}.{kind}", data) for kind, data in (("png", png), ("pdf", pdf))
            ]
            figures[name] = png, caption
        parts.append(Part(results, found, unit, relative_to, figures))
    page = write_whole(folder / "report.html", report_html(parts).encode())
    return [page, write_whole(folder / "tables.md", report_markdown(parts).encode()), *files]


def _figures(
    results: Results, found: Sequence[Entry], unit: Unit, reference: str | None
) -> dict[str, tuple[Figure, str]]:
    """Return figures and captions by file name."""
    target = results.target
    drawn: list[tuple[Quantity, Unit]] = [("loss", "rounds"), ("loss", "seconds"), ("accuracy", unit)]
    spread = ", band from the lowest to the highest" if len(strategies_of(found)) <= FEW else ""
    coloured = len(shown(found, reference))
    grey = (
        f"; in colour the {coloured} that are soonest over all conditions"
        if coloured < len(strategies_of(found))
        else ""
    )
    curves = {
        f"{quantity}-by-{clock}": (
            curve_figure(found, quantity, clock, target, reference),
            f"{quantity.capitalize()} against {AXIS[clock]}: median over seeds{spread}{grey}.",
        )
        for quantity, clock in drawn
    }
    way = (
        way_figure(found, target, unit),
        f"{AXIS[unit].capitalize()} to {target.text}: mean and 95 % confidence interval, a small dot for each seed; "
        "the diamond is the soonest; never: with how many seeds of how many the target was not reached.",
    )
    figures = {f"{unit}-to-target": way, **curves}
    calibration = calibration_figure(found, reference)
    if calibration is not None:
        caption = (
            "Residual error against its prediction, a point for each run (mean over its rounds); on the line they "
        )
        figures["calibration"] = calibration, f"{caption}are equal, in the grey band within a tenth."
    return figures


def _saved(figure: Figure, kind: str) -> bytes:
    # Dates would make two reports on the same results differ.
    nothing = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}[kind]
    data = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}):
        figure.savefig(data, format=kind, dpi=160, metadata=nothing)
    return data.getvalue()
