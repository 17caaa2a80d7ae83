"""The command line: ``fedgc run CONFIG.toml`` and ``fedgc analyze``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from fedgc import __version__
from fedgc.errors import ConfigError, ExperimentError

app = typer.Typer(
    help="Federated training that does not wait for stragglers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fedgc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The experiment, a TOML file.", metavar="CONFIG.toml")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set rounds=5 --set strategies.2.load=4"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.csv, summary.json and the figure.", metavar="DIR")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that DIR already holds.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Flower's log.")] = False,
) -> None:
    """Run an experiment in virtual time and show a table of its strategies."""
    # Flower and torch take seconds to import: a wrong key, or --help, should not have to wait for them.
    from rich.console import Console  # noqa: PLC0415

    from fedgc.experiment.config import load_config  # noqa: PLC0415

    settings = load_config(config, overrides or [])

    from fedgc.experiment.display import live_progress, results_table  # noqa: PLC0415
    from fedgc.experiment.results import check_output_folder, write_results  # noqa: PLC0415
    from fedgc.experiment.runner import run_experiment  # noqa: PLC0415
    from fedgc.experiment.summary import summarise  # noqa: PLC0415

    if out is not None:
        check_output_folder(out, overwrite=overwrite)
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.ERROR)
    _one_thread()
    console = Console()
    with live_progress(settings, console) as show:
        rows = run_experiment(settings, show)
    console.print(results_table(settings, summarise(rows, settings.target_accuracy)))
    if out is not None:
        for path in write_results(out, settings, rows):
            console.print(f"wrote {path}", soft_wrap=True)


@app.command()
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
    from functools import partial  # noqa: PLC0415
    from itertools import product  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from fedgc.comparison import compare, comparison_table, draw_comparison, select_schemes  # noqa: PLC0415

    schemes = select_schemes(scheme or [])
    deadlines, coherences = tau or [1.5], coherence or [0.5]
    at = partial(compare, fleet, clients=clients, load=load, draws=draws, seed=seed, schemes=schemes)
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


def _one_thread() -> None:
    """Keep torch to one thread: models here are small, and sums then do not depend on the number of cores."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)


#: The exit code that typer makes of an interrupt, and that shells know.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; a wrong configuration ends with one line and exit code 2."""
    try:
        # Not in typer's standalone mode, which would swallow the interrupt.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as error:
        typer.echo(f"fedgc: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except (OSError, ExperimentError) as error:
        typer.echo(f"fedgc: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        typer.echo("fedgc: interrupted, nothing was written", err=True)
        sys.exit(_INTERRUPTED)
