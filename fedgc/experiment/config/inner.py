"""The inner strategy of an experiment's GradientCoding: FedAvg, or an adaptive one of Flower's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from flwr.serverapp.strategy import FedAvg, Strategy
from pydantic import Field

from fedgc.experiment.config.keys import Positive, Section
from fedgc.moments import DECODED, build_second_moment
from fedgc.strategies import VarianceAwareFedAdam, VarianceAwareFedYogi
from fedgc.validation import one_of

FEDAVG = "fedavg"
_ADAPTIVE: Mapping[str, type[VarianceAwareFedAdam] | type[VarianceAwareFedYogi]] = {
    "fedadam": VarianceAwareFedAdam,
    "fedyogi": VarianceAwareFedYogi,
}
#: The inner strategies by name.
INNER = (FEDAVG, *_ADAPTIVE)
#: Keys of adaptive strategies, and Flower's names for them.
_OPTIONS = {"server_learning_rate": "eta", "beta_1": "beta_1", "beta_2": "beta_2", "adaptivity": "tau"}

_Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]


class InnerConfig(Section):
    """Keys of the inner strategy.

    Attributes
    ----------
    inner : str
        "fedavg", "fedadam" or "fedyogi".
    server_learning_rate, beta_1, beta_2, adaptivity : float, optional
        Of the adaptive ones: Flower's ``eta``, ``beta_1``, ``beta_2`` and ``tau``, and their defaults there.
    second_moment, second_decoder : str, optional
        Likewise; "decoded", which is what Flower's strategies do, by default. See
        :class:`fedgc.strategies.VarianceAwareFedAdam`.
    """

    inner: str = FEDAVG
    server_learning_rate: Positive | None = None
    beta_1: _Decay | None = None
    beta_2: _Decay | None = None
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
        if self.inner == FEDAVG:
            for key in (*_OPTIONS, "second_moment", "second_decoder"):
                value = getattr(self, key)
                if value is not None:
                    raise ValueError(
                        f"{key} must be left out for inner {FEDAVG!r}, which is not adaptive; got {value!r}"
                    )
        build_second_moment(self.second_moment or DECODED, self.second_decoder)

    def build_inner(self, options: Mapping[str, Any]) -> Strategy:
        """Return the inner strategy with these options of FedAvg, which all of them have."""
        if self.inner == FEDAVG:
            return FedAvg(**options)
        own = {flower: getattr(self, key) for key, flower in _OPTIONS.items() if getattr(self, key) is not None}
        return _ADAPTIVE[self.inner](
            second_moment=self.second_moment or DECODED, second_decoder=self.second_decoder, **own, **options
        )
