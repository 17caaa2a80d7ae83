"""``fedgc report DIR...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedgc.report.unit import Unit


def report(
    folders: Annotated[list[Path], typer.Argument(help="Results of fedgc run --out.", metavar="DIR...")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default 'report' in the first DIR.", metavar="DIR")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A swept key that every strategy may choose: by default that of its tuning."),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="[seconds|rounds]", help="Count virtual seconds to the target, or rounds.")
    ] = "seconds",
    relative_to: Annotated[
        str | None, typer.Option(metavar="LABEL", help="A strategy; tables of the ratio to it are added.")
    ] = None,
) -> None:
    """Write tables, figures (PNG and PDF) and one page that shows them, of one or more experiments."""
    from fedgc.errors import ConfigError  # noqa: PLC0415
    from fedgc.report import read_results, write_report  # noqa: PLC0415
    from fedgc.validation import did_you_mean  # noqa: PLC0415

    if by not in ("seconds", "rounds"):
        hint = did_you_mean(by, ("seconds", "rounds"))
        raise ConfigError(f"--by must be seconds or rounds; got {by!r}{hint}")
    results = [read_results(folder) for folder in folders]
    target = out or folders[0] / "report"
    unit: Unit = "rounds" if by == "rounds" else "seconds"
    for path in write_report(target, results, tuple(tune) if tune else None, unit=unit, relative_to=relative_to):
        typer.echo(f"wrote {path}")
