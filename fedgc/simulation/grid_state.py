"""What a grid in virtual time knows: everything that the rest of a run depends on, and that as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from flwr.app import Context, Message

from fedgc.checkpoint import Tree
from fedgc.errors import CheckpointError
from fedgc.records.trees import message_from_tree, message_to_tree, records_from_tree, records_to_tree
from fedgc.simulation.messages import Job


@dataclass(frozen=True)
class Event:
    """One line of a run's trace.

    Attributes
    ----------
    instant : float
        Virtual seconds since the start of the run.
    kind : str
        "sent", "replied", "failed" (the client raised), "replaced" (by a newer message), "expired" or "unavailable".
    client : int
        Client index.
    server_round : int
        Round of the message.
    message_type : str
        Flower's message type.
    detail : str
        The reason, if the client failed.
    """

    instant: float
    kind: str
    client: int
    server_round: int
    message_type: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Due:
    """What is to happen at an instant.

    Attributes
    ----------
    instant : float
        Virtual seconds since the start of the run.
    kind : str
        "complete", "lose" or "expire"; the kind of the event in the trace if the reply is there already.
    job : Job
        The message that it is about.
    reply : Message or None
        The reply, if only its sending is due.
    """

    instant: float
    kind: str
    job: Job
    reply: Message | None = None


@dataclass
class GridState:
    """What changes while a grid runs.

    Attributes
    ----------
    online : dict of int to None
        Nodes that are not known to have gone, in order.
    trace : list of Event
        What has happened.
    replies : dict of str to Message
        Replies that have not been handed out, by the id of the message that they answer.
    answered : set of str
        Messages that have been answered, until their time to live ends.
    in_progress : dict of int to Job
        What each client works on, if it has no backlog.
    free_at : dict of int to float
        When each client will have worked off its backlog.
    streams : dict of (int, int) to int
        How many messages each client got in each round.
    due : dict of int to Due
        What is to happen, by the order in which that was settled.
    n_due, n_messages : int
        How many there have been.
    looked_at : float
        When replies were last asked for.
    looked_for : set of str
        What was asked for at that instant.
    """

    online: dict[int, None]
    trace: list[Event] = field(default_factory=list)
    replies: dict[str, Message] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    in_progress: dict[int, Job] = field(default_factory=dict)
    free_at: dict[int, float] = field(default_factory=dict)
    streams: dict[tuple[int, int], int] = field(default_factory=dict)
    due: dict[int, Due] = field(default_factory=dict)
    n_due: int = 0
    n_messages: int = 0
    looked_at: float = 0.0
    looked_for: set[str] = field(default_factory=set)


def state_to_tree(state: GridState, now: float, contexts: Mapping[int, Context]) -> Tree:
    """Return a grid's state, its time and its nodes' contexts as plain data."""
    jobs: dict[str, Job] = {}
    for job in [*(one.job for one in state.due.values()), *state.in_progress.values()]:
        jobs.setdefault(job.message.metadata.message_id, job)
    to_do = {one.job.message.metadata.message_id for one in state.due.values() if one.kind == "complete"}
    to_do -= state.answered

    return {
        "now": now,
        "online": list(state.online),
        "trace": [astuple(event) for event in state.trace],
        "replies": {key: message_to_tree(reply) for key, reply in state.replies.items()},
        "answered": sorted(state.answered),
        # Of a message that nobody is to work on any more nothing is needed but that it was there.
        "jobs": {
            key: (
                message_to_tree(job.message, content=key in to_do),
                job.client,
                job.server_round,
                job.stream,
                job.expires,
            )
            for key, job in jobs.items()
        },
        "in_progress": {client: job.message.metadata.message_id for client, job in state.in_progress.items()},
        "free_at": state.free_at,
        "streams": [(*key, count) for key, count in state.streams.items()],
        "due": [
            (one.instant, one.kind, one.job.message.metadata.message_id, one.reply and message_to_tree(one.reply))
            for one in state.due.values()
        ],
        "n_messages": state.n_messages,
        "looked_at": state.looked_at,
        "looked_for": sorted(state.looked_for),
        "contexts": {node: records_to_tree(context.state) for node, context in contexts.items()},
    }


def state_from_tree(tree: Tree, contexts: Mapping[int, Context]) -> tuple[GridState, float, list[Due]]:
    """Return the state without what is due, the time, and what is due, in order; the contexts' state is restored.

    Raises
    ------
    CheckpointError
        If it is of other nodes than there are contexts of, or not what :func:`state_to_tree` wrote.
    """
    try:
        if set(tree["contexts"]) != set(contexts):
            raise CheckpointError(f"a checkpoint must be of the same clients; got {len(tree['contexts'])} of them")
        jobs = {key: Job(message_from_tree(message), *values) for key, (message, *values) in tree["jobs"].items()}
        state = GridState(
            online=dict.fromkeys(tree["online"]),
            trace=[Event(*values) for values in tree["trace"]],
            replies={key: message_from_tree(reply) for key, reply in tree["replies"].items()},
            answered=set(tree["answered"]),
            in_progress={client: jobs[key] for client, key in tree["in_progress"].items()},
            free_at=dict(tree["free_at"]),
            streams={(client, server_round): count for client, server_round, count in tree["streams"]},
            n_messages=tree["n_messages"],
            looked_at=tree["looked_at"],
            looked_for=set(tree["looked_for"]),
        )
        due = [
            Due(instant, kind, jobs[key], reply and message_from_tree(reply))
            for instant, kind, key, reply in tree["due"]
        ]
        kept = {node: records_from_tree(records) for node, records in tree["contexts"].items()}
        now = float(tree["now"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the grid of a checkpoint must be what was written; got {error!r:.200}") from error
    for node, records in kept.items():
        contexts[node].state = records
    return state, now, due
