"""How often a failure domain is down as a whole, apart from what its clients miss by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.reliability import storage
from fedgc.reliability.counts import Vector
from fedgc.validation import check_positive

_FORMAT = "fedgc-outages-1"
#: Pseudo-counts (down, up) of the round after one in which the domain was up, and after one in which it was down.
#: Who names domains expects outages, in a round of twenty; how long they last is anybody's guess. With fewer counts, of
#: 0.1 say, next to all of the prior is about zero, and silences that may be chance would not move it for hundreds of
#: rounds.
_AFTER_UP, _AFTER_DOWN = (0.5, 9.5), (1.0, 1.0)
_UP, _DOWN = 0, 1


@dataclass(frozen=True, eq=False)
class OutagePosterior:
    """Posterior of each failure domain's probability to be down, given what its last round said.

    Parameters
    ----------
    after_up, after_down : (float, float)
        Pseudo-counts (down, up), all above 0, of Beta priors: of the round after one in which the domain was up, and of
        the round after one in which it was down.
    forgetting : float
        Factor in (0, 1] by which what is known of the rounds after either state fades with every round after that state
        in which a client of the domain is asked; 1 keeps it for ever.
    counts : ndarray, shape (n_domains, 2, 2)
        Pseudo-counts (down, up) after either state, up first. Not for callers to give.
    down : ndarray, shape (n_domains,)
        Probability that the domain was down in the last round in which a client of it was asked. Not for callers to
        give.

    Raises
    ------
    ValueError
        If a number lies outside its range.

    Notes
    -----
    A domain is a Markov chain of two states, up and down, of which only this is seen: a reply shows that it is up, and
    silence of all its clients may be an outage or chance. Let q_s be the probability to be down after state s, with the
    prior ``Beta(a_s, b_s)``, u the probability that it was down in the last round, and
    ``L = prod over the clients asked of (probability that the client is silent while its domain is up)``.
    With m_s = a_s / (a_s + b_s) the joint probability of the last state s, the present one t, and what was seen is

        w_(s,t)  ~  P(s) (m_s l if t is down, else (1 - m_s) L'),    P(down) = u,  P(up) = 1 - u,

    where ``l = 1, L' = L`` if all were silent, and ``l = 0, L' = 1`` if one replied. So the domain was down with
    probability ``r = w_(up,down) + w_(down,down)``, and the exact posterior of q_s is a mixture: ``Beta(a_s + 1, b_s)``
    with weight w_(s,down), ``Beta(a_s, b_s + 1)`` with w_(s,up), and as before with the rest. It is replaced by the
    Beta distribution of the same mean and variance. (Counts of r and 1 - r would have the mean, but be surer: where L
    is 1, as of clients that never reply, silence tells nothing, and here nothing changes.) The probability to be down
    in the coming round is ``u m_down + (1 - u) m_up``.

    A domain whose clients are all silent in one round of forty or less by chance is known within some tens of rounds;
    of two clients that each miss half of the rounds, outages are told from chance over hundreds only. Whether a
    silence was an outage is judged once, with what was known by then, and not again later.

    What an outage hides must not count against the clients, whose own probability to straggle is about rounds in which
    their domain is up: see :mod:`fedgc.round.after.learn_outages`, which takes r from here.

    Examples
    --------
    Two silent clients that each miss one round in ten are hardly chance:

    >>> posterior = OutagePosterior(after_up=(1.0, 19.0)).for_domains(2).update({0: 0.1 * 0.1, 1: None})
    >>> posterior.down.round(3).tolist()
    [0.909, 0.0]
    """

    after_up: tuple[float, float] = _AFTER_UP
    after_down: tuple[float, float] = _AFTER_DOWN
    forgetting: float = 0.99
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2, 2)), repr=False)
    down: Vector = field(default_factory=lambda: np.zeros(0), repr=False)

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("after_up", "after_down"):
            pair = getattr(self, name)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"{name} must be two pseudo-counts, of down and of up; got {pair!r:.80}")
            object.__setattr__(self, name, tuple(check_positive(f"{name}'s pseudo-counts", one) for one in pair))
        number = isinstance(self.forgetting, Real) and not isinstance(self.forgetting, bool)
        if not number or not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting must lie in (0, 1]; got {self.forgetting!r}")

    @cached_property
    def _prior(self) -> NDArray[np.float64]:
        return np.array([self.after_up, self.after_down])

    def for_domains(self, n_domains: int) -> OutagePosterior:
        """Return the posterior with so many domains; those that are new have the prior, in its stationary state."""
        new = n_domains - self.down.size
        if new <= 0:
            return self
        begin, stay = self._prior[:, 0] / self._prior.sum(axis=1)
        return replace(
            self,
            counts=np.concatenate([self.counts, np.broadcast_to(self._prior, (new, 2, 2))]),
            down=np.concatenate([self.down, np.full(new, begin / (begin + 1.0 - stay))]),
        )

    @property
    def outage_prob(self) -> Vector:
        """Probability that each domain is down in the coming round, shape (n_domains,), strictly inside (0, 1)."""
        mean = self.counts[:, :, 0] / self.counts.sum(axis=2)
        return np.asarray(self.down * mean[:, _DOWN] + (1.0 - self.down) * mean[:, _UP])

    def update(self, silence: Mapping[int, float | None]) -> OutagePosterior:
        """Return the posterior after a round.

        Parameters
        ----------
        silence : mapping of int to (float or None)
            For each domain of which clients were asked, by its number: None if one of them replied; if none did, the
            probability that none would have while the domain is up. What is known of other domains stays as it is.

        Raises
        ------
        ValueError
            If a number is no domain's, or no probability.
        """
        if not silence:
            return self
        numbers = np.array(list(silence), dtype=np.intp)
        if numbers.min() < 0 or numbers.max() >= self.down.size:
            raise ValueError(f"silence must be of domains 0 .. {self.down.size - 1}; got {sorted(silence)}")
        chance = np.array([1.0 if one is None else one for one in silence.values()], dtype=np.float64)
        if not ((chance >= 0.0) & (chance <= 1.0)).all():
            raise ValueError(
                f"silence must be None or lie in [0, 1]; got {chance[~((chance >= 0) & (chance <= 1))][0]}"
            )
        silent = np.array([one is not None for one in silence.values()])
        last = np.stack([1.0 - self.down[numbers], self.down[numbers]], axis=1)
        # Rounds after an outage are rare: if each round made them fade, hardly any would ever be remembered.
        kept = 1.0 - (1.0 - self.forgetting) * last[:, :, None]
        old = self._prior + kept * (self.counts[numbers] - self._prior)
        mean = old[:, :, 0] / old.sum(axis=2)
        weight = np.stack([last * mean * silent[:, None], last * (1.0 - mean) * chance[:, None]], axis=2)
        weight /= weight.sum(axis=(1, 2), keepdims=True)
        counts, down = self.counts.copy(), self.down.copy()
        counts[numbers], down[numbers] = _projected(old, weight), weight[:, :, 0].sum(axis=1)
        return replace(self, counts=counts, down=down)

    def to_data(self) -> dict[str, Any]:
        """Return the posterior as a dict of plain lists, numbers and strings, which JSON can hold.

        Examples
        --------
        >>> posterior = OutagePosterior().for_domains(1).update({0: 0.01})
        >>> OutagePosterior.from_data(posterior.to_data()).outage_prob == posterior.outage_prob
        array([ True])
        """
        return {
            "format": _FORMAT,
            "after_up": list(self.after_up),
            "after_down": list(self.after_down),
            "forgetting": self.forgetting,
            "counts": self.counts.tolist(),
            "down": self.down.tolist(),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> OutagePosterior:
        """Return the posterior that :meth:`to_data` wrote, equal in every number.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a value is not what it must be.
        """
        keys = ("format", "after_up", "after_down", "forgetting", "counts", "down")
        given = storage.check_keys("data", data, keys)
        if given["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT!r}; got {given['format']!r}")
        start = cls(given["after_up"], given["after_down"], given["forgetting"])
        n_domains = len(given["down"]) if isinstance(given["down"], list) else 0
        down = storage.numbers("down", given["down"], (n_domains,), 0.0, 1.0)
        counts = storage.numbers("counts", given["counts"], (n_domains, 2, 2), 0.0, np.inf)
        if (counts <= 0.0).any():
            raise ValueError(f"counts must be above 0; got {counts.min():g}")
        return replace(start, counts=counts, down=down)


def _projected(counts: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Beta distributions with mean and variance of the mixtures; see :class:`OutagePosterior`.

    Parameters
    ----------
    counts : ndarray, shape (n, 2, 2)
        a and b of each distribution before, by domain and last state.
    weight : ndarray, shape (n, 2, 2)
        w_(s,t), t being down first.
    """
    a, n = counts[..., 0], counts.sum(axis=2)
    m = a / n
    fell, stood = weight[..., 0], weight[..., 1]
    # With w = fell + stood the mean moves by (fell - w m) / (n + 1), which is exact where hardly anything was seen.
    seen = fell + stood
    step = (fell - seen * m) / (n + 1.0)
    mean = m + step
    # Variance of the mixture: within each part, and of the three means around their mean.
    up, down_ = (a + 1.0) / (n + 1.0), a / (n + 1.0)
    within = (fell * up * (1.0 - up) + stood * down_ * (1.0 - down_)) / (n + 2.0) + (1.0 - seen) * m * (1.0 - m) / (
        n + 1.0
    )
    between = fell * (up - mean) ** 2 + stood * (down_ - mean) ** 2 + (1.0 - seen) * step**2
    strength = mean * (1.0 - mean) / (within + between) - 1.0
    return np.stack([strength * mean, strength * (1.0 - mean)], axis=2)
