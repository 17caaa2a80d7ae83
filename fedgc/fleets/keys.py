"""Random generators that belong to one purpose each, so that no draw shifts another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a generator is for; the numbers are part of what a seed means, so they never change."""

    ABSENCE = 101
    SLOWNESS = 102
    SESSIONS = 103
    OUTAGES = 104
    LEAVING = 105
    SPREAD = 106
    OUTCOMES = 107


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Return the generator of one purpose and key under a seed.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    purpose : Purpose
        What is drawn.
    *key : int
        Whose draws they are: a client or a site.

    Notes
    -----
    A spawn key and not one more number behind the seed: NumPy pads short entropy with zeros, so that ``[1, 2]`` and
    ``[1, 2, 0]`` seed the same generator, and the draws of a round are keyed by such a list.

    Examples
    --------
    >>> first, again = (generator(3, Purpose.SESSIONS, 7).random() for _ in range(2))
    >>> first == again, first == generator(3, Purpose.SESSIONS, 8).random()
    (True, False)
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(purpose), *key)))
