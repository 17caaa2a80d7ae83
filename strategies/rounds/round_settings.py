"""What rounds are sent and read by, the same in all rounds of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.shard_push import PushedShards
from numpy.typing import NDArray

from fedgc.moments import SecondMoment
from fedgc.quantisers import Quantiser


@dataclass(frozen=True, eq=False)
class RoundSettings:
    """What rounds are sent and read by; what they are planned by is in :class:`fedgc.round.Planning`.

    Attributes
    ----------
    seed : int
        Seed of the run, which clients are told.
    known_sizes : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where the server was not told.
    stop_in_time : bool
        Whether clients stop in time for the deadline by themselves, and need not be told how long to work.
    configrecord_key : str
        Name of the record that takes the round's number.
    secure_sum : SecureSum or None
        How sums are made, if the server is to have nothing else.
    shards : PushedShards or None
        The shards' data, if clients have it from the server.
    quantiser : Quantiser or None
        What clients are to round their sums by, if they are.
    second_moment : SecondMoment or None
        How the inner strategy wants the square of the exact update estimated, if it does.
    """

    seed: int
    known_sizes: NDArray[np.float64]
    stop_in_time: bool
    configrecord_key: str
    secure_sum: SecureSum | None
    shards: PushedShards | None
    quantiser: Quantiser | None
    second_moment: SecondMoment | None

    @property
    def sizes_given(self) -> bool:
        """Whether the server was told the number of examples of every shard."""
        return bool(np.isfinite(self.known_sizes).all())
