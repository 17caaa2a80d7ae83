"""``fedgc report DIR...``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedgc.report.unit import Unit


class By(StrEnum):
    """What the way to the target is counted in."""

    SECONDS = "seconds"
    ROUNDS = "rounds"


def report(
    folders: Annotated[list[Path], typer.Argument(help="Results of fedgc run --out.", metavar="DIR...")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default 'report' in the first DIR.", metavar="DIR")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A swept key that every strategy may choose: by default task.learning_rate."),
    ] = None,
    by: Annotated[By, typer.Option(help="Count virtual seconds to the target, or rounds.")] = By.SECONDS,
    relative_to: Annotated[
        str | None, typer.Option(metavar="LABEL", help="A strategy; tables of the ratio to it are added.")
    ] = None,
) -> None:
    """Write tables, figures (PNG and PDF) and one page that shows them, of one or more experiments."""
    from fedgc.report import read_results, write_report  # noqa: PLC0415
    from fedgc.report.tables import TUNED  # noqa: PLC0415

    results = [read_results(folder) for folder in folders]
    tuned = tuple(tune) if tune else TUNED
    target = out or folders[0] / "report"
    unit: Unit = "rounds" if by is By.ROUNDS else "seconds"
    for path in write_report(target, results, tuned, unit=unit, relative_to=relative_to):
        typer.echo(f"wrote {path}")
