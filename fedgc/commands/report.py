"""``fedgc report DIR...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[list[Path], typer.Argument(help="Results of fedgc run --out.", metavar="DIR...")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default 'report' in the first DIR.", metavar="DIR")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A swept key that every strategy may choose: by default task.learning_rate."),
    ] = None,
) -> None:
    """Write tables, figures (PNG and PDF) and one page that shows them, of one or more experiments."""
    from fedgc.report import read_results, write_report  # noqa: PLC0415
    from fedgc.report.tables import TUNED  # noqa: PLC0415

    results = [read_results(folder) for folder in folders]
    for path in write_report(out or folders[0] / "report", results, tuple(tune) if tune else TUNED):
        typer.echo(f"wrote {path}")
