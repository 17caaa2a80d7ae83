"""What is known of a run at an instant: how far it is, who its clients are, which blocks are in danger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

#: Where a run is: before its first round or while too few nodes are there, in its rounds, after its last one, or ended
#: before that by an error.
Phase = Literal["waiting", "training", "ended", "stopped"]

#: Name and version of the format of :meth:`RunStatus.to_data`.
FORMAT = "fedgc-status-1"
#: A block is at risk if nothing of it is to be expected with more than this probability.
RISK = 0.05


class ClientStatus(NamedTuple):
    """What is known of a client.

    Attributes
    ----------
    node_id : int
        Flower's id of the node.
    partition : int or None
        Its ``partition-id``, if it has told one.
    labels : mapping of str to str
        What else it has told of itself, as it was sent.
    straggle_prob, low, high : float
        Probability to miss the next deadline, as learnt from who came in the past, and the limits of its 90 % credible
        interval; of a client in a failure domain, while that is up.
    seconds_per_shard : float or None
        Median seconds per shard, as learnt from its times and those of others, late ones too; None if none of its own
        is known.
    last_asked, last_seen : int or None
        Last round that it was asked in, and in which a reply of it came in time that could be read.
    came, asked : int
        Rounds in which its update was used, and in which it was asked.
    rejected : int
        Replies of it that were left out.
    last_rejection : str or None
        Why the last of these was.
    set_aside_until : int or None
        Last round that it is not asked in, since what it sends cannot be used.
    """

    node_id: int
    partition: int | None
    labels: Mapping[str, str]
    straggle_prob: float
    low: float
    high: float
    seconds_per_shard: float | None
    last_asked: int | None
    last_seen: int | None
    came: int
    asked: int
    rejected: int
    last_rejection: str | None
    set_aside_until: int | None


class BlockStatus(NamedTuple):
    """What is known of a block: clients that hold the same shards.

    Attributes
    ----------
    block : int
        Its number in the last plan.
    members : tuple of int
        Ids of the nodes that hold its shards.
    shards : tuple of int
        The shards.
    silence_prob : float
        Probability that nothing of it comes next round: the product of its members' probabilities to be silent.
    at_risk : bool
        Whether that is more than 5 %.
    last_recovered : int or None
        Round since which each of its shards has counted in a decoded update, if not in the same one; None if one never
        has.
    """

    block: int
    members: tuple[int, ...]
    shards: tuple[int, ...]
    silence_prob: float
    at_risk: bool
    last_recovered: int | None


class Evaluation(NamedTuple):
    """What a model was found to be worth.

    Attributes
    ----------
    server_round : int
        The round after which it was evaluated.
    metrics : mapping of str to float, int or list
        The metrics.
    """

    server_round: int
    metrics: Mapping[str, Any]


class Waiting(NamedTuple):
    """What a run waits for while too few nodes are there.

    Attributes
    ----------
    seconds : float
        Seconds for which it has waited, by the clock of the runtime.
    seconds_left : float
        Seconds for which it goes on to wait at most.
    there, needed : int
        How many are there, and how many there must be.
    what : str
        What they are called: "nodes", say.
    """

    seconds: float
    seconds_left: float
    there: int
    needed: int
    what: str


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run at an instant. All that is counted is of the whole run, before it was resumed too.

    Attributes
    ----------
    phase : str
        "waiting" before the first round is sent, and whenever too few nodes are there, "training", "ended", or
        "stopped" if it ended before its time.
    waiting : Waiting or None
        How many nodes are waited for, if too few are there.
    rounds_done : int
        Rounds that are over.
    rounds_planned : int or None
        Rounds that there are to be; None where another strategy's loop decides.
    round_open : int or None
        The round that has been sent and is not over.
    seconds_in_rounds : float
        Seconds that rounds have lasted in all, as far as known.
    seconds : float or None
        Seconds since this process sent its first round, with evaluation and whatever else goes on between rounds, by
        the clock of the runtime; None before it has.
    seconds_left : float or None
        What is left if rounds go on like this; None if that is not known.
    deadline : float or None
        Seconds that the open round may last, else those of the last plan.
    schedule, decoder : str
        How clients work, and how what they send is decoded.
    n_shards : int
        Number of shards.
    load : int
        Copies of each shard.
    error_predicted, error_observed : float or None
        Mean residual error of the rounds, see :class:`fedgc.strategies.RoundReport`; None if not known.
    sum_only : bool
        Whether only the sum of the replies was seen, so that the observed error is the model's.
    clients_evaluation, server_evaluation : Evaluation or None
        The last evaluation by clients and by the server.
    clients : tuple of ClientStatus
        All that have been asked or have introduced themselves, by id.
    blocks : tuple of BlockStatus
        The blocks of the last plan.
    rounds : tuple of int
        The rounds' numbers.
    numbers : mapping of str to tuple of (float or None)
        The numbers of each round, by the names of :attr:`fedgc.strategies.RoundReport.metrics`.
    written : datetime
        When all this was so, by the server's clock.
    """

    phase: Phase
    waiting: Waiting | None
    rounds_done: int
    rounds_planned: int | None
    round_open: int | None
    seconds_in_rounds: float
    seconds: float | None
    seconds_left: float | None
    deadline: float | None
    schedule: str
    decoder: str
    n_shards: int
    load: int
    error_predicted: float | None
    error_observed: float | None
    sum_only: bool
    clients_evaluation: Evaluation | None
    server_evaluation: Evaluation | None
    clients: tuple[ClientStatus, ...]
    blocks: tuple[BlockStatus, ...]
    rounds: tuple[int, ...]
    numbers: Mapping[str, Sequence[float | None]]
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_over(self) -> bool:
        """Whether no more is to come."""
        return self.phase in {"ended", "stopped"}

    def total(self, name: str) -> float:
        """Return the sum of a number over all rounds, of those that are known."""
        return float(sum(value for value in self.numbers[name] if value is not None))

    def to_data(self) -> dict[str, Any]:
        """Return all this as plain data that JSON can hold.

        Returns
        -------
        dict
            The attributes by name, with ``format`` before them. Clients, blocks and evaluations are dicts of theirs. A
            node id is a string, since JSON's readers may round numbers above 2^53; what is not finite is None.
        """
        plain = vars(self) | {
            "written": self.written.isoformat(timespec="seconds"),
            "clients": [{**client._asdict(), "node_id": str(client.node_id)} for client in self.clients],
            "blocks": [{**block._asdict(), "members": [str(node) for node in block.members]} for block in self.blocks],
            "numbers": {name: _finite(values) for name, values in self.numbers.items()},
        }
        if self.waiting is not None:
            times = zip(("seconds", "seconds_left"), _finite(self.waiting[:2]), strict=True)
            plain["waiting"] = {**self.waiting._asdict(), **dict(times)}
        for name in ("clients_evaluation", "server_evaluation"):
            found: Evaluation | None = plain[name]
            if found is not None:
                metrics = dict(zip(found.metrics, _finite(found.metrics.values()), strict=True))
                plain[name] = {"server_round": found.server_round, "metrics": metrics}
        for name in ("seconds_in_rounds", "seconds", "seconds_left", "deadline", "error_predicted", "error_observed"):
            (plain[name],) = _finite([plain[name]])
        return {"format": FORMAT, **plain}


def _finite(values: Any) -> list[Any]:  # noqa: ANN401
    """Return the values with None for each number that is not finite, lists of such ones too."""
    return [
        _finite(value) if isinstance(value, list) else None if value is None or not math.isfinite(value) else value
        for value in values
    ]
