"""Let Flower's own mods work beside an assignment of shards."""

from __future__ import annotations

from fedgc.clients.shards import Mod, TrainFunction
from flwr.app import Context, Message

from fedgc.protocol import PUSHED, RECORD, SHARD_IDS
from fedgc.records.copies import config_of


def beside_assignment(mod: Mod) -> Mod:
    """Return a mod that works beside an assignment of shards, of Flower's mods that expect to be alone.

    ``fixedclipping_mod`` and ``adaptiveclipping_mod`` refuse a message with more than one ConfigRecord, and the
    assignment is one: they see messages without it, and the train function gets it all the same. These and
    ``LocalDpMod`` divide by the length of the update: a reply of a client that had no shard done by the deadline, and
    so has nothing to tell, goes past them.

    Parameters
    ----------
    mod : callable
        A mod for train functions.

    Notes
    -----
    Flower's mods also refuse a reply with more than one ArrayRecord: work lists need ``sums="whole"`` with them. What
    they clip is the mean update of all shards in a reply.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> from flwr.clientapp.mod import fixedclipping_mod
    >>> from fedgc.clients import ShardUpdate, gradient_coded
    >>> app = ClientApp()
    >>> @app.train(mods=[beside_assignment(fixedclipping_mod)])
    ... @gradient_coded(num_shards=40)
    ... def train(shard_id, arrays, config):
    ...     return ShardUpdate(num_examples=10, delta={name: 0 * a.numpy() for name, a in arrays.items()})
    """
    pushed = PUSHED.split("{", maxsplit=1)[0]

    def beside(message: Message, context: Context, call_next: TrainFunction) -> Message:
        content = message.content
        own = {name: one for name, one in content.config_records.items() if name == RECORD or name.startswith(pushed)}
        for name in own:
            del content[name]

        def with_them(given: Message, context: Context) -> Message:
            for name, record in own.items():
                given.content[name] = record
            reply = call_next(given, context)
            said = config_of(reply.content, RECORD) if reply.has_content() else None
            if said is not None and said.get(SHARD_IDS) == []:
                raise _NothingDoneError(reply)
            return reply

        try:
            return mod(message, context, with_them)
        except _NothingDoneError as nothing:
            return nothing.reply

    return beside


class _NothingDoneError(Exception):
    """Carries a reply without work past the mod."""

    def __init__(self, reply: Message) -> None:
        super().__init__()
        self.reply = reply
