"""Draw the picture of a round that the README shows: python experiments/figures/draw_round.py."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parent
BLOCKS = ("#56B4E9", "#E69F00", "#CC79A7")
DEADLINE, LANES = 6.0, 6
# One line per client: block, seconds of work, and whether it answers at all.
CLIENTS = ((0, 3.1, True), (0, 8.4, True), (1, 4.9, True), (1, 5.6, True), (2, 2.2, False), (2, 5.2, True))


def main() -> None:
    """Write round.png and round.svg beside this file."""
    figure = Figure(figsize=(10.0, 4.4), dpi=150)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-5.6, 15.2)
    axes.set_ylim(-1.35, LANES + 1.35)
    axes.axis("off")

    headings = (
        (-3.6, "1 assign"),
        (1.0, "2 encode"),
        (DEADLINE, "3 deadline"),
        (9.7, "4 decode"),
        (13.3, "5 reliability"),
    )
    for x, text in headings:
        axes.text(x, LANES + 0.85, text, ha="center", fontsize=12, fontweight="bold")

    for lane, (block, seconds, answers) in enumerate(CLIENTS):
        y = LANES - 0.5 - lane
        shards = f"shards {2 * block + 1}, {2 * block + 2}"
        axes.add_patch(_box(-5.3, y - 0.32, 3.3, 0.64, BLOCKS[block]))
        axes.text(-3.65, y, f"client {lane + 1}: {shards}", ha="center", va="center", fontsize=9.5)
        in_time = answers and seconds <= DEADLINE
        end = min(seconds, 7.4)
        axes.barh(y, end, height=0.42, color=BLOCKS[block], alpha=1.0 if in_time else 0.3)
        if not answers:
            axes.text(end + 0.1, y, "vanishes", va="center", fontsize=9, color="0.3")
        elif not in_time:
            axes.text(end + 0.1, y, "too late", va="center", fontsize=9, color="0.3")
        else:
            start = (seconds + 0.08, y)
            axes.add_patch(
                FancyArrowPatch(start, (7.95, 3.0), arrowstyle="-|>", mutation_scale=9, color="0.45", linewidth=0.9)
            )
    axes.plot([DEADLINE, DEADLINE], [-0.15, LANES + 0.6], color="#D55E00", linewidth=2)
    axes.annotate("", (7.2, -0.3), (0, -0.3), arrowprops={"arrowstyle": "-|>", "color": "0.3"})
    axes.text(0.0, -0.75, "time in the round: each client sums the updates of its shards", fontsize=9, color="0.3")

    axes.add_patch(_box(7.95, 1.75, 3.6, 2.5, "white"))
    axes.text(9.75, 3.75, "weights make the sum\nunbiased over who came", ha="center", va="center", fontsize=8.5)
    axes.text(9.75, 2.6, r"$\hat g=\sum_i w_i\,c_i$", ha="center", va="center", fontsize=15)
    axes.text(9.75, 1.98, "one copy of a block is enough", ha="center", va="center", fontsize=7.5, color="0.3")
    _arrow(axes, (9.75, 1.7), (9.75, 0.85))
    axes.text(9.75, 0.5, "inner strategy: FedAvg, FedAdam, ...", ha="center", fontsize=9.5)

    axes.add_patch(_box(12.0, 1.75, 2.9, 2.5, "white"))
    axes.text(
        13.45,
        3.0,
        "who came updates\nthe probability\nthat each client\nmakes it next time",
        ha="center",
        va="center",
        fontsize=8.5,
    )
    _arrow(axes, (11.6, 3.0), (11.98, 3.0))
    axes.plot([13.45, 13.45, -3.65, -3.65], [1.7, -1.05, -1.05, -0.75], color="0.45", linewidth=0.9)
    _arrow(axes, (-3.65, -0.8), (-3.65, -0.1))

    with rc_context({"svg.hashsalt": "fedgc"}):
        figure.savefig(HERE / "round.png", metadata={"Software": None})
        figure.savefig(HERE / "round.svg", metadata={"Date": None})


def _box(x: float, y: float, width: float, height: float, colour: str) -> FancyBboxPatch:
    style = "round,pad=0.02,rounding_size=0.15"
    return FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor="0.35", linewidth=0.8)


def _arrow(axes, start, end) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="0.45", linewidth=0.9))


if __name__ == "__main__":
    main()
