"""Sums that clients round to a few bits, in a plan: the noise that this adds, and the seconds that it saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.decoders import CalibratedDecoder
from fedgc.errors import ConfigError
from fedgc.fleets import Fleet, TraceFleet
from fedgc.gram import GramModel
from fedgc.quantisers import MOST_BITS, QUANTISERS, BucketedNorm, Quantiser
from fedgc.validation import check_integer, check_positive, one_of

#: What is sent where nothing is rounded: single precision.
SINGLE = 32
#: Bits that a plan chooses among where it knows how long sending takes.
CHOICE = (4, 8, 16, SINGLE)
#: Entries of the model where nobody says how many; more of them are a slip of the keyboard.
ENTRIES, MOST_ENTRIES = 100_000, 10**9


@dataclass(frozen=True)
class SentSums:
    """How a client's sums are sent.

    Attributes
    ----------
    bits : int
        Bits per entry, 32 for single precision.
    variance_factor : float
        omega with ``E|Q(x) - x|^2 = omega |x|^2``, as measured; 0 where nothing is rounded.
    n_bytes : int
        Bytes of a sum.
    seconds : float
        Seconds in which a client sends one, 0 if that is in the fleet's times already.
    """

    bits: int = SINGLE
    variance_factor: float = 0.0
    n_bytes: int = 0
    seconds: float = 0.0


def sent_sums(
    bits: int,
    *,
    quantiser: str = BucketedNorm.name,
    entries: int = ENTRIES,
    sample: ArrayLike | None = None,
    upload_mbps: float | None = None,
) -> SentSums:
    """Return what rounding to so many bits means, by the quantiser itself.

    Parameters
    ----------
    bits : int
        From 1 to 16, or 32 for sums that are sent as they are.
    quantiser : str
        One of ``fedgc.quantisers.QUANTISERS``.
    entries : int
        Entries of the model.
    sample : array_like, optional
        An update, or a part of one, whose rounding as entries of the whole is measured; of normal numbers if not given.
        Where few entries of real updates are much larger than the rest, they have several times the variance.
    upload_mbps : float, optional
        Megabits per second that a client sends.

    Raises
    ------
    ConfigError
        If one is out of range; one line.

    Examples
    --------
    >>> eight = sent_sums(8, entries=100_000, upload_mbps=1.0)
    >>> eight.n_bytes, round(eight.seconds, 2), f"{eight.variance_factor:.1e}"
    (100800, 0.81, '1.1e-04')
    """
    try:
        if bits != SINGLE and not (isinstance(bits, int) and 1 <= bits <= MOST_BITS):
            raise ValueError(
                f"bits must be an integer from 1 to {MOST_BITS}, or {SINGLE} for none rounded; got {bits!r}"
            )
        kind = QUANTISERS[one_of("quantiser", quantiser, list(QUANTISERS))]
        check_integer("entries", entries, low=1, high=MOST_ENTRIES)
        rate = None if upload_mbps is None else check_positive("upload_mbps", upload_mbps)
        if bits == SINGLE:
            factor, n_bytes = 0.0, 4 * entries
        else:
            factor, n_bytes = _factor(kind(bits), sample, entries), kind(bits).n_bytes(entries)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return SentSums(bits, factor, n_bytes, 0.0 if rate is None else 8e-6 * n_bytes / rate)


def _factor(quantiser: Quantiser, sample: ArrayLike | None, entries: int) -> float:
    if sample is None:
        return quantiser.usual_variance_factor(entries)
    vector = np.asarray(sample, dtype=np.float64).ravel()
    if vector.size == 0 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"sample must hold finite numbers, not all 0; got {vector.size} entries")
    # A larger model's update says of a smaller one what it says of itself.
    return quantiser.variance_factor(vector, entries=max(entries, vector.size))


def seconds_sending(sums: SentSums, schedule: str, per_client: float) -> float:
    """Return how long a client sends its reply: one sum of all, or on work lists one for each of its shards.

    Parameters
    ----------
    sums : SentSums
        How sums are sent.
    schedule : str
        "full" or "work-list".
    per_client : float
        Shards that a client holds, in the mean.

    Examples
    --------
    >>> sums = SentSums(seconds=0.5)
    >>> seconds_sending(sums, "full", 8.0), seconds_sending(sums, "work-list", 8.0)
    (0.5, 4.0)
    """
    return sums.seconds * (max(per_client, 1.0) if schedule == "work-list" else 1.0)


def with_sending(fleet: Fleet, seconds: float) -> Fleet:
    """Return a fleet whose messages take so many seconds longer.

    Raises
    ------
    ConfigError
        If it is a recorded trace: what was recorded ends with the reply, and how much of it was sending is not known.

    Examples
    --------
    >>> from fedgc.fleets import build_fleet
    >>> fleet = build_fleet({"model": "log-normal", "clients": 2, "median": 2.0, "sigma": 0.0}, seed=1)
    >>> float(with_sending(fleet, 3.0).completion_time(0, 0, 4))
    11.0
    """
    if seconds == 0.0:
        return fleet
    if isinstance(fleet, TraceFleet):
        raise ConfigError("upload_mbps must be left out for a recorded trace, whose times have the sending in them")
    parameters = {**fleet.parameters, "overhead": fleet.parameters["overhead"] + seconds}
    return type(fleet)(fleet.n_clients, seed=fleet.seed, loss_detection=fleet.loss_detection, **parameters)


def with_noise(error: float, gram: GramModel, noisy: GramModel) -> float:
    """Return the residual error relative to the updates alone, of one that is relative to `noisy`.

    Notes
    -----
    With n the noise of the rounding by shard and ``E[v] = 1``,
    ``E[(v - 1)' G (v - 1)] + E[sum v^2 n] = E[(v - 1)' (G + diag n) (v - 1)] + sum n``, for any unbiased decoder.
    """
    ones = np.ones(gram.incoherent.size)
    clean = gram.inner(ones, ones)
    return (error * noisy.inner(ones, ones) + float((noisy.incoherent - gram.incoherent).sum())) / clean


def noise_apart(decoder: CalibratedDecoder, come: NDArray[np.float64], gram: GramModel, factor: float) -> float:
    """Return what rounding adds to the residual error of a code whose rows overlap, with weights that are settled.

    Parameters
    ----------
    decoder : CalibratedDecoder
        The decoder.
    come : ndarray, shape (n_rows,)
        Probability of each row to arrive, independently of the others.
    gram : GramModel
        Model of the shards.
    factor : float
        omega.

    Notes
    -----
    Each client rounds what only it sends with a seed of its own, rows that are equal alike. A row with weight w_r that
    arrives with probability p_r brings ``omega e_r w_r^2 p_r``, e_r its energy; of equal rows the mean of their sum
    squared counts, ``(sum p_r w_r)^2 + sum p_r (1 - p_r) w_r^2``.
    """
    matrix = decoder.code.sparse_matrix
    weights = decoder.decode(np.ones(decoder.code.n_rows, dtype=np.bool_)).decoding_weights
    groups: dict[bytes, list[int]] = {}
    for row in range(decoder.code.n_rows):
        inside = slice(*matrix.indptr[row : row + 2])
        groups.setdefault(matrix.indices[inside].tobytes() + matrix.data[inside].tobytes(), []).append(row)
    total = 0.0
    for rows in groups.values():
        inside = slice(*matrix.indptr[rows[0] : rows[0] + 2])
        shards, own = matrix.indices[inside], matrix.data[inside]
        energy = float(own**2 @ gram.incoherent[shards] + (own @ gram.coherent[shards]) ** 2)
        w, p = weights[rows], come[rows]
        total += energy * float((p @ w) ** 2 + (p * (1.0 - p)) @ w**2)
    ones = np.ones(gram.incoherent.size)
    return factor * total / gram.inner(ones, ones)
