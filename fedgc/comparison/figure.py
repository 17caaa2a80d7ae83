"""A comparison as a figure: residual error against coherence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedgc.comparison.compare import Comparison
from fedgc.errors import ConfigError


def draw_comparison(path: Path, at_coherence: Callable[[float], list[Comparison]], title: str) -> None:
    """Draw residual error against coherence.

    Parameters
    ----------
    path : Path
        The file to write.
    at_coherence : callable
        Returns the comparison at a coherence, the same schemes each time.
    title : str
        The figure's title.

    Raises
    ------
    ConfigError
        If the file's ending is not one of .png, .svg and .pdf, or its folder does not exist.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (matplotlib takes a second to import)

    if path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir():
        raise ConfigError(f"--plot must be a .png, .svg or .pdf file in a folder that exists; got {str(path)!r}")
    grid = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    columns = [at_coherence(float(rho)) for rho in grid]
    figure = Figure(figsize=(8.0, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    markers = "os^vDPX*<>"
    for index, first in enumerate(columns[0]):
        errors = [column[index].residual_error for column in columns]
        ours = first.decoder == "optimal-unbiased"
        label = f"{first.scheme}, {first.decoder}"
        axes.plot(grid, errors, marker=markers[index % 10], markersize=4, linewidth=2.4 if ours else 1.2, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("coherence of the updates")
    axes.set_ylabel("residual error (median over draws)")
    axes.set_title(title)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", fontsize=7.5, frameon=False)
    figure.savefig(path)
