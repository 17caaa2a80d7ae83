"""Whether some blocks meet all constraints, by an integer program over all blocks where these can still be listed."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedgc.assignment.division import divided
from fedgc.assignment.greedy import Rows
from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]

#: More sets of members, or entries of the program, than this are not listed: the solver would not keep its time limit.
_MOST_SETS, _MOST_NONZEROS = 20_000, 400_000


def listed_rows(instance: Instance, *, seconds: float) -> tuple[Rows | None, bool]:
    """Return some feasible rows, or None, and whether there are provably none.

    Parameters
    ----------
    instance : Instance
        The instance.
    seconds : float
        After which the program gives up, with neither rows nor a proof.

    Notes
    -----
    A variable for each set of members says whether it is a block: no client is in two, together they have room for all
    shards, and the shards of each residency class flow to blocks that may hold them, within their room. For given
    blocks that is a flow, so only the choice of blocks is integer. More members than a block must have make its room
    smaller, except where work lists share out the computation.
    """
    n, least = instance.n_clients, instance.least
    shared = instance.schedule == "work-list" and instance.constraints.computation is not None and least > 1
    counts = range(least, min(instance.most, n) + 1) if shared else (least,)
    if sum(comb(n, count) for count in counts) > _MOST_SETS:
        return None, False
    members = np.concatenate(
        [
            np.pad(
                np.array(list(itertools.combinations(range(n), count)), dtype=np.intp).reshape(-1, count),
                ((0, 0), (0, instance.most - count)),
                constant_values=n,
            )
            for count in counts
        ]
    )
    members = members[instance.domains_differ(members) & (instance.cap(members) > 0)]
    cap = instance.cap(members)
    need = instance.class_sizes
    wanted = np.flatnonzero(need[1:]) + 1
    able = {int(c): np.flatnonzero(instance.may_hold(np.full(cap.size, c), members)) for c in wanted}
    if any(sets.size == 0 for sets in able.values()) or cap.sum() < instance.n_shards:
        return None, True
    n_sets, n_flows = cap.size, sum(sets.size for sets in able.values())
    if 5 * n_flows + (instance.most + 1) * n_sets > _MOST_NONZEROS:
        return None, False
    chosen = _solve(instance, members, cap, able, seconds)
    if isinstance(chosen, bool):
        return None, chosen
    picked = members[chosen]
    sizes, tied, fits = divided(instance, picked, cap[chosen].astype(np.float64), cap[chosen])
    if not fits:
        raise RuntimeError("the solver's answer breaks a residency rule")
    idle = np.setdiff1d(np.flatnonzero(instance.limit[:-1] > 0), picked)
    alone = np.full((idle.size, instance.most), n, dtype=np.intp)
    alone[:, 0] = idle
    return Rows(np.concatenate([picked, alone]), np.append(sizes, np.zeros(idle.size, dtype=np.intp)), tied), False


def _solve(instance: Instance, members: Ints, cap: Ints, able: dict[int, Ints], seconds: float) -> Ints | bool:
    """Return the sets that are blocks, True if there is provably no choice, or False if time is over."""
    from scipy import optimize  # noqa: PLC0415  (a fifth of a second, which no client's process needs to spend)

    n, n_sets, need = instance.n_clients, cap.size, instance.class_sizes
    wanted = np.array(list(able), dtype=np.intp)
    flow_set = np.concatenate([np.zeros(0, dtype=np.intp), *able.values()])
    flow_class = np.repeat(np.arange(wanted.size), [sets.size for sets in able.values()])
    n_flows = flow_set.size
    at, slot = np.nonzero(members < n)
    once = sparse.csr_array((np.ones(at.size), (members[at, slot], at)), shape=(n, n_sets + n_flows))
    room = sparse.csr_array(np.append(cap.astype(np.float64), np.zeros(n_flows))[None])
    rows: list[sparse.csr_array[np.float64]] = [once, room]
    low, high = [np.full(n, -np.inf), np.array([float(instance.n_shards)])], [np.ones(n), np.array([np.inf])]
    if n_flows:
        flow = n_sets + np.arange(n_flows)
        shape = (wanted.size, n_sets + n_flows)
        rows.append(sparse.csr_array((np.ones(n_flows), (flow_class, flow)), shape=shape))
        rows.append(
            sparse.csr_array(
                (
                    np.concatenate([np.ones(n_flows), -cap.astype(np.float64)]),
                    (np.concatenate([flow_set, np.arange(n_sets)]), np.concatenate([flow, np.arange(n_sets)])),
                ),
                shape=(n_sets, n_sets + n_flows),
            )
        )
        # No more of a class than it has, in a set that is a block: it follows from the others, but bounds more tightly.
        tight = np.flatnonzero(need[wanted][flow_class] < cap[flow_set])
        rows.append(
            sparse.csr_array(
                (
                    np.concatenate([np.ones(tight.size), -need[wanted][flow_class[tight]].astype(np.float64)]),
                    (np.tile(np.arange(tight.size), 2), np.concatenate([flow[tight], flow_set[tight]])),
                ),
                shape=(tight.size, n_sets + n_flows),
            )
        )
        low += [need[wanted].astype(np.float64), np.full(n_sets + tight.size, -np.inf)]
        high += [need[wanted].astype(np.float64), np.zeros(n_sets + tight.size)]
    result = optimize.milp(
        np.zeros(n_sets + n_flows),
        constraints=optimize.LinearConstraint(
            sparse.csc_array(sparse.vstack(rows)), np.concatenate(low), np.concatenate(high)
        ),
        integrality=np.concatenate([np.ones(n_sets), np.zeros(n_flows)]),
        bounds=optimize.Bounds(0, np.concatenate([np.ones(n_sets), np.full(n_flows, np.inf)])),
        options={"time_limit": seconds},
    )
    if result.x is None:
        return bool(result.status == 2)
    return np.flatnonzero(result.x[:n_sets] > 0.5)
