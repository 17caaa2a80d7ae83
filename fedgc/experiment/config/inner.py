"""The inner strategy of an experiment's GradientCoding: FedAvg, with momentum or without, or an adaptive one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvg, FedAvgM, Strategy

from fedgc.experiment.config.keys import Momentum, Positive, Section
from fedgc.moments import DECODED, build_second_moment
from fedgc.strategies import VarianceAwareFedAdam, VarianceAwareFedYogi
from fedgc.validation import one_of

FEDAVG = "fedavg"
#: FedAvg with a learning rate and a momentum of the server's.
FEDAVGM = "fedavgm"
_ADAPTIVE: Mapping[str, type[VarianceAwareFedAdam] | type[VarianceAwareFedYogi]] = {
    "fedadam": VarianceAwareFedAdam,
    "fedyogi": VarianceAwareFedYogi,
}
#: The inner strategies by name.
INNER = (FEDAVG, FEDAVGM, *_ADAPTIVE)
_STEP = {"server_learning_rate": "server_learning_rate", "server_momentum": "server_momentum"}
_MOMENTS = {"server_learning_rate": "eta", "beta_1": "beta_1", "beta_2": "beta_2", "adaptivity": "tau"}
#: Keys of each inner strategy, and Flower's names for them.
_OPTIONS: Mapping[str, Mapping[str, str]] = {FEDAVG: {}, FEDAVGM: _STEP, **dict.fromkeys(_ADAPTIVE, _MOMENTS)}
_SECOND_MOMENT = ("second_moment", "second_decoder")


class InnerConfig(Section):
    """Keys of the inner strategy.

    Attributes
    ----------
    inner : str
        "fedavg", "fedavgm", "fedadam" or "fedyogi".
    server_learning_rate : float, optional
        Of all but "fedavg": the step of the server, which Flower's adaptive strategies call ``eta``.
    server_momentum : float, optional
        Of "fedavgm".
    beta_1, beta_2, adaptivity : float, optional
        Of the adaptive ones: Flower's ``beta_1``, ``beta_2`` and ``tau``, and their defaults there.
    second_moment, second_decoder : str, optional
        Likewise; "decoded", which is what Flower's strategies do, by default. See
        :class:`fedgc.strategies.VarianceAwareFedAdam`.
    """

    inner: str = FEDAVG
    server_learning_rate: Positive | None = None
    server_momentum: Momentum | None = None
    beta_1: Momentum | None = None
    beta_2: Momentum | None = None
    adaptivity: Positive | None = None
    second_moment: str | None = None
    second_decoder: str | None = None

    def check_inner(self) -> None:
        """Check what no single key shows.

        Raises
        ------
        ValueError
            If there is no such inner strategy, second moment or decoder, or a key is given that has no use.
        """
        one_of("inner", self.inner, list(INNER))
        heeded = [*_OPTIONS[self.inner], *(_SECOND_MOMENT if self.inner in _ADAPTIVE else ())]
        for key in dict.fromkeys([*_STEP, *_MOMENTS, *_SECOND_MOMENT]):
            value = getattr(self, key)
            if value is not None and key not in heeded:
                own = f"heeds only {', '.join(heeded)} of these" if heeded else "heeds none of these"
                raise ValueError(f"{key} must be left out for inner {self.inner!r}, which {own}; got {value!r}")
        build_second_moment(self.second_moment or DECODED, self.second_decoder)

    def build_inner(self, options: Mapping[str, Any]) -> Strategy:
        """Return the inner strategy with these options of FedAvg, which all of them have."""
        names = _OPTIONS[self.inner]
        own = {flower: getattr(self, key) for key, flower in names.items() if getattr(self, key) is not None}
        if self.inner == FEDAVG:
            return FedAvg(**options)
        if self.inner == FEDAVGM:
            return FedAvgM(**own, **options)
        return _ADAPTIVE[self.inner](
            second_moment=self.second_moment or DECODED, second_decoder=self.second_decoder, **own, **options
        )
