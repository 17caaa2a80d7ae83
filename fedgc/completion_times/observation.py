"""What the server sees of one client in one round."""

from __future__ import annotations

from dataclasses import dataclass

from fedgc.validation import check_integer, check_positive


@dataclass(frozen=True)
class TimeObservation:
    """One client's completion time in one round, or the time until which it stayed silent.

    Parameters
    ----------
    node_id : int
        The client.
    shards : float
        Shards done, above 0; when nothing came, the shards asked for (or 1 if a part of the work would have come too).
    seconds : float
        Seconds from the message to the last of these shards, above 0; when nothing came, the seconds waited: until the
        deadline, or until the round ended if that was earlier. A reply after the deadline is as good as one before it;
        where such replies are reported, a silent client's wait lasts for as long as its reply would have been: the
        times of the late must not be known while those who are silent count as waited for until the deadline only.
    fixed_seconds : float, optional
        The part of `seconds` that does not depend on the load (waking up, transfer), below `seconds`, if known.
    censored : bool
        Nothing was done until `seconds`: the client takes longer, or is absent.
    complete : bool
        The number of shards was set beforehand. False for partial work, where it is itself an effect of the client's
        speed: such a round says nothing about how the time depends on the load.

    there : bool, optional
        Whether the client is known to take part: by default if it is not censored. A client that replies with nothing
        done is slow, and not absent.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> TimeObservation(node_id=7, shards=2, seconds=9.0, fixed_seconds=1.0).shards
    2.0
    >>> TimeObservation(node_id=7, shards=2, seconds=0.0)
    Traceback (most recent call last):
    ...
    ValueError: seconds must be a finite number above 0; got 0.0
    """

    node_id: int
    shards: float
    seconds: float
    fixed_seconds: float | None = None
    censored: bool = False
    complete: bool = True
    there: bool | None = None

    def __post_init__(self) -> None:
        check_integer("node_id", self.node_id, low=-(2**63), high=2**64 - 1)
        object.__setattr__(self, "shards", check_positive("shards", self.shards))
        object.__setattr__(self, "seconds", check_positive("seconds", self.seconds))
        if self.fixed_seconds is not None:
            fixed = 0.0 if self.fixed_seconds == 0 else check_positive("fixed_seconds", self.fixed_seconds)
            if fixed >= self.seconds:
                raise ValueError(f"fixed_seconds must be below seconds = {self.seconds:g}; got {fixed:g}")
            object.__setattr__(self, "fixed_seconds", fixed)
        object.__setattr__(self, "there", not self.censored if self.there is None else self.there)
        for name in ("censored", "complete", "there"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")
