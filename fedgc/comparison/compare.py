"""Compare schemes on a fleet: residual error, bias and load over draws of the clients' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.decoders import DECODERS
from fedgc.errors import ConfigError
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.schemes import PAPER_SCHEMES, SCHEMES, Scheme

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
