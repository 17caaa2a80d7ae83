"""``fedgc analyze``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedgc.commands.too_large import too_large
from fedgc.errors import ConfigError


def analyze(
    fleet: Annotated[str, typer.Option(help="Name of a preset fleet.")] = "paper",
    clients: Annotated[int, typer.Option(help="Number of clients, and of shards.")] = 100,
    tau: Annotated[
        list[float] | None,
        typer.Option(help="Deadline in seconds, 1.5 if not given; the paper fleet's tau. May be repeated."),
    ] = None,
    coherence: Annotated[
        list[float] | None,
        typer.Option(help="How far updates point the same way, from 0 to below 1; 0.5 if not given. May be repeated."),
    ] = None,
    load: Annotated[int, typer.Option(help="Copies of each shard.")] = 2,
    draws: Annotated[int, typer.Option(help="Draws of the fleet's clients.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the first draw.")] = 0,
    scheme: Annotated[list[str] | None, typer.Option(help="Show only this scheme; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw residual error against coherence into this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Predict residual error, bias and load of codes and decoders on a fleet."""
    import json  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415
    from itertools import product  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from fedgc.comparison import (  # noqa: PLC0415
        Comparison,
        compare,
        comparison_table,
        draw_comparison,
        select_schemes,
    )

    schemes = select_schemes(scheme or [])
    deadlines, coherences = tau or [1.5], coherence or [0.5]

    def at(deadline: float, coherence: float) -> list[Comparison]:
        try:
            return compare(
                fleet,
                clients=clients,
                deadline=deadline,
                coherence=coherence,
                load=load,
                draws=draws,
                seed=seed,
                schemes=schemes,
            )
        except ConfigError as error:
            raise ConfigError(_as_options(str(error), {"deadline": "--tau", "fleet.preset": "--fleet"})) from None
        except MemoryError as error:
            raise too_large(error, {"--clients": clients, "--draws": draws}) from None

    if plot is not None:
        if len(deadlines) > 1:
            raise ConfigError(f"--tau must be given once with --plot; got {len(deadlines)} values")
        title = f"{fleet}: {clients} clients, load {load}, deadline {deadlines[0]:g} s"
        draw_comparison(plot, lambda rho: at(deadline=deadlines[0], coherence=rho), title)
    cells = {cell: at(deadline=cell[0], coherence=cell[1]) for cell in product(deadlines, coherences)}
    if as_json:
        # One cell is a plain list of schemes; of several, each object says which it is of.
        where = [{"tau": cell[0], "coherence": cell[1]} if len(cells) > 1 else {} for cell in cells]
        objects = [cell | asdict(line) for cell, lines in zip(where, cells.values(), strict=True) for line in lines]
        typer.echo(json.dumps(objects, indent=2))
        return
    for cell, lines in cells.items():
        title = f"{fleet}: {clients} clients, deadline {cell[0]:g} s, coherence {cell[1]:g}, {draws} draws"
        Console().print(comparison_table(lines, title))
    if plot is not None:
        typer.echo(f"wrote {plot}")


def _as_options(message: str, names: Mapping[str, str]) -> str:
    """Return the message about a parameter with the option's name in its place."""
    for parameter, option in names.items():
        if message.startswith(f"{parameter} "):
            return option + message.removeprefix(parameter)
    return message
