"""Random instances of the assignment problem, and a check of an assignment from its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import Assignment, AssignmentConstraints


def random_reach(rng: np.random.Generator, n_clients: int, width: int, typical: float) -> NDArray[np.float64]:
    """Absence with a random decay, a smooth deadline or a sharp one."""
    present = rng.uniform(0.4, 1.0, (n_clients, 1))
    done = np.arange(1, width + 1)
    kind = rng.integers(3)
    if kind == 0:
        after = np.cumprod(rng.uniform(0, 1, (n_clients, width)) ** rng.uniform(0.05, 2, (n_clients, 1)), axis=1)
    elif kind == 1:
        after = np.exp(-((done / np.exp(rng.normal(np.log(typical), 0.8, (n_clients, 1)))) ** 3))
    else:
        after = (done <= rng.integers(1, width + 2, (n_clients, 1))).astype(float)
    return np.concatenate([np.ones((n_clients, 1)), present * after], axis=1)


def random_instance(rng: np.random.Generator) -> tuple[NDArray[np.float64], int, dict[str, Any]]:
    """Five to seven clients, six to twelve shards, each constraint in about half of the cases."""
    n = int(rng.integers(5, 8))
    m = int(rng.integers(6, 10 if n == 7 else 13))
    reach = random_reach(rng, n, int(rng.integers(2, m + 3)), 2.0 * m / n)
    least = int(rng.integers(1, 4))
    most = int(rng.integers(least, 4))
    rules = None
    if rng.random() < 0.5:
        rules = [
            (
                rng.choice(m, int(rng.integers(1, 4)), replace=False).tolist(),
                rng.choice(n, int(rng.integers(2, n)), replace=False).tolist(),
            )
            for _ in range(int(rng.integers(1, 3)))
        ]
    constraints = AssignmentConstraints(
        storage=rng.integers(m // 2, m + 1, n) if rng.random() < 0.5 else None,
        computation=rng.integers(m // 4, m + 1, n) if rng.random() < 0.4 else None,
        domain=rng.integers(0, 4, n) if rng.random() < 0.5 else None,
        residency=rules,
    )
    schedule = ("full", "work-list")[int(rng.integers(2))]
    return reach, m, {"holders": (least, most), "schedule": schedule, "constraints": constraints}


def check_valid(
    found: Assignment,
    reach: NDArray[np.float64],
    *,
    holders: int | tuple[int, int],
    schedule: str,
    constraints: AssignmentConstraints | None = None,
) -> None:
    """Check an assignment against the constraints and its prediction against the definition of the cost."""
    given = constraints or AssignmentConstraints()
    least, most = holders if isinstance(holders, tuple) else (holders, holders)
    assert found.schedule == schedule
    m = found.n_shards
    missed = np.ones(m)
    seen: list[int] = []
    for members, shards in found.blocks:
        seen += shards
        assert least <= len(members) <= most
        if given.domain is not None:
            assert len({given.domain[client] for client in members}) == len(members)
        for client in members:
            order = found.lists[client]
            limit = m if given.computation is None else int(np.asarray(given.computation)[client])
            assert given.storage is None or len(shards) <= np.asarray(given.storage)[client]
            assert sorted(set(order.tolist())) == sorted(order.tolist())
            assert set(order.tolist()) <= set(shards)
            if schedule == "full":
                assert order.tolist() == list(shards)
                assert len(shards) <= limit
            else:
                assert order.size == min(limit, len(shards))
            for position, shard in enumerate(order.tolist(), start=1):
                done = len(shards) if schedule == "full" else position
                missed[shard] *= 1.0 - (reach[client, done] if done < reach.shape[1] else 0.0)
    assert sorted(seen) == list(range(m))
    for shards, clients in given.residency or []:  # type: ignore[union-attr]
        for shard in shards:
            assert set(found.holders_of(shard).tolist()) <= set(clients)
    # Shards change places within their blocks, so each is missed with the mean probability of the block's places.
    mean = np.concatenate([np.full(len(shards), missed[list(shards)].mean()) for _, shards in found.blocks])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found.residual_error, (mean / (1.0 - mean)).mean(), rtol=1e-9, atol=1e-15)
