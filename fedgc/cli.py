"""The command line: ``fedgc run CONFIG.toml``, ``fedgc plan FLEET`` and ``fedgc analyze``."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that DIR already holds, and curves.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Flower's log.")] = False,
) -> None:
    """Run an experiment in virtual time and show a table of its strategies."""
    # Flower and torch take seconds to import: a wrong key, or --help, should not have to wait for them.
    from rich.console import Console  # noqa: PLC0415

    from fedgc.experiment.config import load_config  # noqa: PLC0415

    settings = load_config(config, overrides or [])

    from fedgc.experiment.boards import Boards  # noqa: PLC0415
    from fedgc.experiment.display import live_progress, results_table  # noqa: PLC0415
    from fedgc.experiment.results import check_output_folder, write_results  # noqa: PLC0415
    from fedgc.experiment.runner import Row, run_experiment  # noqa: PLC0415
    from fedgc.experiment.summary import summarise  # noqa: PLC0415

    if out is not None:
        check_output_folder(out, overwrite=overwrite)
    boards = None if settings.tensorboard is None else Boards(Path(settings.tensorboard), settings, overwrite=overwrite)
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.ERROR)
    _one_thread()
    console = Console()
    with live_progress(settings, console) as show, _heard_interrupts() as heard:

        def on_row(row: Row) -> None:
            heard()
            show(row)
            if boards is not None:
                boards.write(row)

        try:
            rows = run_experiment(settings, on_row)
        finally:
            if boards is not None:
                boards.close()
    console.print(results_table(settings, summarise(rows, settings.target_accuracy)))
    if out is not None:
        for path in write_results(out, settings, rows):
            console.print(f"wrote {path}", soft_wrap=True)


@contextmanager
def _heard_interrupts() -> Iterator[Callable[[], None]]:
    """Raise KeyboardInterrupt at an interrupt, and again whenever the function given is called after one.

    Python drops an exception that is raised while it runs a destructor or a callback from C; an interrupt that came at
    such a moment would be lost, and the run would go on.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def heard() -> None:
        if came:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


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
            raise _too_large(error, {"--clients": clients, "--draws": draws}) from None

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


@app.command()
def plan(
    fleet: Annotated[str, typer.Argument(help="A preset's name, or a TOML file.", metavar="FLEET")],
    clients: Annotated[int | None, typer.Option(help="Number of clients; for presets 50 if not given.")] = None,
    shards: Annotated[int | None, typer.Option(help="Number of shards; four per client if not given.")] = None,
    coherence: Annotated[
        float, typer.Option(help="How far updates point the same way, from 0 (no shard is like another) to below 1.")
    ] = 0.0,
    redundancy: Annotated[
        list[int] | None, typer.Option(help="Holders per shard, 1 to 5 if not given. May be repeated.")
    ] = None,
    deadline: Annotated[
        list[float] | None, typer.Option(help="Deadline in seconds; may be repeated. Ten are tried if not given.")
    ] = None,
    cover: Annotated[
        bool, typer.Option(help="Begin at the deadline by which every shard can be done once, or at a tenth of it.")
    ] = True,
    noise_sensitivity: Annotated[
        float, typer.Option(help="More rounds to the target per unit of residual error; 1 if steps are tuned.")
    ] = 1.0,
    server_round: Annotated[int, typer.Option(help="Round to plan for, if the fleet changes.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the fleet.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time to target and the assignment into this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Choose redundancy, schedule, code, decoder and deadline for a fleet, and say whether redundancy pays."""
    import json  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from fedgc.assignment import InfeasibleAssignmentError  # noqa: PLC0415
    from fedgc.fleets import load_fleet, presets  # noqa: PLC0415
    from fedgc.planning import constraints_of, plan_fleet, recommended_assignment  # noqa: PLC0415
    from fedgc.planning.figure import check_plot_path, draw_plan  # noqa: PLC0415
    from fedgc.planning.table import plan_table  # noqa: PLC0415

    if plot is not None:
        check_plot_path(plot)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed must be an integer from 0 to 2^32 - 1; got {seed}")
    known = load_fleet(fleet, clients=50 if clients is None and fleet in presets() else clients, seed=seed)
    n_shards = 4 * known.n_clients if shards is None else shards
    most = min(5, known.n_clients)
    errors = Console(stderr=True)
    # Off the terminal a transient bar would leave an empty line, before an error that has to be one line.
    with Progress(transient=True, console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task("deadlines")
        try:
            found = plan_fleet(
                known,
                n_shards=n_shards,
                coherence=coherence,
                redundancies=redundancy or range(1, most + 1),
                deadlines=deadline,
                cover=cover,
                constraints=constraints_of(known),
                noise_sensitivity=noise_sensitivity,
                server_round=server_round,
                on_step=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except ConfigError:
            raise
        except InfeasibleAssignmentError as error:
            # Only the fleet states limits, so what cannot be met stands there.
            raise ConfigError(f"{fleet}: {error}") from None
        except ValueError as error:
            raise ConfigError(str(error)) from None
        except MemoryError as error:
            raise _too_large(error, {"--clients": known.n_clients, "--shards": n_shards}) from None
    title = f"{fleet}: {known.n_clients} clients, {n_shards} shards, coherence {coherence:g}"
    if plot is not None:
        assignment = recommended_assignment(known, found.recommended, n_shards, constraints_of(known), server_round)
        draw_plan(plot, found, assignment, title)
    if as_json:
        choices = [asdict(choice) for choice in found.choices]
        verdict: dict[str, object] = {"recommended": asdict(found.recommended), "verdict": found.verdict}
        verdict["choices"] = choices
        if found.infeasible:
            verdict["infeasible"] = [{"redundancy": holders, "reason": reason} for holders, reason in found.infeasible]
        typer.echo(json.dumps(verdict, indent=2, allow_nan=False))
        return
    Console().print(plan_table(found, title))
    if found.recommended.remark:
        typer.echo(found.recommended.remark)
    for holders, reason in found.infeasible:
        typer.echo(f"{holders} holders per shard are not possible: {reason}")
    typer.echo(found.verdict)
    if plot is not None:
        typer.echo(f"wrote {plot}")


def _as_options(message: str, names: Mapping[str, str]) -> str:
    """Return the message about a parameter with the option's name in its place."""
    for parameter, option in names.items():
        if message.startswith(f"{parameter} "):
            return option + message.removeprefix(parameter)
    return message


def _too_large(error: MemoryError, given: Mapping[str, int]) -> ConfigError:
    came = ", ".join(f"{name} {value}" for name, value in given.items())
    return ConfigError(f"{' and '.join(given)} must be small enough for this computer's memory; got {came} ({error})")


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
        typer.echo("fedgc: interrupted, no results were written", err=True)
        sys.exit(_INTERRUPTED)
