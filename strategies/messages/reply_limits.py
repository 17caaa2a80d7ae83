"""What a reply may hold: looked at by name and length, before anything of it is parsed, copied or logged."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedgc.errors import ReplyTooLargeError
from fedgc.records.array_bytes import LONGEST_HEADER
from fedgc.records.copies import checked
from fedgc.updates import Arrays

#: Bytes of a number, of the widest type that a reply may have in place of the model's.
_WIDEST = 8
#: Records of a reply beside its sums: two of ours, and what a user's mods may add.
_MORE_RECORDS = 16
#: Names in a record, characters of a name, and entries of all lists and characters of all texts in a record.
_MOST_NAMES, _LONGEST_NAME, _MOST_ENTRIES = 1000, 200, 20_000
#: Further entries for each shard of the client's part, of which the reply says how large it is and whether it is kept.
_MORE_ENTRIES = 4
#: Characters of a reason in the log.
_LONGEST_REASON, _LONGEST_VALUE = 500, 80

Record = ArrayRecord | MetricRecord | ConfigRecord


def most_bytes(arrays: Arrays) -> int:
    """Return how many bytes a reply's arrays of one sum may have: those of the model in the widest type, with headers.

    Examples
    --------
    >>> import numpy as np
    >>> most_bytes({"w": np.zeros((2, 3), np.float32)})
    1072
    """
    return sum(value.size * max(value.itemsize, _WIDEST) + LONGEST_HEADER for value in arrays.values())


def check_limits(content: Mapping[str, Record], arrays: Arrays, n_sums: int, n_shards: int) -> None:
    """Raise an error if a reply to a training message holds more than one can.

    Parameters
    ----------
    content : mapping of str to record
        The reply's records.
    arrays : mapping of str to ndarray
        The global arrays.
    n_sums : int
        Most sums that its client may send.
    n_shards : int
        Number of shards in the client's part.

    Raises
    ------
    ReplyTooLargeError
        If there are more records than `n_sums` and a few, a sum has more arrays or bytes than the model, or what else
        there is has too many or too long names or values.

    Notes
    -----
    Lengths are all that is looked at, and these are known without a look at what they are of: no array is parsed and no
    name sorted or logged before.
    """
    if len(content) > n_sums + _MORE_RECORDS:
        raise ReplyTooLargeError(f"a reply must hold at most {n_sums + _MORE_RECORDS} records; got {len(content)}")
    if (longest := max(map(len, content), default=0)) > _LONGEST_NAME:
        raise ReplyTooLargeError(f"names of records must have at most {_LONGEST_NAME} characters; got {longest}")
    allowed = most_bytes(arrays)
    for name, record in content.items():
        if not isinstance(record, ArrayRecord):
            check_small(name, record, _MOST_ENTRIES + _MORE_ENTRIES * n_shards)
            continue
        if len(record) > len(arrays) + 1:  # one more is told by its name
            raise ReplyTooLargeError(f"record {name!r} must hold {len(arrays)} arrays, as the model; got {len(record)}")
        if (longest := max(map(len, record), default=0)) > max(map(len, arrays), default=0) + _LONGEST_NAME:
            raise ReplyTooLargeError(f"names of arrays must be the model's; got one of {longest} characters")
        if (size := sum(len(array.data) for array in record.values())) > allowed:
            raise ReplyTooLargeError(f"record {name!r} must have at most {allowed} bytes, as the model; got {size}")


def check_small(name: str, record: MetricRecord | ConfigRecord, most: int = _MOST_ENTRIES) -> None:
    """Raise ReplyTooLargeError if a record without arrays holds more than is worth keeping, averaging or logging."""
    if len(record) > _MOST_NAMES:
        raise ReplyTooLargeError(f"record {name!r} must hold at most {_MOST_NAMES} names; got {len(record)}")
    if (longest := max(map(len, record), default=0)) > _LONGEST_NAME:
        raise ReplyTooLargeError(
            f"names in record {name!r} must have at most {_LONGEST_NAME} characters; got {longest}"
        )
    entries = 0
    for value in record.values():
        entries += len(value) if isinstance(value, (list, str, bytes)) else 1
        if entries <= most and isinstance(value, list):
            entries += sum(len(item) for item in value if isinstance(item, (str, bytes)))
        if entries > most:
            raise ReplyTooLargeError(f"record {name!r} must have at most {most} entries; got more")


def scalars(metrics: MetricRecord) -> MetricRecord:
    """Return the metrics that are plain numbers: the others are not averaged, and would be kept for nothing.

    Examples
    --------
    >>> dict(scalars(MetricRecord({"loss": 0.5, "losses": [0.9, 0.5]})))
    {'loss': 0.5}
    """
    return checked(MetricRecord, {name: value for name, value in metrics.items() if not isinstance(value, list)})


def drop_arrays(reply: Message) -> None:
    """Remove the arrays of a reply that has been worked off: they are what it takes room for."""
    if reply.has_content():
        arrays = [(name, record) for name, record in reply.content.items() if isinstance(record, ArrayRecord)]
        for name, record in arrays:
            # Flower's records refer to themselves, so that one which is only let go of stays until Python looks for
            # such things, and by then there may be many.
            record.clear()
            del reply.content[name]


def drop_all(reply: Message) -> None:
    """Remove all of a reply, of which nothing is known to be small."""
    if reply.has_content():
        for record in reply.content.values():
            record.clear()
        reply.content.clear()


def brief(value: object) -> str:
    """Return the beginning of what a value looks like, without making all of it.

    Examples
    --------
    >>> brief([1, 2]), len(brief([7] * 10**6)), brief(10**5000)
    ('[1, 2]', 80, 'an int of 16610 bits')
    """
    if isinstance(value, (str, bytes)):
        value = value[:_LONGEST_VALUE]
    elif isinstance(value, list):
        value = [item[:_LONGEST_VALUE] if isinstance(item, (str, bytes)) else item for item in value[:_LONGEST_VALUE]]
    try:
        return repr(value)[:_LONGEST_VALUE]
    except ValueError:  # Python writes no integer of more than some thousand digits
        return f"an int of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def brief_names(names: Mapping[str, object]) -> str:
    """Return the first names in order, each shortened if need be; all of them, if they are not too many.

    Examples
    --------
    >>> brief_names({"w": 0, "b": 1})
    "['b', 'w']"
    """
    some = sorted(islice(names, 100))
    told = ", ".join(brief(name) for name in some[:10])
    return f"[{told}]" if len(names) <= 10 else f"[{told}, ...] ({len(names)} in all)"


def one_line(reason: object) -> str:
    r"""Return a text as one line of printable characters of bounded length, whatever a client has put into it.

    Examples
    --------
    >>> one_line("no such file\n[ERROR] round 7: node 3 is left out")
    'no such file\\n[ERROR] round 7: node 3 is left out'
    >>> len(one_line("a" * 10**6))
    500
    """
    text = str(reason)[:_LONGEST_REASON]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:_LONGEST_REASON]
