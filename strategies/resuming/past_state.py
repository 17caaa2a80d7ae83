"""The round before, to which replies may still come, as plain data: in virtual time they come after a restart too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.past_round import PastRound
from fedgc.strategies.rounds.secure_round import SecureRound
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.rounds.send_round import tasks_of
from fedgc.strategies.rounds.size_claims import SizeClaims

from fedgc.checkpoint import Tree
from fedgc.deadline import Collected
from fedgc.quantisers import Quantiser
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
        "known_sizes": sent.known_sizes,
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


def past_from_tree(
    tree: Tree, state: RoundState, secure_sum: SecureSum | None, quantiser: Quantiser | None, run_seed: int
) -> PastRound:
    """Return the round that :func:`past_to_tree` wrote, `state` being the one that was saved with it."""
    assert state.plan is not None
    known_sizes = np.array(tree["known_sizes"])
    messages = [message_from_tree(message) for message in tree["messages"]]
    given = bool(np.isfinite(known_sizes).all())
    sent = OpenRound(
        tree["server_round"],
        state.plan,
        tasks_of(state.plan, known_sizes, secure_sum),
        arrays_from_tree(tree["arrays"]),
        messages,
        tree["deadline"],
        known_sizes,
        replace(state, memory=None),
        SizeClaims(state, state.plan.decoder.code, given=given).restore(tree["sizes"]),
        quantiser=quantiser,
        run_seed=run_seed,
        _doubted=set(tree["doubted"]),
    )
    if secure_sum is not None:
        sent = SecureRound(**vars(sent), secure_sum=secure_sum)
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
