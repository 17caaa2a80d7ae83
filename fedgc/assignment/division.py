"""Divide shards among groups of clients: by weight, and such that each lives where its residency rule lets it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from fedgc.assignment.instance import Instance
from fedgc.assignment.tied import Tied, tied_of
from fedgc.assignment.work_list_order import shares_by_speed

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

#: A flow through more edges than this takes too long.
_MOST_EDGES = 5_000_000


def divided(instance: Instance, members: Ints, weight: Floats, cap: Ints) -> tuple[Ints, Tied, bool]:
    """Divide the shards in proportion to `weight` within `cap`, as far as residency rules let it.

    Parameters
    ----------
    instance : Instance
        The instance.
    members : ndarray of int, shape (n_rows, n_slots)
        Members, padded with n_clients.
    weight : ndarray, shape (n_rows,)
        What the sizes are to be in proportion to.
    cap : ndarray of int, shape (n_rows,)
        Most shards of each row.

    Returns
    -------
    sizes : ndarray of int, shape (n_rows,)
    tied : Tied
    fits : bool
        Whether all limits and rules are kept. If not, rows hold too many, or shards that they may not hold.

    Notes
    -----
    Classes with the least room come first, each to the rows that have most left of their part by weight. If some class
    then finds no room, a maximum flow from classes to rows says how all of them do, if they do with these members.
    """
    target = allot(min(instance.n_shards, int(cap.sum())), weight, cap)
    need = instance.class_sizes
    enough = int(cap.sum()) >= instance.n_shards
    nothing = np.zeros(0, dtype=np.intp)
    tied, lost = tied_of(nothing, nothing, nothing, need.size), 0
    if need.size > 1 and cap.size:
        tied, lost = _in_turn(instance, members, target, cap)
        if lost and enough:
            by_flow = _by_flow(instance, members, cap)
            if by_flow is not None:
                tied, lost = by_flow, 0
    held = tied.per_row(cap.size)
    free, room = int(need[0]), np.maximum(cap - held, 0)
    part = np.minimum(np.maximum(target - held, 0), room)
    if part.sum() >= free:
        part = allot(free, part.astype(np.float64), part)
    else:
        part += allot(min(free - int(part.sum()), int((room - part).sum())), weight, room - part)
    sizes = held + part
    missing = instance.n_shards - int(sizes.sum())
    if missing and cap.size:
        sizes[np.argmax(cap)] += missing
    return sizes, tied, missing == 0 and lost == 0


def allot(total: int, weight: Floats, cap: Ints) -> Ints:
    """Divide `total` in proportion to `weight` within `cap`, by largest remainders; total is at most the caps' sum."""
    return np.asarray(shares_by_speed(np.array([total]), weight[None], cap[None])[0])


def _in_turn(instance: Instance, members: Ints, target: Ints, cap: Ints) -> tuple[Tied, int]:
    """Deal class after class; what finds no room goes to rows whose members may not hold it, and is counted."""
    need, held = instance.class_sizes, np.zeros_like(cap)
    able = {c: _able(instance, c, members, cap) for c in (np.flatnonzero(need[1:]) + 1).tolist()}
    rows, classes, counts, lost = [], [], [], 0
    for c in sorted(able, key=lambda c: (float(cap[able[c]].sum()) / need[c], c)):
        wanted = int(need[c])
        for where, most in ((able[c], target), (able[c], cap), (np.arange(cap.size), cap)):
            room = np.maximum(most - held, 0)[where]
            part = allot(min(wanted, int(room.sum())), room.astype(np.float64), room)
            if where.size == cap.size and most is cap and able[c].size < cap.size:
                lost += int(part.sum())
            held[where] += part
            rows.append(where)
            classes.append(np.full(where.size, c))
            counts.append(part)
            wanted -= int(part.sum())
            if wanted == 0:
                break
        if wanted:
            lost += wanted
            rows.append(np.array([int(np.argmax(cap))]))
            classes.append(np.array([c]))
            counts.append(np.array([wanted]))
    return tied_of(np.concatenate(rows), np.concatenate(classes), np.concatenate(counts), need.size), lost


def _able(instance: Instance, residency_class: int, members: Ints, cap: Ints) -> Ints:
    may = instance.may_hold(np.full(cap.size, residency_class), members)
    return np.flatnonzero(may & (cap > 0))


def _by_flow(instance: Instance, members: Ints, cap: Ints) -> Tied | None:
    """Return tied shards of rows that have room for all of them, or None if there is none."""
    need = instance.class_sizes
    wanted = np.flatnonzero(need[1:]) + 1
    if wanted.size * cap.size > _MOST_EDGES:
        return None
    able = [_able(instance, int(c), members, cap) for c in wanted]
    row = np.concatenate(able)
    of_class = np.repeat(np.arange(wanted.size), [rows.size for rows in able])
    # Nodes: source, classes, rows, sink.
    first, sink = 1 + wanted.size, 1 + wanted.size + cap.size
    tail = np.concatenate([np.zeros(wanted.size, dtype=np.intp), 1 + of_class, first + np.arange(cap.size)])
    head = np.concatenate([1 + np.arange(wanted.size), first + row, np.full(cap.size, sink)])
    room = np.concatenate([need[wanted], np.minimum(need[wanted][of_class], cap[row]), cap]).astype(np.int32)
    result = csgraph.maximum_flow(sparse.csr_array((room, (tail, head)), shape=(sink + 1, sink + 1)), 0, sink)
    if result.flow_value < need[1:].sum():
        return None
    flow = sparse.coo_array(result.flow[1:first, first:sink])
    return tied_of(flow.col.astype(np.intp), wanted[flow.row], flow.data.astype(np.intp), need.size)
