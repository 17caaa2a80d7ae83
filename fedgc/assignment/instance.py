"""An instance of the assignment problem, checked, and what every method asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.assignment.constraints import AssignmentConstraints, residency_classes
from fedgc.assignment.cost import check_reach, full_cost, missing_probability
from fedgc.assignment.quick_lists import cost_by_speed
from fedgc.assignment.work_list_order import best_lists
from fedgc.validation import check_integer, one_of

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: full: a client computes all shards of its block and then replies. work-list: it works down an ordered list.
Schedule = Literal["full", "work-list"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

#: A table of classes and clients with more entries than this is not kept: it is looked up by key.
_MOST_ENTRIES = 100_000_000


@dataclass(frozen=True, eq=False)
class Instance:
    """Clients, shards and constraints as arrays; index n_clients stands for an empty slot of a block.

    Attributes
    ----------
    n_clients, n_shards : int
        Numbers of clients and shards.
    schedule : str
        "full" or "work-list".
    least, most : int
        Fewest and most members of a block.
    constraints : AssignmentConstraints
        What came.
    miss : ndarray, shape (n_clients + 1, K + 2)
        Probability that each client has not done k shards.
    speed : ndarray, shape (n_clients + 1,)
        Expected number of shards that each client does by the deadline.
    limit : ndarray of int, shape (n_clients + 1,)
        Most shards of a block that the client is in.
    list_limit : ndarray of int, shape (n_clients + 1,)
        Most shards in its work list.
    domain : ndarray of int, shape (n_clients + 1,)
        Failure domains, numbered; -1 for an empty slot.
    class_of_shard : ndarray of int, shape (n_shards,)
        Residency class of each shard; class 0 may live anywhere.
    allowed : tuple
        Clients of each residency class, None for class 0.
    """

    n_clients: int
    n_shards: int
    schedule: str
    least: int
    most: int
    constraints: AssignmentConstraints
    miss: Floats
    speed: Floats
    limit: Ints
    list_limit: Ints
    domain: Ints
    class_of_shard: Ints
    allowed: tuple[Ints | None, ...]
    _allowed_keys: Ints

    @property
    def class_sizes(self) -> Ints:
        """Number of shards in each residency class."""
        return np.bincount(self.class_of_shard, minlength=len(self.allowed))

    @cached_property
    def has_limits(self) -> bool:
        """Whether some clients cannot hold, or work through, all shards."""
        return bool((np.minimum(self.limit, self.list_limit)[:-1] < self.n_shards).any())

    def cap(self, members: Ints) -> Ints:
        """Return the most shards that each block can have, given its members, (n_blocks,)."""
        slots = members.T  # slot by slot: a block has few of them, and there are many blocks
        most = np.where((slots < self.n_clients).any(axis=0), self.limit.take(slots).min(axis=0), 0)
        if self.schedule == "work-list":
            most = np.minimum(most, self.list_limit.take(slots).sum(axis=0))
        return np.asarray(most, dtype=np.intp)

    def domains_differ(self, members: Ints) -> Bools:
        """Return whether no two members of each block share a domain, (n_blocks,)."""
        if self.constraints.domain is None:
            return np.ones(members.shape[0], dtype=np.bool_)
        labels = np.sort(self.domain[members], axis=1)
        return np.asarray(~((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] >= 0)).any(axis=1))

    @cached_property
    def _forbidden(self) -> Bools:
        """Which clients may not hold shards of each residency class, (n_classes, n_clients + 1)."""
        table = np.zeros((len(self.allowed), self.n_clients + 1), dtype=np.bool_)
        for number, clients in enumerate(self.allowed):
            if clients is not None:
                table[number, :-1] = True
                table[number, clients] = False
        return table

    def copies_forbidden(self, residency_class: Ints, members: Ints) -> Ints:
        """Return how many members of each block may not hold shards of its residency class, (n_blocks,)."""
        if len(self.allowed) * self.n_clients <= _MOST_ENTRIES:
            width = self.n_clients + 1
            return np.asarray(self._forbidden.ravel().take(residency_class[:, None] * width + members).sum(axis=1))
        key = residency_class[:, None] * (self.n_clients + 1) + members
        found = self._allowed_keys[np.minimum(np.searchsorted(self._allowed_keys, key), self._allowed_keys.size - 1)]
        free = (residency_class == 0)[:, None] | (members == self.n_clients)
        return np.asarray((~((found == key) | free)).sum(axis=1))

    def may_hold(self, residency_class: Ints, members: Ints) -> Bools:
        """Return whether all members of each block may hold shards of its residency class, (n_blocks,)."""
        if len(self.allowed) == 1:
            return np.ones(members.shape[0], dtype=np.bool_)
        return np.asarray(self.copies_forbidden(residency_class, members) == 0)

    def any_allowed(self, residency_class: Ints, rng: np.random.Generator) -> Ints:
        """Return a random client that may hold shards of each of the classes, which all have some, (n,)."""
        begin, end = (
            np.searchsorted(self._allowed_keys, (residency_class + step) * (self.n_clients + 1)) for step in (0, 1)
        )
        return np.asarray(self._allowed_keys[rng.integers(begin, end)] % (self.n_clients + 1))

    def cost(self, members: Ints, sizes: Ints, *, thorough: bool) -> Floats:
        """Return the cost of each block; `thorough` improves the work lists first, else they are by speed."""
        if self.schedule == "full":
            return full_cost(self.miss, members, sizes)
        if thorough:
            return best_lists(self.miss, members, sizes, self.speed, self.list_limit)[2]
        return cost_by_speed(self.miss, members, sizes, self.speed, self.list_limit)

    def relaxed(self, name: str) -> Instance:
        """Return the instance without one of its constraints."""
        # In a large fleet a few holders more decide nothing, and wide tables would cost much.
        most = self.n_clients if self.n_clients <= 12 else max(self.most, 4)
        holders = (1, most) if name == "holders" else (self.least, self.most)
        # What a client may compute is already in `miss`, but a feasibility check does not look there.
        return _with_constraints(replace(self, least=holders[0], most=holders[1]), self.constraints.without(name))


def make_instance(
    reach: ArrayLike,
    n_shards: int,
    holders: int | tuple[int, int],
    schedule: str,
    constraints: AssignmentConstraints | None,
) -> Instance:
    """Check the arguments of :func:`fedgc.assignment.assign` and put them into arrays.

    Raises
    ------
    ValueError
        If an argument is not what it must be, or the constraints are about another number of clients.
    """
    matrix = check_reach(reach)
    n_clients = matrix.shape[0]
    check_integer("n_shards", n_shards, low=1)
    one_of("schedule", schedule, SCHEDULES)
    pair = holders if isinstance(holders, tuple) else (holders, holders)
    if len(pair) != 2:
        raise ValueError(f"holders must be a number or a pair (least, most); got {holders!r}")
    least = check_integer("holders", pair[0], low=1)
    most = check_integer("holders' upper limit", pair[1], low=least)
    given = constraints if constraints is not None else AssignmentConstraints()
    if not isinstance(given, AssignmentConstraints):
        raise ValueError(f"constraints must be AssignmentConstraints; got {type(given).__name__}")
    for name in ("storage", "computation", "domain"):
        value = getattr(given, name)
        if value is not None and len(value) != n_clients:
            raise ValueError(f"{given.name_of(name)} must have one entry per client, {n_clients}; got {len(value)}")
    computation = None if given.computation is None else np.asarray(given.computation, dtype=np.intp)
    miss = missing_probability(matrix, computation)
    nothing = np.zeros(0, dtype=np.intp)
    bare = Instance(
        n_clients=n_clients,
        n_shards=n_shards,
        schedule=schedule,
        least=least,
        most=max(least, min(most, n_clients)),
        constraints=given,
        miss=miss,
        speed=(1.0 - miss[:, 1:]).sum(axis=1),
        limit=nothing,
        list_limit=nothing,
        domain=nothing,
        class_of_shard=nothing,
        allowed=(),
        _allowed_keys=nothing,
    )
    return _with_constraints(bare, given)


def _with_constraints(instance: Instance, given: AssignmentConstraints) -> Instance:
    n_clients, n_shards = instance.n_clients, instance.n_shards
    unlimited = np.full(n_clients, n_shards)
    storage, computation = (
        np.minimum(unlimited if value is None else np.asarray(value), n_shards)
        for value in (given.storage, given.computation)
    )
    whole = np.minimum(storage, computation) if instance.schedule == "full" else np.where(computation > 0, storage, 0)
    domain = np.full(n_clients + 1, -1, dtype=np.intp)
    if given.domain is not None:
        number: dict[object, int] = {}
        domain[:-1] = [number.setdefault(label, len(number)) for label in given.domain]
    class_of_shard, allowed = residency_classes(given.residency, n_clients, n_shards)
    keys = [index * (n_clients + 1) + clients for index, clients in enumerate(allowed) if clients is not None]
    return replace(
        instance,
        constraints=given,
        limit=np.append(whole, n_shards).astype(np.intp),
        list_limit=np.append(computation, 0).astype(np.intp),
        domain=domain,
        class_of_shard=class_of_shard,
        allowed=allowed,
        # The -1 keeps a search in it valid where no rule leaves anyone.
        _allowed_keys=np.concatenate([np.array([-1], dtype=np.intp), *keys]),
    )
