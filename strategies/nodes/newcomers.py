"""Nodes that join while a run goes on: they introduce themselves during a round, and take part from the next one on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedgc.strategies.nodes.warm_up import NodeFacts, facts_of, introduction
from flwr.app import ArrayRecord, Message

from fedgc.checkpoint import Tree
from fedgc.records.trees import message_from_tree, message_to_tree


class Newcomers:
    """Asks nodes for what the warm-up asks all for at the start, and keeps what they say.

    Nothing waits for them: their messages go out beside a round's, and an answer that comes after its end is as good.
    """

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        self._heard: dict[int, NodeFacts] = {}
        self._sent: dict[str, float] = {}
        self._answered: set[str] = set()

    def ask(
        self,
        nodes: Iterable[int],
        arrays: ArrayRecord,
        *,
        seconds: float,
        server_round: int,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
    ) -> list[Message]:
        """Return a message without work for each of the nodes.

        Parameters
        ----------
        nodes : iterable of int
            The nodes.
        arrays : ArrayRecord
            The global arrays.
        seconds : float
            Seconds that the round may last.
        server_round : int
            The round.
        arrayrecord_key, configrecord_key : str
            Names of the records.
        """
        keys = {"arrayrecord_key": arrayrecord_key, "configrecord_key": configrecord_key}
        # One that has been asked and may still answer is not asked again: the first answer of a node may take rounds.
        asked = [node for node in nodes if node not in self._messages]
        made = {node: introduction(node, arrays, seconds=seconds, server_round=server_round, **keys) for node in asked}
        self._messages |= made
        return list(made.values())

    @property
    def pending(self) -> list[str]:
        """Ids of the messages that have not been answered."""
        ids = (message.metadata.message_id for message in self._messages.values())
        return [key for key in ids if key]

    def sent(self, instants: Mapping[str, float], now: float) -> None:
        """Take note of when messages were sent, by id; those that were held back, or have run out, are forgotten."""
        self._answered.clear()
        known = {**self._sent, **instants}

        def may_come(message: Message) -> bool:
            sent = known.get(message.metadata.message_id)
            return sent is not None and now < sent + message.metadata.ttl

        self._messages = {node: message for node, message in self._messages.items() if may_come(message)}
        self._sent = {m.metadata.message_id: known[m.metadata.message_id] for m in self._messages.values()}

    def is_from(self, reply: Message) -> bool:
        """Return whether a reply is to one of these messages."""
        key = reply.metadata.reply_to_message_id
        return key in self._answered or key in self.pending

    def take(self, reply: Message, seconds: float) -> bool:
        """Keep what a node says after so many seconds, and return whether it is a newcomer's reply."""
        key = reply.metadata.reply_to_message_id
        for node, message in list(self._messages.items()):
            if message.metadata.message_id == key:
                self._answered.add(key)
                if reply.has_error():  # the network's, or the client's: it is asked again
                    del self._messages[node]
                else:
                    self._heard[node] = facts_of(node, reply, seconds)
                return True
        return False

    def take_late(self, reply: Message, instant: float) -> bool:
        """Keep what a node says at an instant after the round, and return whether it is a newcomer's reply."""
        sent = self._sent.get(reply.metadata.reply_to_message_id)
        return sent is not None and self.take(reply, instant - sent)

    def heard(self) -> dict[int, NodeFacts]:
        """Return what nodes have said since this was last asked."""
        heard, self._heard = self._heard, {}
        self._messages = {node: message for node, message in self._messages.items() if node not in heard}
        return heard

    def to_data(self) -> Tree:
        """Return who has been asked and who has answered, as plain data."""
        return {
            # Of what was sent only the id and the time to live are asked for again.
            "messages": [(node, message_to_tree(message, content=False)) for node, message in self._messages.items()],
            "heard": {
                node: (facts.overhead, facts.partition, dict(facts.labels)) for node, facts in self._heard.items()
            },
            "sent": dict(self._sent),
            "answered": sorted(self._answered),
        }

    @classmethod
    def from_data(cls, data: Tree, *, messages: bool) -> Newcomers:
        """Return others that know what :meth:`to_data` wrote; without the messages, if these are lost."""
        other = cls()
        other._heard = {int(node): NodeFacts(*facts) for node, facts in data["heard"].items()}
        if messages:
            other._messages = {int(node): message_from_tree(message) for node, message in data["messages"]}
            other._sent, other._answered = dict(data["sent"]), set(data["answered"])
        return other
