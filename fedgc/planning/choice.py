"""What a plan says: one line per choice, and which of them to take."""

from __future__ import annotations

from dataclasses import dataclass

#: Codes whose blocks the plan forms itself; the others are the literature's.
BLOCK_CODES = ("work-lists", "fractional-repetition")
#: Predictions closer than this are a draw, which the simpler choice wins: less redundancy, less data moved.
DRAW = 0.01
#: Redundancy that is predicted to save less than this is said not to pay.
PAYS = 0.02


@dataclass(frozen=True)
class Choice:
    """One way to run a fleet, and what to expect of it.

    Attributes
    ----------
    redundancy : int
        Clients that are asked to hold each shard; those left over are backups on work lists, see `copies`. Codes that
        vary it hold as many in the mean, to the nearest integer.
    schedule : str
        "full": a client computes all that it holds; "work-list": it works down an ordered list until the deadline.
    code, decoder : str
        Names of the code and of the decoder.
    deadline : float
        Seconds from sending to decoding.
    round_time : float
        Mean seconds of a round, which may end early.
    arrivals : float
        Mean number of clients whose update counts.
    residual_error : float
        ``E|decoded - full|^2 / |full|^2``.
    relative_time_to_target : float
        Predicted time to a training target, relative to the best choice without redundancy: below 1 it is sooner.
        If there is none without, relative to the best of all.
    shards_moved : int
        Shard copies that clients must fetch, if at first each holds an equal part of the shards, in order.
    copies : float
        Clients that do hold a shard, in the mean: more than `redundancy` where clients that would be idle are backups.
    bits : int
        Bits per entry of the sums that clients send, 32 where they are sent as they are.
    """

    redundancy: int
    schedule: str
    code: str
    decoder: str
    deadline: float
    round_time: float
    arrivals: float
    residual_error: float
    relative_time_to_target: float
    shards_moved: int
    copies: float = 0.0
    bits: int = 32

    @property
    def remark(self) -> str:
        """One sentence on clients that would be idle and are backups, empty if there are none."""
        if self.copies <= 1.02 * self.redundancy:
            return ""
        return f"clients that would be idle are backups: {self.copies:.3g} holders per shard in the mean"

    @property
    def design(self) -> tuple[int, str, str]:
        """Redundancy, schedule and code: what is laid down before decoder and deadline are chosen."""
        return self.redundancy, self.schedule, self.code


@dataclass(frozen=True)
class FleetPlan:
    """All choices, in order of the predicted time to target, and the recommended one.

    Attributes
    ----------
    recommended : Choice
        The best choice; of those within 1 % of it the one of least redundancy, then of the least data moved, then a
        work list, then the soonest. One with redundancy has to save more than 2 % over the best without.
    choices : tuple of Choice
        All choices that can be decoded.
    infeasible : tuple of (int, str)
        Numbers of holders that the constraints do not allow, and why.
    remarks : tuple of str
        What the figures leave out, a sentence each.
    """

    recommended: Choice
    choices: tuple[Choice, ...]
    infeasible: tuple[tuple[int, str], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence on what the recommended choice gains, and on whether redundancy pays.

        Examples
        --------
        >>> best = Choice(2, "work-list", "work-lists", "optimal-unbiased", 8.0, 8.0, 40.0, 0.06, 0.8, 150)
        >>> alone = Choice(1, "work-list", "work-lists", "optimal-unbiased", 8.0, 8.0, 40.0, 0.32, 1.0, 0)
        >>> FleetPlan(best, (best, alone)).verdict
        'redundancy pays: 2 holders per shard reach the target 1.25 times as soon as one'
        """
        if all(choice.redundancy > 1 for choice in self.choices):
            return (
                f"one holder per shard was not tried, or cannot be decoded: of the others, "
                f"{self.recommended.redundancy} are recommended"
            )
        gain = 1.0 / self.recommended.relative_time_to_target
        if self.recommended.redundancy > 1:
            holders = self.recommended.redundancy
            return f"redundancy pays: {holders} holders per shard reach the target {gain:.2f} times as soon as one"
        coded = [choice for choice in self.choices if choice.redundancy > 1]
        if not coded:
            if self.infeasible:
                return f"redundancy is not possible: {self.infeasible[0][1]}"
            return "redundancy was not tried, or cannot be decoded"
        best = coded[0]
        saved = 1.0 - best.relative_time_to_target
        how = f"saves {saved:.1%}" if saved > 0 else f"takes {abs(saved):.1%} longer"
        return f"redundancy does not pay: the best of it, {best.redundancy} holders per shard, {how}"


def recommend(choices: list[Choice]) -> FleetPlan:
    """Return the plan with the choices in order and the best of them marked.

    Raises
    ------
    ValueError
        If there is no choice.
    """
    if not choices:
        raise ValueError("choices must hold at least one; got none that can be decoded")
    ordered = sorted(choices, key=lambda choice: (choice.relative_time_to_target, choice.redundancy))
    least = ordered[0].relative_time_to_target
    alone = min((c.relative_time_to_target for c in ordered if c.redundancy == 1), default=float("inf"))
    pays = least < (1.0 - PAYS) * alone
    close = [c for c in ordered if c.relative_time_to_target <= (1.0 + DRAW) * (least if pays else alone)]
    if not pays:
        close = [c for c in close if c.redundancy == 1]
    best = min(
        close, key=lambda c: (c.redundancy, c.shards_moved, c.schedule != "work-list", c.relative_time_to_target)
    )
    return FleetPlan(best, tuple(ordered))
