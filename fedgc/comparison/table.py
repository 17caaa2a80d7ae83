"""A comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from fedgc.comparison.compare import Comparison

#: Biases below this are rounding.
_ROUNDING = 1e-9


def comparison_table(lines: Sequence[Comparison], title: str) -> Table:
    """Return the comparison as a table for the terminal."""
    caption = "residual error and ratio: median over draws; bias: largest; ±: standard error where not exact"
    # The names alone take forty columns: with the lines between columns only, and no padding, the table fits eighty.
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0)
    )
    table.add_column("scheme", no_wrap=True)
    table.add_column("decoder", no_wrap=True)
    for heading in ("load", "residual error", "bias", "ratio to\npaper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        noise = f" ± {line.standard_error:.1g}" if line.standard_error else ""
        bias = "0" if line.bias < _ROUNDING else f"{line.bias:.2g}"
        table.add_row(
            line.scheme,
            line.decoder,
            f"{line.load:.2f}",
            f"{line.residual_error:.3g}{noise}",
            bias,
            f"{line.ratio_to_paper:.2f}",
        )
    return table
