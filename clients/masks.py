"""Hide each reply behind masks that vanish from the sum of all: a Flower mod."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from fedgc.clients.shards import Mod
from flwr.app import Array, ArrayRecord, Context, Message
from numpy.typing import NDArray

from fedgc.protocol import FRACTIONAL_BITS, INTRODUCE, RECORD, SHARD_IDS
from fedgc.records.copies import config_of


def pairwise_masks(secrets: Callable[[Message, Context], Mapping[int, bytes]]) -> Mod:
    """Return a mod for train functions that adds pairwise masks to what the client sends.

    For servers with :class:`fedgc.strategies.SecureSum`. Each pair of clients derives the same mask from the secret
    that it shares; the one with the smaller node id adds it, the other subtracts it. A reply by itself is then
    uniformly random to all who do not know the secrets, and the sum over all of the round's clients is that of the
    replies without masks, to the last bit.

    Parameters
    ----------
    secrets : callable
        ``(message, context)`` to the secrets of the round: for every other client whose masks are to be in the sum, by
        its node id, at least 16 bytes that only it and this client know.

    Notes
    -----
    The mask of an array is SHAKE-256 of secret, run, round and name, as integers modulo 2^64. Secrets may serve for a
    whole run, but not for two runs with the same number, and a client must answer a round once: of two replies with the
    same masks the difference can be read. How clients agree on secrets without the server learning them, and how the
    masks between those who came and those who did not are removed from the sum, is the business of a protocol such as
    the reference's; the server's side of it is ``SecureSum(unmask=...)``.

    A message that asks for no secure sum is refused: its reply would be in the clear.

    References
    ----------
    K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.train(mods=[pairwise_masks(lambda message, context: {7: b"sixteen bytes or more"})])
    ... def train(message, context): ...
    """

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        assignment = config_of(message.content, RECORD)
        if assignment is not None and INTRODUCE in assignment and not assignment[SHARD_IDS]:
            return call_next(message, context)  # no shard, nothing to hide
        if assignment is None or FRACTIONAL_BITS not in assignment:
            raise ValueError("the message must ask for a secure sum, GradientCoding(secure_sum=True); got another")
        shared = dict(secrets(message, context))
        own = context.node_id
        for node_id, secret in shared.items():
            if node_id == own or len(secret) < _LEAST_SECRET:
                raise ValueError(
                    f"secrets must be of at least {_LEAST_SECRET} bytes and shared with others; got {len(secret)} "
                    f"bytes for node {node_id} on node {own}"
                )
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        domain = f"{context.run_id}/{message.metadata.group_id}"
        for record in reply.content.array_records.values():
            _mask(record, own, shared, domain)
        return reply

    return mod


#: Bytes that a secret must have.
_LEAST_SECRET = 16


def _mask(record: ArrayRecord, own: int, shared: Mapping[int, bytes], domain: str) -> None:
    for name, array in list(record.items()):
        total = array.numpy()
        for node_id, secret in shared.items():
            mask = _mask_of(secret, f"{domain}/{name}", total.shape)
            (np.add if own < node_id else np.subtract)(total, mask, out=total)
        record[name] = Array(total)


def _mask_of(secret: bytes, label: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    size = int(np.prod(shape, dtype=np.int64))
    # The length in front keeps a longer secret from passing for a shorter one with another label.
    stream = hashlib.shake_256(len(secret).to_bytes(8, "little") + secret + label.encode()).digest(8 * size)
    return np.frombuffer(stream, "<u8").astype(np.uint64).reshape(shape)
