"""Flower's adaptive strategies with a second moment that knows of the decoding's noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedYogi
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from fedgc.moments import ScaledSquare, SecondMoment, build_second_moment
from fedgc.records.array_bytes import views

#: Name of the record that holds the estimated square, beside the arrays of the decoded reply.
SECOND_MOMENT = "fedgc-second-moment"


class _VarianceAware(FedOpt):
    """Takes the square out of the decoded reply, and puts its root where Flower squares the decoded update."""

    def __init__(
        self,
        *,
        second_moment: str = ScaledSquare.name,
        second_decoder: str | None = None,
        **options: Any,  # noqa: ANN401  (Flower's)
    ) -> None:
        super().__init__(**options)
        build_second_moment(second_moment, second_decoder)
        # Names, not the rule that they stand for: a checkpoint holds them.
        self.second_moment_name, self.second_decoder = second_moment, second_decoder
        self._squares: dict[str, NDArray[Any]] = {}

    @property
    def second_moment(self) -> SecondMoment | None:
        """How GradientCoding is to estimate the square of the exact update; None for that of the decoded one."""
        return build_second_moment(self.second_moment_name, self.second_decoder)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take Flower's step with the second moment that came with the reply, if one did."""
        replies = list(replies)
        for reply in replies:
            # Flower allows for one record of arrays.
            if reply.has_content() and SECOND_MOMENT in reply.content:
                self._squares = dict(views(reply.content.array_records[SECOND_MOMENT]))
                del reply.content[SECOND_MOMENT]
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self._squares = {}

    def _compute_deltat_and_mt(
        self, aggregated_arrayrecord: ArrayRecord
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        deltas, first, values = super()._compute_deltat_and_mt(aggregated_arrayrecord)
        # The first moment has been made of the deltas: from here on they are only squared.
        return {**deltas, **{name: np.sqrt(np.maximum(one, 0.0)) for name, one in self._squares.items()}}, first, values


class VarianceAwareFedAdam(_VarianceAware, FedAdam):
    """FedAdam whose second moment is that of the exact update, as far as it can be known, and not of the decoded one.

    Inside :class:`fedgc.strategies.GradientCoding`. The decoded update's square is too large by its variance on
    average, which shortens the steps, and most along the directions that only stragglers know.

    Parameters
    ----------
    second_moment : str
        "scale" (divided by one plus the predicted residual error, see :class:`fedgc.moments.ScaledSquare`), "subtract"
        (less the estimated variance, entry by entry, :class:`fedgc.moments.SubtractedVariance`), "second-track"
        (:class:`fedgc.moments.SecondTrack`), or "decoded": as in FedAdam. Negative squares count as zero, which biases
        the mean of "subtract" upwards.
    second_decoder : str, optional
        Of a second track: "least-squares" (default) or "bounded-mass".
    **options
        Those of Flower's FedAdam.

    Raises
    ------
    ValueError
        If there is no such second moment or decoder.

    Notes
    -----
    With its best step FedAdam needs no fewer rounds with any of these than with the decoded square, only with a
    smaller one: see ``experiments/neighbours/adam.md``. The noise of single entries is better left in. What it makes
    larger are the denominators of entries whose first moment is as noisy, and without it these take the longest steps
    of all. Hence "scale" by default, which takes the same share from all entries.

    Outside GradientCoding nothing tells a second moment, and it is FedAdam.

    References
    ----------
    S. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, for FedAdam and FedYogi.

    Examples
    --------
    >>> VarianceAwareFedAdam(eta=0.05).second_moment.name
    'scale'
    >>> VarianceAwareFedAdam(second_moment="decoded").second_moment is None
    True
    """


class VarianceAwareFedYogi(_VarianceAware, FedYogi):
    """FedYogi, likewise: see :class:`VarianceAwareFedAdam`.

    Examples
    --------
    >>> VarianceAwareFedYogi(second_moment="subtract").second_moment.name
    'subtract'
    """
