"""What a server and a client of fedgc say to each other, beside Flower's own records.

Strategies and clients share these names and nothing else. A train message carries the user's ArrayRecord and
ConfigRecord as ever, plus a ConfigRecord named :data:`RECORD` with the assignment; a reply carries an ArrayRecord and a
MetricRecord that any Flower strategy can average, plus a ConfigRecord of the same name that says what was encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

#: Name of fedgc's ConfigRecord in messages and replies.
RECORD = "fedgc"
#: list of int: the shards to compute, or those that were computed.
SHARD_IDS = "shard-ids"
#: list of float: the encoding coefficient of each shard, in the order of the shard ids.
COEFFICIENTS = "coefficients"
#: list of int: number of examples of each shard, in the order of the shard ids.
SHARD_EXAMPLES = "shard-examples"
#: int, in the config given to the user's function: seed that depends on run, round and shard, not on the client.
SHARD_SEED = "shard-seed"
#: int: the run's seed, from which the shard seeds are derived.
RUN_SEED = "run-seed"
#: float: seconds from the sending of a message in which its reply is of use.
DEADLINE = "deadline"
#: list of int, only with work lists: lengths of the segments of the list; the client sends one sum for each. It works
#: down the list until the deadline, and the shard ids of its reply are those it has done.
SEGMENTS = "segments"
#: float, with segments: seconds from getting the message in which to work, so that the reply comes by the deadline.
#: Where there are no shard ids either, the client does as much as it can of the work on its own part of the data.
BUDGET = "budget"
#: bool, with segments: the client trains on from shard to shard, without going back to the global arrays, and replies
#: with the arrays that it ends with.
IN_A_ROW = "in-a-row"
#: list of int, with segments: numbers of examples that the client has to expect of its shards, in the order of the
#: shard ids, so that it does not begin a large one that would end after its budget; -1 where not known, and left out if
#: none is. Of shards that it is to work on, and can load, and of no others.
EXPECTED_EXAMPLES = "expected-examples"
#: int, only with secure sums: the client sends the sum of coefficient x number of examples x update itself, as
#: fixed-point numbers modulo 2^64 with so many bits after the point, and no metrics but the number of examples.
FRACTIONAL_BITS = "fractional-bits"
#: float, with it: the largest absolute value of an entry, so that the sum over all clients stays in range.
LARGEST_ENTRY = "largest-entry"
#: int, str, only with quantised sums: bits per entry and the quantiser, see :mod:`fedgc.quantisers`. The client sends
#: the sum of coefficient x number of examples x update over the number of examples, of each array of floats that is no
#: running statistic, rounded and packed; the others as they are, packed too.
BITS, QUANTISER = "bits", "quantiser"
#: int, with it, only where clients have bits of their own: the client's number in the round, by which its rounding
#: differs from that of others that send the same sum.
ROUNDER = "rounder"
#: Name of the array of bytes that the rounded arrays of a sum are packed into: one vector, in the order of their names.
PACKED = "fedgc-packed"
#: Name of the array of bytes of the others, one after another in the order of their names, if there are any.
EXACT = "fedgc-exact"
#: list of float, in such a reply: the variance factor of each sum's rounding.
VARIANCE_FACTORS = "variance-factors"
#: float, in a reply: seconds by the client's clock from the message to the end of its last shard, and to its reply.
WORK_SECONDS, BUSY_SECONDS = "work-seconds", "busy-seconds"
#: int, set by the embedded runtime, in which no time passes while a client runs: shards that are done by the deadline.
SIMULATED_PROGRESS = "simulated-progress"
#: float, set by it where the server names no shards but a budget: the share of the client's own work that is done.
SIMULATED_SHARE = "simulated-share"
#: int, in a reply: the number of shards that the client's train function was made for, if it was told one.
NUM_SHARDS = "num-shards"
#: bool: the message is without work, and the client is to say what follows about itself.
INTRODUCE = "introduce"
#: int, in a reply to such a message: the node's partition id, if it has one.
PARTITION = "partition-id"
#: Beginning of the names of further entries of the node's config, in such a reply.
LABEL = "label-"
#: Name of the ArrayRecord of each sum but the first, which is where Flower's strategies look for it.
SUM = "fedgc-sum-{}"
#: list of str, only if the server has the shards: SHA-256 of each assigned shard, in the order of the shard ids. A
#: client never lists what it keeps, it answers about the digests that it is sent: only who has had a shard can know its
#: digest, so that a server cannot make use of what another one has left on a client's disk.
SHARD_DIGESTS = "shard-digests"
#: list of int, list of str: further shards that the server takes the client to keep, and their SHA-256.
ASKED_SHARDS, ASKED_DIGESTS = "asked-shards", "asked-digests"
#: Names of the ConfigRecords that carry a pushed shard, by shard id and number of the part, and of the bytes in them.
#: They are no ArrayRecords, since Flower's mods for local differential privacy take a message to have one of these, and
#: they come in parts since Flower sends a ConfigRecord whole.
PUSHED, PUSHED_DATA = "fedgc-shard-{}-{}", "data"
#: int, in a reply: how many of the shards named in the message the client keeps now.
KEPT_SHARDS = "kept-shards"
#: list of int, in a reply: the named shards that it does not keep; left out if there are none.
LACKING_SHARDS = "lacking-shards"
#: Flower's name for the round in the config that its strategies send.
SERVER_ROUND = "server-round"
#: Flower's name for the weight of a reply.
NUM_EXAMPLES = "num-examples"
#: Tells seeds of rounding from those of shards.
_ROUNDING = 0x70AC


# Asked for by all holders of a shard, and in one process by all of these.
@lru_cache(maxsize=4096)
def shard_seed(run_seed: int, server_round: int, shard_id: int) -> int:
    """Return the seed of one shard's update in one round, the same for every client that holds the shard.

    Examples
    --------
    >>> shard_seed(1, 2, 3) == shard_seed(1, 2, 3), shard_seed(1, 2, 3) == shard_seed(1, 3, 2)
    (True, False)
    """
    return int(np.random.SeedSequence([run_seed, server_round, shard_id]).generate_state(1)[0])


def rounding_seed(run_seed: int, server_round: int, shard_ids: Sequence[int], rounder: int | None = None) -> int:
    """Return the seed by which a sum over these shards is rounded, the same for every client that sends it.

    Copies of a sum are then equal, so that one is as good as all, and that they are can be seen. With a number each
    client rounds for itself.

    Examples
    --------
    >>> rounding_seed(1, 2, [3, 4]) == rounding_seed(1, 2, [3, 4]), rounding_seed(1, 2, [3]) == rounding_seed(1, 2, [4])
    (True, False)
    >>> rounding_seed(1, 2, [3], rounder=0) == rounding_seed(1, 2, [3], rounder=1)
    False
    """
    # Not the seed of a shard's update: what is rounded must not depend on what rounds it.
    entropy = [_ROUNDING, run_seed, server_round, *map(int, shard_ids)]
    key = () if rounder is None else (rounder,)
    return int(np.random.SeedSequence(entropy, spawn_key=key).generate_state(1, np.uint64)[0])
