"""``fedgc plan FLEET``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedgc.commands.too_large import too_large
from fedgc.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedgc.planning import FleetPlan, SentSums


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
    bits: Annotated[
        list[int] | None,
        typer.Option(help="Bits per entry of what is sent, 1 to 16, or 32 for no rounding. May be repeated."),
    ] = None,
    quantiser: Annotated[str | None, typer.Option(help="What rounds: bucketed-norm if not given.")] = None,
    entries: Annotated[int | None, typer.Option(help="Entries of the model; 100000 if not given.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="An update as .npy, whose rounding is measured; normal numbers if not given.")
    ] = None,
    upload_mbps: Annotated[
        float | None,
        typer.Option(help="Megabits per second that a client sends: 4, 8, 16 and 32 bits are tried if none are given."),
    ] = None,
    server_round: Annotated[int, typer.Option(help="Round to plan for, if the fleet changes.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the fleet.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time to target and the assignment into this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Choose redundancy, schedule, code, decoder and deadline for a fleet, and say whether redundancy pays."""
    import json  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from fedgc.assignment import InfeasibleAssignmentError  # noqa: PLC0415
    from fedgc.fleets import load_fleet, presets  # noqa: PLC0415
    from fedgc.fleets.build import MOST_CLIENTS  # noqa: PLC0415
    from fedgc.planning import constraints_of, plan_fleet, recommended_assignment  # noqa: PLC0415
    from fedgc.planning.figure import check_plot_path, draw_plan  # noqa: PLC0415
    from fedgc.planning.rounding import seconds_sending, with_sending  # noqa: PLC0415
    from fedgc.planning.table import plan_table  # noqa: PLC0415

    if plot is not None:
        check_plot_path(plot)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed must be an integer from 0 to 2^32 - 1; got {seed}")
    if clients is not None and not 1 <= clients <= MOST_CLIENTS:
        raise ConfigError(f"--clients must be an integer from 1 to {MOST_CLIENTS}; got {clients}")
    sums = _sums(bits, quantiser, entries, sample, upload_mbps)
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
                sums=sums,
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
            raise too_large(error, {"--clients": known.n_clients, "--shards": n_shards}) from None
    title = f"{fleet}: {known.n_clients} clients, {n_shards} shards, coherence {coherence:g}"
    if plot is not None:
        best = found.recommended
        own = next(one for one in sums if one.bits == best.bits)
        sending = seconds_sending(own, best.schedule, best.redundancy / known.n_clients * n_shards)
        slower = with_sending(known, sending)
        assignment = recommended_assignment(slower, best, n_shards, constraints_of(known), server_round)
        draw_plan(plot, found, assignment, title)
    if as_json:
        typer.echo(json.dumps(_as_data(found), indent=2, allow_nan=False))
        return
    Console().print(plan_table(found, title))
    for line in _sentences(found):
        typer.echo(line)
    if plot is not None:
        typer.echo(f"wrote {plot}")


def _sums(
    bits: list[int] | None,
    quantiser: str | None,
    entries: int | None,
    sample: Path | None,
    upload_mbps: float | None,
) -> list[SentSums]:
    """Return the ways to send sums that are to be tried."""
    from fedgc.planning.rounding import CHOICE, SINGLE, sent_sums  # noqa: PLC0415

    tried = bits or (CHOICE if upload_mbps is not None else (SINGLE,))
    for name, value in (("quantiser", quantiser), ("sample", sample), ("entries", entries)):
        if value is not None and not bits and upload_mbps is None:
            raise ConfigError(f"--{name} must be left out without --bits or --upload-mbps; got {value}")
    options: dict[str, Any] = {"quantiser": quantiser, "entries": entries, "upload_mbps": upload_mbps}
    if sample is not None:
        options["sample"] = _numbers(sample)
        options["entries"] = options["sample"].size if entries is None else entries
    given = {name: value for name, value in options.items() if value is not None}
    return [sent_sums(one, **given) for one in dict.fromkeys(tried)]


def _numbers(path: Path) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415

    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ConfigError(f"--sample must be a .npy file of numbers; got {str(path)!r} ({error})") from None


def _as_data(found: FleetPlan) -> dict[str, object]:
    """Return what ``--json`` prints."""
    from dataclasses import asdict  # noqa: PLC0415

    data: dict[str, object] = {"recommended": asdict(found.recommended), "verdict": found.verdict}
    data["choices"] = [asdict(choice) for choice in found.choices]
    if found.infeasible:
        data["infeasible"] = [{"redundancy": holders, "reason": reason} for holders, reason in found.infeasible]
    if found.remarks:
        data["remarks"] = list(found.remarks)
    return data


def _sentences(found: FleetPlan) -> list[str]:
    """Return what stands below the table: remarks, and the verdict last."""
    impossible = [f"{holders} holders per shard are not possible: {reason}" for holders, reason in found.infeasible]
    own = [found.recommended.remark] if found.recommended.remark else []
    if len({choice.bits for choice in found.choices}) > 1:
        bits = found.recommended.bits
        own.append("sums are best sent as they are" if bits == 32 else f"sums are best rounded to {bits} bits")
    return [*own, *found.remarks, *impossible, found.verdict]
