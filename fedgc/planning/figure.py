"""The plan as a picture: time to target against deadline, and who works on which shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedgc.assignment import Assignment
from fedgc.errors import ConfigError
from fedgc.planning.choice import BLOCK_CODES, Choice, FleetPlan

#: One colour per number of holders, distinguishable without red and green.
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#e45756")


def check_plot_path(path: Path) -> None:
    """Raise ConfigError unless the file's ending is one of .png, .svg and .pdf, and its folder exists; it is none."""
    if path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"--plot must be a .png, .svg or .pdf file in a folder that exists; got {str(path)!r}")


def draw_plan(path: Path, plan: FleetPlan, assignment: Assignment | None, title: str) -> None:
    """Draw the plan.

    Parameters
    ----------
    path : Path
        The file to write.
    plan : FleetPlan
        The plan.
    assignment : Assignment or None
        Blocks and lists of the recommended choice, None if its code knows none.
    title : str
        The figure's title.

    Raises
    ------
    ConfigError
        If the path cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (matplotlib takes a second to import)
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    check_plot_path(path)
    figure = Figure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    for redundancy in sorted({choice.redundancy for choice in plan.choices}):
        colour = _COLOURS[(redundancy - 1) % len(_COLOURS)]
        for schedule, line in (("work-list", "-"), ("full", "--")):
            points = _best_by_deadline(plan, redundancy, schedule)
            if points:
                holders = "1 holder" if redundancy == 1 else f"{redundancy} holders"
                left.plot(
                    [choice.deadline for choice in points],
                    [choice.relative_time_to_target for choice in points],
                    line,
                    color=colour,
                    marker="o" if schedule == "work-list" else "s",
                    markersize=3.5,
                    label=f"{holders}, {schedule}",
                )
    best = plan.recommended
    left.plot(best.deadline, best.relative_time_to_target, "*", color="black", markersize=13, label="recommended")
    left.set_xlabel("deadline (seconds)")
    alone = any(choice.redundancy == 1 for choice in plan.choices)
    left.set_ylabel(f"time to target (1: best {'with one holder' if alone else 'of all'})")
    left.set_xscale("log")
    low = plan.choices[0].relative_time_to_target
    left.set_ylim(0.9 * low, min(4.0, 1.1 * max(choice.relative_time_to_target for choice in plan.choices)))
    left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    left.tick_params(axis="x", which="both", labelsize=8)
    left.grid(alpha=0.25, linewidth=0.6)
    left.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=6, fontsize=7.5, frameon=False)
    left.set_title(title, fontsize=10, loc="left")
    if assignment is None:
        right.text(0.5, 0.5, f"{best.code}: every client\nhas equally many shards", ha="center", va="center")
        right.set_axis_off()
    else:
        image = right.imshow(_places(assignment), aspect="auto", interpolation="nearest", cmap="viridis_r")
        right.set_xlabel("shard, ordered by block")
        right.set_ylabel("client, ordered by block")
        right.xaxis.get_major_locator().set_params(integer=True)
        right.yaxis.get_major_locator().set_params(integer=True)
        right.set_title("recommended assignment", fontsize=10, loc="left")
        what = "place on the client's list" if assignment.schedule == "work-list" else "shards that the client computes"
        bar = figure.colorbar(image, ax=right, label=what)
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    figure.savefig(path)


def _best_by_deadline(plan: FleetPlan, redundancy: int, schedule: str) -> list[Choice]:
    best: dict[float, Choice] = {}
    for choice in plan.choices:
        # The literature's codes go on to deadlines that are not tried with blocks, and would bend the line.
        if choice.code in BLOCK_CODES and choice.redundancy == redundancy and choice.schedule == schedule:
            best.setdefault(choice.deadline, choice)
    return [best[deadline] for deadline in sorted(best)]


def _places(assignment: Assignment) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the place of each shard on each client's list, NaN where it is not on it, blocks along the diagonal."""
    place = np.full((assignment.n_clients, assignment.n_shards), np.nan)
    for client, shards in enumerate(assignment.lists):
        full = assignment.schedule == "full"
        place[client, shards] = shards.size if full else np.arange(1, shards.size + 1)
    # Clients without a shard come last.
    block = np.where(assignment.block_of_client < 0, assignment.n_blocks, assignment.block_of_client)
    return place[np.argsort(block, kind="stable")][:, np.argsort(assignment.block_of_shard, kind="stable")]
