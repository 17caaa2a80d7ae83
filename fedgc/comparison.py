"""Compare schemes on a fleet: residual error, bias and load over draws of the clients' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from fedgc.analysis import analyse
from fedgc.decoders import DECODERS
from fedgc.errors import ConfigError
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.schemes import PAPER_SCHEMES, SCHEMES, Scheme

#: Biases below this are rounding.
_ROUNDING = 1e-9
#: More clients or draws than this are a slip of the keyboard.
_MOST = 10_000_000


@dataclass(frozen=True)
class Comparison:
    """One scheme's line.

    Attributes
    ----------
    scheme, decoder : str
        Names of the code and of the decoder.
    load : float
        Number of shard copies per shard, mean over draws.
    residual_error : float
        Median over draws of the fleet.
    bias : float
        Largest absolute bias of a shard, over shards and draws. Where `standard_error` is above 0 it is estimated as
        well, and a maximum of noisy entries is too large rather than too small.
    standard_error : float
        Standard error of the residual error of one draw, median over draws; 0 where it is exact.
    ratio_to_paper : float
        Median over draws of (the better of the base paper's two schemes) / (this one).
    """

    scheme: str
    decoder: str
    load: float
    residual_error: float
    bias: float
    standard_error: float
    ratio_to_paper: float


def compare(
    fleet: str,
    *,
    clients: int,
    deadline: float,
    coherence: float,
    load: int = 2,
    draws: int = 100,
    seed: int = 0,
    arrival_draws: int = 200,
    schemes: Sequence[Scheme] = SCHEMES,
    on_draw: Callable[[int], None] = lambda _: None,
) -> list[Comparison]:
    """Return a line per scheme, for n clients and n shards.

    Parameters
    ----------
    fleet : str
        Name of a preset fleet.
    clients : int
        Number of clients and of shards.
    deadline : float
        Seconds per round. In the paper's fleet, whose rounds take at least one second, it is the paper's tau.
    coherence : float
        rho in ``G = rho 11' + (1 - rho) I``, in [0, 1).
    load : int
        Copies of each shard; the base paper's schemes have just under two whatever it is, and uncoded has one. Schemes
        that do not exist for a size (a regular graph of odd degree on an odd number of clients) are left out.
    draws : int
        Number of draws of the fleet's clients (its seeds seed, seed + 1, ...). All schemes meet the same ones.
    seed : int
        Seed of the first draw.
    arrival_draws : int
        Number of random arrival sets per draw, for decoders without a closed form.
    schemes : sequence of Scheme
        What to compare.
    on_draw : callable
        Called with the number of draws done.

    Raises
    ------
    ConfigError
        If an argument is out of range.
    """
    if not 0.0 <= coherence < 1.0:
        raise ConfigError(f"coherence must lie in [0, 1); got {coherence}")
    whole = (("clients", clients, 1), ("draws", draws, 1), ("load", load, 1), ("arrival_draws", arrival_draws, 2))
    for name, value, low in (*whole, ("seed", seed, 0)):
        if value < low:
            raise ConfigError(f"{name} must be an integer of at least {low}; got {value}")
        if name in ("clients", "draws") and value > _MOST:
            raise ConfigError(f"{name} must be an integer from {low} to {_MOST}; got {value}")
    if not 0.0 < deadline < np.inf:
        raise ConfigError(f"deadline must be a finite number above 0; got {deadline}")
    if load > clients:
        raise ConfigError(f"load must be an integer from 1 to clients = {clients}; got {load}")
    if clients * load % 2 or load >= clients:
        # A regular graph of that degree does not exist.
        schemes = [scheme for scheme in schemes if scheme.name != "random-regular"]
    gram = GramModel.uniform(clients, coherence)
    loads, errors, biases, noises = (np.zeros((draws, len(schemes))) for _ in range(4))
    for draw in range(draws):
        p = build_fleet({"preset": fleet, "clients": clients}, seed=seed + draw).straggle_prob(deadline, float(load))
        if (p >= 1.0).any():
            raise ConfigError(f"deadline must be long enough for every client to make it at times; got {deadline:g}")
        for index, scheme in enumerate(schemes):
            rng = np.random.default_rng([seed, draw, index])
            calibrated = DECODERS[scheme.decoder]().calibrate(scheme.build(p, load, rng), p, gram)
            analysis = analyse(calibrated, p, gram, rng=rng, draws=arrival_draws)
            loads[draw, index] = analysis.load
            errors[draw, index] = analysis.residual_error
            noises[draw, index] = analysis.standard_error
            biases[draw, index] = np.abs(analysis.bias).max()
        on_draw(draw + 1)
    paper = [index for index, scheme in enumerate(schemes) if scheme.name in PAPER_SCHEMES]
    yardstick = errors[:, paper].min(axis=1) if paper else np.full(draws, np.nan)
    return [
        Comparison(
            scheme=scheme.name,
            decoder=scheme.decoder,
            load=float(loads[:, index].mean()),
            residual_error=float(np.median(errors[:, index])),
            bias=float(biases[:, index].max()),
            standard_error=float(np.median(noises[:, index])),
            ratio_to_paper=float(np.median(_ratio(yardstick, errors[:, index]))),
        )
        for index, scheme in enumerate(schemes)
    ]


def _ratio(yardstick: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the yardstick in units of the errors: one where neither errs, as when everybody comes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((yardstick == 0.0) & (errors == 0.0), 1.0, yardstick / errors)


def select_schemes(names: Sequence[str]) -> list[Scheme]:
    """Return the schemes with these names, all if there are none; the base paper's are kept as the yardstick.

    Raises
    ------
    ConfigError
        If a name is not known.
    """
    known = list(dict.fromkeys(scheme.name for scheme in SCHEMES))
    for name in names:
        if name not in known:
            raise ConfigError(f"scheme must be one of {', '.join(known)}; got {name!r}")
    return [scheme for scheme in SCHEMES if not names or scheme.name in (*names, *PAPER_SCHEMES)]


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
