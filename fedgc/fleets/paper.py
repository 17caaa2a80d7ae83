"""The straggler model of the base paper, as completion times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fedgc.fleets.base import Fleet
from fedgc.fleets.parameters import Parameter, Vector
from fedgc.validation import check_integer

_PSI_RANGE = {"low": 0.1, "high": 2.0}


class PaperFleet(Fleet):
    """Client i misses the deadline ``tau x seconds`` with probability ``exp(-psi_i (tau - 1))``.

    Parameters
    ----------
    psi_low, psi_high : float
        Range of the uniform distribution that each client's rate psi_i is drawn from, once per seed, unless `psi` is
        given; a NaN in `psi` is drawn as well.

    Notes
    -----
    This is the distribution of ``seconds x (1 + E / psi_i)`` with E standard exponential. As in the paper, the time
    does not depend on the load, unless ``scale_with_load`` is 1.

    References
    ----------
    H. Song, J. Choi, arXiv 2510.22539, section 6: psi uniform on (0.1, 2), tau in {1.1, 1.5}.

    Examples
    --------
    >>> PaperFleet(2, seed=1, psi=[0.1, 2.0]).straggle_prob(deadline=1.5, load=1).round(4).tolist()
    [0.9512, 0.3679]
    """

    name: ClassVar[str] = "paper"
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        **Fleet.PARAMETERS,
        "psi": Parameter(np.nan, low=1e-9),  # rate of each client
        "psi_low": Parameter(_PSI_RANGE["low"], low=1e-9),
        "psi_high": Parameter(_PSI_RANGE["high"], low=1e-9),
        "seconds": Parameter(1.0),  # least time of a round
        "scale_with_load": Parameter(0.0, high=1.0),  # 1: time grows with the load, 0: it does not
    }

    def __init__(self, n_clients: int, *, seed: int, loss_detection: float = 60.0, **parameters: ArrayLike) -> None:
        n_clients = check_integer("clients", n_clients, low=1)
        given = np.array(np.broadcast_to(np.asarray(parameters.get("psi", np.nan), dtype=np.float64), n_clients))
        if np.isnan(given).any():
            low, high = (np.asarray(parameters.get(f"psi_{end}", default)) for end, default in _PSI_RANGE.items())
            if (low > high).any():
                raise ValueError(f"psi_low must be at most psi_high = {high}; got {low}")
            # No client has the index n_clients, so that no draw of a round has this key.
            drawn = np.random.default_rng([seed, n_clients]).uniform(low, high, n_clients)
            given = np.where(np.isnan(given), drawn, given)
        super().__init__(n_clients, seed=seed, loss_detection=loss_detection, **{**parameters, "psi": given})

    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        seconds = own["seconds"] * (1.0 - np.log1p(-u) / own["psi"])
        scales = np.where(own["scale_with_load"] > 0, 1.0, 0.0)
        return (1.0 - scales) * seconds, scales * seconds

    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        unit = own["seconds"] * np.where(own["scale_with_load"] > 0, load, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spare = np.nan_to_num((seconds - unit) / unit, nan=np.inf, posinf=np.inf)
        return np.where(seconds < unit, 0.0, 1.0 - np.exp(-own["psi"] * np.maximum(spare, 0.0)))
