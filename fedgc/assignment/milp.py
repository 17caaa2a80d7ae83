"""The exact optimum of small instances, by integer programming."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.assignment.build import build
from fedgc.assignment.columns import Columns, classes_of_blocks, is_small, make_columns
from fedgc.assignment.constraints import AssignmentConstraints
from fedgc.assignment.dealing import deal_shards
from fedgc.assignment.feasibility import check_each, diagnosis
from fedgc.assignment.instance import make_instance
from fedgc.assignment.result import Assignment

Ints = NDArray[np.intp]


def solve_exactly(
    reach: ArrayLike,
    n_shards: int,
    *,
    holders: int | tuple[int, int],
    schedule: str,
    constraints: AssignmentConstraints | None = None,
) -> Assignment:
    """Return the assignment of least predicted residual error, for instances small enough to list all blocks.

    Parameters
    ----------
    reach, n_shards, holders, schedule, constraints
        As in :func:`fedgc.assignment.assign`.

    Raises
    ------
    ValueError
        If an argument is not what it must be, or there are too many possible blocks.
    InfeasibleAssignmentError
        If no assignment meets the constraints.

    Notes
    -----
    A column is a set of members with a number of shards; its cost is known, since the shards of a block differ only in
    where they may live. Columns are chosen such that no client is in two of them and they hold all shards, and integer
    variables say how many shards of each residency class a set of members holds. Work lists are those of
    :func:`fedgc.assignment.work_list_order.best_lists`, so the optimum is over blocks, not over all orders. If every
    assignment leaves some shard without a chance, the number of such shards comes first.

    Examples
    --------
    >>> reach = [[1, 0.9], [1, 0.9], [1, 0.2], [1, 0.2]]
    >>> best = solve_exactly(reach, 2, holders=2, schedule="full")
    >>> [block.members for block in best.blocks], round(best.residual_error, 4)
    ([(0, 3), (1, 2)], 0.087)
    """
    instance = make_instance(reach, n_shards, holders, schedule, constraints)
    check_each(instance)
    if not is_small(instance):
        raise ValueError(
            f"n_clients, n_shards and holders must leave few enough blocks to list; "
            f"got {instance.n_clients}, {instance.n_shards} and {holders}"
        )
    columns = make_columns(instance)
    found = _best_columns(columns)
    if found is None:
        raise diagnosis(instance, impossible=True)
    sets, sizes = found
    counts = classes_of_blocks(columns.may_hold()[sets], sizes, instance.class_sizes)
    if counts is None:
        raise RuntimeError("the solver's answer breaks a residency rule")
    order = np.lexsort(columns.members[sets].T[::-1])
    return build(instance, columns.members[sets][order], deal_shards(instance, counts[order]))


def _best_columns(columns: Columns) -> tuple[Ints, Ints] | None:
    instance = columns.instance
    which, sizes = np.nonzero(np.isfinite(columns.cost[1:]))
    if which.size == 0:
        return None
    which += 1
    n_columns, n_sets, n_classes = which.size, columns.bits.size - 1, len(instance.allowed)
    client = ((columns.bits[which] >> np.arange(instance.n_clients)[:, None]) & 1).astype(np.float64)
    rows = [sparse.csr_array(client)]
    low, high = [np.full(instance.n_clients, -np.inf)], [np.ones(instance.n_clients)]
    of_set = sparse.csr_array((sizes.astype(np.float64), (which - 1, np.arange(n_columns))), (n_sets, n_columns))
    n_counts = 0
    if n_classes == 1:
        rows.append(sparse.csr_array(sizes[None].astype(np.float64)))
        low.append(np.array([float(instance.n_shards)]))
        high.append(np.array([float(instance.n_shards)]))
    else:
        set_, class_ = np.nonzero(columns.may_hold()[1:])
        n_counts = set_.size
        by_set = sparse.csr_array((np.ones(n_counts), (set_, np.arange(n_counts))), (n_sets, n_counts))
        by_class = sparse.csr_array((np.ones(n_counts), (class_, np.arange(n_counts))), (n_classes, n_counts))
        rows = [
            sparse.hstack([rows[0], sparse.csr_array((instance.n_clients, n_counts))]),
            sparse.hstack([of_set, -by_set]),
            sparse.hstack([sparse.csr_array((n_classes, n_columns)), by_class]),
        ]
        low += [np.zeros(n_sets), instance.class_sizes.astype(np.float64)]
        high += [np.zeros(n_sets), instance.class_sizes.astype(np.float64)]
    from scipy import optimize  # noqa: PLC0415  (a fifth of a second, which no client's process needs to spend)

    result = optimize.milp(
        np.concatenate([columns.cost[which, sizes], np.zeros(n_counts)]),
        constraints=optimize.LinearConstraint(
            sparse.csc_array(sparse.vstack(rows)), np.concatenate(low), np.concatenate(high)
        ),
        integrality=np.ones(n_columns + n_counts, dtype=np.intp),
        bounds=optimize.Bounds(0, np.concatenate([np.ones(n_columns), np.full(n_counts, instance.n_shards)])),
        options={"mip_rel_gap": 1e-7},
    )
    if result.x is None:
        return None
    chosen = np.flatnonzero(result.x[:n_columns] > 0.5)
    return which[chosen], sizes[chosen]


def feasible_columns(columns: Columns) -> tuple[Ints, Ints] | None:
    """Return some sets of members and their sizes that meet all constraints, or None if there are none."""
    cost = np.where(np.arange(columns.cost.shape[1]) <= columns.cap[:, None], 0.0, np.inf)
    cost[1:, 0] = np.inf
    cost[0, 1:] = np.inf
    return _best_columns(Columns(columns.instance, columns.members, columns.bits, columns.cap, cost, columns.reaches))
