"""Tables of clients and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest

from fedgc.strategies.reporting.status import BlockStatus, ClientStatus

from fedgc.pages.text import UNKNOWN, number, percent, safe

#: Rows of a table at most; the data file has them all.
MOST_ROWS = 100
#: Labels, members and shards that are named in a cell.
_NAMED = 4


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def least_reliable(clients: Sequence[ClientStatus], most: int = MOST_ROWS) -> list[ClientStatus]:
    """Return the clients that are likeliest to miss the next deadline; equals in the order of their ids."""
    return nsmallest(most, clients, key=lambda client: (-client.straggle_prob, client.node_id))


def slowest(clients: Sequence[ClientStatus], most: int = MOST_ROWS) -> list[ClientStatus]:
    """Return the clients that take longest per shard, of those whose times are known."""
    timed = [client for client in clients if client.seconds_per_shard is not None]
    return nsmallest(most, timed, key=lambda client: (-(client.seconds_per_shard or 0.0), client.node_id))


def client_table(clients: Iterable[ClientStatus]) -> str:
    """Return a table of clients, in the order given."""
    head = ("Node", "Straggles", "s per shard", "Last seen", "Came", "90 % interval", "Partition, labels", "Remarks")
    return table(head, (_client_row(client) for client in clients))


def _client_row(client: ClientStatus) -> tuple[str, ...]:
    seen = "never" if client.last_seen is None else f"round {client.last_seen}"
    told = [] if client.partition is None else [str(client.partition)]
    told += [f"{safe(name, 24)}={safe(value, 40)}" for name, value in list(client.labels.items())[:_NAMED]]
    remarks = []
    if client.set_aside_until is not None:
        remarks.append(f"set aside until round {client.set_aside_until}")
    if client.rejected:
        remarks.append(f"left out {client.rejected} times, last: {safe(client.last_rejection, 120)}")
    return (
        str(client.node_id),
        percent(client.straggle_prob),
        number(client.seconds_per_shard),
        seen if client.last_asked else "not asked yet",
        f"{client.came} of {client.asked}",
        _interval(client),
        ", ".join(told) or UNKNOWN,
        "; ".join(remarks),
    )


def _interval(client: ClientStatus) -> str:
    """Return the interval of a client's probability in numbers, and drawn as a bar from 0 to 1."""
    low, middle, high = (f"{100 * value:.3g}" for value in (client.low, client.straggle_prob, client.high))
    drawn = f'<path class="limit" d="M0,5H100"/><path d="M{low},5H{high}"/><path class="mark" d="M{middle},5h0"/>'
    bar = f'<svg class="bar" viewBox="-4 0 108 10" aria-hidden="true">{drawn}</svg>'
    return f"{bar} {100 * client.low:.0f} to {100 * client.high:.0f}"


def block_table(blocks: Sequence[BlockStatus]) -> str:
    """Return a table of blocks, those first of which least is to be expected."""
    shown = nsmallest(MOST_ROWS, blocks, key=lambda block: (-block.silence_prob, block.block))
    head = ("Block", "Sends nothing", "Last recovered", "Members", "Shards")
    return table(
        head,
        (
            (
                str(block.block),
                percent(block.silence_prob),
                "never" if block.last_recovered is None else f"round {block.last_recovered}",
                _named(block.members),
                _named(block.shards),
            )
            for block in shown
        ),
    )


def _named(numbers: Sequence[int]) -> str:
    """Return the first few of many.

    Examples
    --------
    >>> _named([1, 2]), _named(range(10))
    ('1, 2', '0, 1, 2, 3 and 6 more')
    """
    named = ", ".join(str(each) for each in numbers[:_NAMED])
    return named if len(numbers) <= _NAMED else f"{named} and {len(numbers) - _NAMED} more"
