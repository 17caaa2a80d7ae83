"""The round before, to which replies may still come, as plain data: in virtual time they come after a restart too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.past_round import PastRound
from fedgc.strategies.rounds.round_settings import RoundSettings
from fedgc.strategies.rounds.secure_round import SecureRound
from fedgc.strategies.rounds.send_round import tasks_of
from fedgc.strategies.rounds.size_claims import SizeClaims

from fedgc.checkpoint import Tree
from fedgc.deadline import Collected
from fedgc.records.trees import arrays_from_tree, arrays_to_tree, message_from_tree, message_to_tree
from fedgc.round import CodedUpdate, Copies, RoundState


def past_to_tree(past: PastRound) -> Tree:
    """Return what is needed to read replies to the round; its plan is the state's."""
    sent = past.round
    return {
        "server_round": sent.server_round,
        "arrays": arrays_to_tree(sent.arrays),
        "messages": [message_to_tree(message, content=False) for message in sent.messages],
        "deadline": sent.deadline,
        "known_sizes": sent.settings.known_sizes,
        "collected": {
            "waited": past.collected.waited,
            "pending": sorted(past.collected.pending),
            "started": past.collected.started,
            "sent": past.collected.sent,
        },
        "silent": dict(past.silent),
        "replies": [(client, _update_to_tree(reply)) for client, reply in past.replies.items()],
        "answered": past.answered,
        "rejected": past.rejected,
        "copies": None if past.copies is None else past.copies.to_data(),
        "sizes": sent.sizes.to_data(),
        "doubted": sorted(sent._doubted),
    }


def past_from_tree(tree: Tree, state: RoundState, settings: RoundSettings) -> PastRound:
    """Return the round that :func:`past_to_tree` wrote, `state` being the one that was saved with it."""
    assert state.plan is not None
    settings = replace(settings, known_sizes=np.array(tree["known_sizes"]))
    kind = OpenRound if settings.secure_sum is None else SecureRound
    sent = kind(
        tree["server_round"],
        state.plan,
        tasks_of(state.plan, settings),
        arrays_from_tree(tree["arrays"]),
        [message_from_tree(message) for message in tree["messages"]],
        tree["deadline"],
        settings,
        replace(state, memory=None),
        SizeClaims(state, state.plan.decoder.code, given=settings.sizes_given).restore(tree["sizes"]),
        _doubted=set(tree["doubted"]),
    )
    store = None if state.memory is None else state.memory.store
    collected = tree["collected"]
    return PastRound(
        sent,
        Collected([], [], collected["waited"], set(collected["pending"]), collected["started"], collected["sent"], []),
        tree["silent"],
        store,
        {client: _update_from_tree(reply) for client, reply in tree["replies"]},
        dict(tree["answered"]),
        dict(tree["rejected"]),
        None if tree["copies"] is None else Copies.from_data(tree["copies"], state.plan.decoder, sent.values),
    )


def _update_to_tree(update: CodedUpdate) -> Tree:
    sums = {row: {name: np.asarray(total[name]) for name in total} for row, total in update.sums.items()}
    return {**vars(update), "sums": list(sums.items())}


def _update_from_tree(tree: Tree) -> CodedUpdate:
    return CodedUpdate(**{**tree, "sums": dict(tree["sums"])})
