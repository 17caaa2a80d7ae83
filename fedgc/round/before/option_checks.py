"""Checks of how rounds are to be planned: what goes together, told before anything runs."""

from __future__ import annotations

from fedgc.decoders import DECODERS, Decoder, OptimalUnbiasedDecoder
from fedgc.validation import check_integer, one_of


def check_list_options(
    schedule: str, *, sums: str | None = None, redraw: bool | None = None, fetch_seconds: float | None = None
) -> None:
    """Raise ValueError if options are given that only work lists heed, and the schedule is another.

    Parameters
    ----------
    schedule : str
        "full" or "work-list".
    sums, redraw, fetch_seconds
        As in :class:`Planning`; None where not given.

    Examples
    --------
    >>> check_list_options("full", sums="whole")
    Traceback (most recent call last):
    ...
    ValueError: sums must be left out for schedule 'full', where a client sends one sum of all its shards; got 'whole'
    """
    if schedule == "work-list":
        return
    given = (
        ("sums", sums, "where a client sends one sum of all its shards"),
        ("redraw", redraw or None, "where the order of a client's shards does not matter"),
        ("fetch_seconds", fetch_seconds, "whose blocks go by reassignment_gain"),
    )
    for name, value, why in given:
        if value is not None:
            raise ValueError(f"{name} must be left out for schedule {schedule!r}, {why}; got {value!r:.80}")


def check_in_a_row(
    in_a_row: bool, *, schedule: str, sums: str | None, redraw: bool | None = None, given_code: bool = False
) -> None:
    """Raise ValueError if clients are to train on from shard to shard, and something else does not go with it.

    Parameters
    ----------
    in_a_row : bool
        Whether they are.
    schedule : str
        As in :class:`Planning`.
    sums : str or None
        As there, None where not given.
    redraw : bool or None
        As there.
    given_code : bool
        Whether a code says itself who holds what.

    Examples
    --------
    >>> check_in_a_row(True, schedule="full", sums=None)
    Traceback (most recent call last):
    ...
    ValueError: in_a_row must be False for schedule 'full', whose holders all send the same sum; got True
    """
    if not isinstance(in_a_row, bool):
        raise ValueError(f"in_a_row must be True or False; got {in_a_row!r:.80}")
    if not in_a_row:
        return
    if schedule != "work-list":
        raise ValueError(
            f"in_a_row must be False for schedule {schedule!r}, whose holders all send the same sum; got True"
        )
    if given_code:
        raise ValueError("in_a_row must be False for a code that says itself who holds what; got True")
    if redraw is False:
        raise ValueError("redraw must not be False with in_a_row, where all shards of a row count alike; got it")
    if sums not in (None, "shard"):
        raise ValueError(f"sums must be left out with in_a_row, whose clients send what they end with; got {sums!r}")


#: How work lists may be ordered.
ORDERS = ("least-error", "worst-case")


def check_order(order: str, *, schedule: str, sums: str | None, given_code: bool) -> None:
    """Raise ValueError unless `order` is one of :data:`ORDERS`, and the first but for lists of ours, shard by shard.

    Parameters
    ----------
    order, schedule : str
        As in :class:`Planning`.
    sums : str or None
        As there, None for its default.
    given_code : bool
        Whether a code says itself who holds what.

    Examples
    --------
    >>> check_order("worst-case", schedule="full", sums=None, given_code=False)
    Traceback (most recent call last):
    ...
    ValueError: order must be 'least-error' for schedule 'full', where order does not matter; got 'worst-case'
    """
    if one_of("order", order, ORDERS) == ORDERS[0]:
        return
    if schedule != "work-list":
        raise ValueError(
            f"order must be {ORDERS[0]!r} for schedule {schedule!r}, where order does not matter; got {order!r}"
        )
    if given_code:
        raise ValueError(f"order must be {ORDERS[0]!r} for a code that says itself who holds what; got {order!r}")
    if sums not in (None, "shard"):
        raise ValueError(f"order must be {ORDERS[0]!r} for sums {sums!r}, which are of own shares; got {order!r}")


def check_partial_work(decoder: Decoder | type[Decoder], *, schedule: str, sums: str) -> None:
    """Raise ValueError if clients get a part of their work done, and the decoder cannot decode what they send of it.

    Parameters
    ----------
    decoder : Decoder, or subclass of it
        The rule for the decoding weights.
    schedule, sums : str
        As in :class:`Planning`.

    Examples
    --------
    >>> check_partial_work(DECODERS["fixed"], schedule="work-list", sums="whole")
    Traceback (most recent call last):
    ...
    ValueError: sums must be 'shard' for decoder 'fixed' on work lists; got 'whole'
    """
    if schedule != "work-list" or sums in decoder.partial_work:
        return
    if not decoder.partial_work:
        able = ", ".join(name for name, kind in DECODERS.items() if kind.partial_work)
        raise ValueError(
            f"decoder must be one of {able} for schedule 'work-list', where clients do a part; got {decoder.name!r}"
        )
    kinds = " or ".join(map(repr, decoder.partial_work))
    raise ValueError(f"sums must be {kinds} for decoder {decoder.name!r} on work lists; got {sums!r}")


def check_failure_domains(decoder: Decoder | type[Decoder], *, schedule: str, given_code: bool) -> None:
    """Raise ValueError unless what is known of failure domains would be used.

    Parameters
    ----------
    decoder : Decoder, or subclass of it
        The rule for the decoding weights.
    schedule : str
        As in :class:`Planning`.
    given_code : bool
        Whether the code is another than blocks formed for the fleet.

    Examples
    --------
    >>> check_failure_domains(DECODERS["fixed"], schedule="full", given_code=False)
    Traceback (most recent call last):
    ...
    ValueError: failure_domains must be left out unless decoder is 'optimal-unbiased', which goes by them; got 'fixed'
    """
    if schedule != "full":
        raise ValueError(
            f"failure_domains must be left out for schedule {schedule!r}, where clients count as independent; got some"
        )
    if given_code:
        raise ValueError("failure_domains must be left out for a code that says itself who holds what; got some")
    if decoder.name != OptimalUnbiasedDecoder.name:
        raise ValueError(
            f"failure_domains must be left out unless decoder is {OptimalUnbiasedDecoder.name!r}, which goes by "
            f"them; got {decoder.name!r}"
        )


def check_bit_budget(
    budget: int, decoder: Decoder | type[Decoder], *, schedule: str, given_code: bool, domains: bool
) -> None:
    """Raise ValueError unless a budget of bits can be divided among the clients, each of which rounds for itself.

    Parameters
    ----------
    budget : int
        Bits per entry over all clients.
    decoder : Decoder, or subclass of it
        The rule for the decoding weights.
    schedule : str
        As in :class:`Planning`.
    given_code : bool
        Whether the code is another than blocks formed for the fleet.
    domains : bool
        Whether failure domains are named.

    Examples
    --------
    >>> check_bit_budget(8, DECODERS["least-squares"], schedule="full", given_code=False, domains=False)
    Traceback (most recent call last):
    ...
    ValueError: bit_budget must be left out unless decoder is fixed or optimal-unbiased; got 'least-squares'
    """
    check_integer("bit_budget", budget, low=1)
    if schedule != "full":
        raise ValueError(f"bit_budget must be left out for schedule {schedule!r}, whose sums overlap; got {budget}")
    if given_code:
        raise ValueError(f"bit_budget must be left out for a code that says itself who holds what; got {budget}")
    if domains:
        raise ValueError(f"bit_budget must be left out with failure_domains; got {budget}")
    if not decoder.knows_own_rounding:
        able = " or ".join(name for name, kind in DECODERS.items() if kind.knows_own_rounding)
        raise ValueError(f"bit_budget must be left out unless decoder is {able}; got {decoder.name!r}")


def check_sum_only(decoder: Decoder | type[Decoder], *, schedule: str, sums: str, memory: bool) -> None:
    """Raise ValueError unless a round can be decoded from the sum of what arrives and from who sent it.

    Parameters
    ----------
    decoder : Decoder, or subclass of it
        The rule for the decoding weights.
    schedule, sums : str
        As in :class:`Planning`.
    memory : bool
        Whether past updates are remembered.
    """
    if not decoder.weights_settled:
        settled = ", ".join(
            name
            for name, kind in DECODERS.items()
            if kind.weights_settled and (schedule != "work-list" or "shard" in kind.partial_work)
        )
        raise ValueError(f"decoder must be one of {settled} for secure_sum; got {decoder.name!r}")
    if schedule == "work-list" and sums != "shard":
        raise ValueError(f"sums must be 'shard' for secure_sum: the client adds them up; got {sums!r}")
    if memory:
        raise ValueError("memory must be False for secure_sum, which leaves no single update to remember; got True")
