"""Greedy starts for large instances: groups of clients, and shards by what the groups get done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.division import divided
from fedgc.assignment.instance import Instance
from fedgc.assignment.kindred import kindred_groups, pooled_groups
from fedgc.assignment.tied import Tied

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]

STYLES = ("mixed", "alike", "by room")


@dataclass(frozen=True, eq=False)
class Rows:
    """Blocks as a table, with rows for idle clients as well: they have members and no shards.

    Attributes
    ----------
    members : ndarray of int, shape (n_rows, n_slots)
        Members, padded with n_clients.
    sizes : ndarray of int, shape (n_rows,)
        Shards in each row.
    tied : Tied
        Which of them have residency rules: all members of a row may hold all of its shards.
    """

    members: Ints
    sizes: Ints
    tied: Tied


def greedy_starts(instance: Instance) -> tuple[list[Rows], list[Rows]]:
    """Return rows in several styles: strong clients with weak ones, like with like, and by room.

    Where blocks may differ in their number of members, each style comes with the fewest and with the most. Where there
    are residency rules, groups are formed within pools for each class, of clients that may hold the same, and as if
    there were no rules.

    Returns
    -------
    feasible, others : list of Rows
        Those that meet all constraints, and those whose groups cannot hold the shards; they hold too many.
    """
    feasible: list[Rows] = []
    others: list[Rows] = []
    ways = ("anyone",) if len(instance.allowed) == 1 else ("pools", "kindred", "anyone")
    for holders in dict.fromkeys((instance.least, min(instance.most, 8 + instance.least))):
        for way in ways:
            for style in STYLES:
                # By room wastes the least of it, and is only needed where room is scarce; of the other groupings one
                # style is enough to see whether they are better.
                if feasible and (style == "by room" or (way != ways[0] and style != "mixed")):
                    continue
                rows, fits = _start(instance, holders, way, style)
                (feasible if fits else others).append(rows)
    return feasible, others


def _start(instance: Instance, holders: int, way: str, style: str) -> tuple[Rows, bool]:
    rest = np.flatnonzero(instance.limit[:-1] > 0)
    if way == "anyone":
        members = group_clients(instance, rest, holders, style)
    else:
        pools = pooled_groups(instance, holders, rest) if way == "pools" else kindred_groups(instance, holders, rest)
        members = np.concatenate([group_clients(instance, pool, holders, style) for pool in pools])
    members = np.pad(members, ((0, 0), (0, instance.most - holders)), constant_values=instance.n_clients)
    if members.shape[0] == 0:
        # Shards must be somewhere, so that they can be moved from there.
        members = np.full((1, instance.most), instance.n_clients, dtype=np.intp)
        members[0, : min(holders, rest.size)] = rest[:holders]
    cap = instance.cap(members)
    weight = np.minimum(_capability(instance, members), cap)
    sizes, tied, fits = divided(instance, members, weight, cap)
    # Idle clients get rows of their own, so that the search can bring them in.
    used = np.zeros(instance.n_clients + 1, dtype=np.bool_)
    used[members] = True
    idle = rest[~used[rest]]
    idle_rows = np.full((idle.size, instance.most), instance.n_clients, dtype=np.intp)
    idle_rows[:, 0] = idle
    sizes = np.concatenate([sizes, np.zeros(idle.size, dtype=np.intp)])
    return Rows(np.concatenate([members, idle_rows]), sizes, tied), fits


def _capability(instance: Instance, members: Ints) -> Floats:
    """Return the expected number of shards that each row gets done, as a weight for its size."""
    if instance.schedule == "work-list":
        return np.asarray(instance.speed[members].sum(axis=1) + 1e-9)
    missed = np.ones((members.shape[0], instance.miss.shape[1] - 1))
    for slot in members.T:
        missed *= instance.miss[slot, 1:]
    return np.asarray((1.0 - missed).sum(axis=1) + 1e-9)


def group_clients(instance: Instance, pool: Ints, holders: int, style: str) -> Ints:
    """Form groups of `holders` clients from different domains, (n_groups, holders)."""
    key = instance.limit[pool] if style == "by room" else instance.speed[pool]
    order = pool[np.argsort(-key, kind="stable")]
    n_groups = order.size // holders
    if style == "mixed":
        # Strata from fast to slow; every second one is reversed, so that the sums of a group's speeds are alike.
        strata = order[: n_groups * holders].reshape(holders, n_groups)
        strata[1::2] = strata[1::2, ::-1]
        order = np.concatenate([strata.T.ravel(), order[n_groups * holders :]])
    if instance.constraints.domain is None:
        return np.asarray(order[: n_groups * holders].reshape(n_groups, holders))
    groups = _group_in_order(instance.domain, order, holders)
    return groups if groups.shape[0] >= (n_groups * 9) // 10 else _group_round(instance.domain, order, holders)


def _group_in_order(domain: Ints, order: Ints, holders: int) -> Ints:
    """Put every client into the first group that still wants one from its domain."""
    groups: list[list[int]] = []
    inside: list[list[int]] = []
    first_open = 0
    seen: dict[int, int] = {}  # no group before this one wants the domain
    n_groups = 0
    for client, where in zip(order.tolist(), domain[order].tolist(), strict=True):
        group = seen.get(where, 0)
        group = max(group, first_open)
        while group < n_groups and (where in inside[group] or len(groups[group]) == holders):
            group += 1
        seen[where] = group + 1
        if group == n_groups:
            groups.append([client])
            inside.append([where])
            n_groups += 1
        else:
            groups[group].append(client)
            inside[group].append(where)
        while first_open < n_groups and len(groups[first_open]) == holders:
            first_open += 1
    full = [group for group in groups if len(group) == holders]
    return np.array(full, dtype=np.intp).reshape(-1, holders)


def _group_round(domain: Ints, order: Ints, holders: int) -> Ints:
    """Deal the clients, domain by domain, round the largest number of groups for which no group meets one twice."""
    _, inverse, count = np.unique(domain[order], return_inverse=True, return_counts=True)
    low, high = 0, order.size // holders
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(count, middle).sum() >= middle * holders else (low, middle - 1)
    if low == 0:
        return np.zeros((0, holders), dtype=np.intp)
    by_domain = np.argsort(inverse, kind="stable")
    within = np.arange(order.size) - np.repeat(np.cumsum(count) - count, count)
    dealt = order[by_domain[within < low]][: low * holders]
    return np.asarray(dealt.reshape(holders, low).T)
