"""The plan as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from fedgc.planning.choice import Choice, FleetPlan
from fedgc.planning.rounding import SINGLE


def best_per_design(plan: FleetPlan) -> list[Choice]:
    """Return the best choice of every redundancy, schedule and code, soonest first."""
    best: dict[tuple[int, str, str], Choice] = {}
    for choice in plan.choices:
        best.setdefault(choice.design, choice)
    return list(best.values())


def plan_table(plan: FleetPlan, title: str) -> Table:
    """Return a line per redundancy, schedule and code, at its best decoder and deadline; the recommended is marked."""
    alone = " without redundancy" if any(choice.redundancy == 1 for choice in plan.choices) else ""
    caption = (
        f"each with its best decoder and deadline (--json has all), in seconds; time: to target, 1 for the best{alone}"
    )
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0)
    )
    table.add_column("", no_wrap=True, min_width=1)
    table.add_column("held\nby", justify="right", no_wrap=True, min_width=4)
    rounded = any(choice.bits != SINGLE for choice in plan.choices)
    # Another column has room within eighty if this one is narrower.
    table.add_column("sche-\ndule" if rounded else "schedule", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("decoder", no_wrap=True)
    if rounded:
        table.add_column("bits", justify="right", no_wrap=True)
    for heading in ("dead-\nline", "round", "come", "error", "time", "moved"):
        table.add_column(heading, justify="right", no_wrap=True)
    for choice in best_per_design(plan):
        recommended = choice.design == plan.recommended.design
        shown = plan.recommended if recommended else choice
        table.add_row(
            "▶" if recommended else "",
            str(shown.redundancy),
            _SHORT.get(shown.schedule, shown.schedule) if rounded else shown.schedule,
            _SHORT.get(shown.code, shown.code),
            _SHORT.get(shown.decoder, shown.decoder),
            *([str(shown.bits)] if rounded else []),
            _seconds(shown.deadline),
            _seconds(shown.round_time),
            f"{shown.arrivals:.1f}",
            f"{shown.residual_error:.3g}",
            f"{shown.relative_time_to_target:.3g}",
            str(shown.shards_moved),
            style="bold" if recommended else "",
        )
    return table


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


#: Names that would take the table past eighty columns.
_SHORT = {
    "fractional-repetition": "repetition",
    "cyclic-repetition": "cyclic",
    "random-regular": "regular",
    "optimal-unbiased": "optimal",
    "inverse-probability": "inverse p",
    "work-list": "lists",
}
