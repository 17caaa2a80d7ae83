"""What clients can and may hold, and the error that says which of it cannot be met."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_indices, check_integer

#: The names that an :class:`InfeasibleAssignmentError` uses, in the order in which they are tried.
CONSTRAINTS = ("storage", "computation", "domain", "residency", "holders")

Residency = Mapping[int, Sequence[int]] | Sequence[tuple[Sequence[int], Sequence[int]]]


class InfeasibleAssignmentError(ValueError):
    """No assignment meets the constraints.

    Parameters
    ----------
    constraints : tuple of str
        The constraints to blame, from :data:`CONSTRAINTS`: each of them alone, if dropped, would leave something
        feasible, or cannot be met even on its own. If no single one can be blamed, all that are set.
    message : str
        One line that names the first of them and the numbers; failure domains by the `domain_name` that is given.
    """

    def __init__(self, constraints: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.constraints = constraints


@dataclass(frozen=True, eq=False)
class AssignmentConstraints:
    """Limits of clients and rules about where shards may live; None stands for no limit and no rule.

    Parameters
    ----------
    storage : array_like of int, shape (n_clients,), optional
        Most shards that each client can hold.
    computation : array_like of int, shape (n_clients,), optional
        Most shards that each client may compute in a round. In the full schedule a client computes all that it holds;
        with work lists it may hold more, and its list ends there.
    domain : sequence, shape (n_clients,), optional
        Failure domain of each client, such as its site: any labels. Members of a block come from different ones.
    residency : mapping or sequence, optional
        Shard to the clients on which it may live, or pairs (shards, clients). Shards that are not named may live
        anywhere; a shard that is named twice must meet both.
    domain_name : str
        What errors call the failure domains, such as "site" where they come from a fleet file that says so.

    Raises
    ------
    ValueError
        If a limit is not a vector of integers of at least 0, or lengths differ.

    Examples
    --------
    >>> limits = AssignmentConstraints(storage=[4, 4, 2], domain=["a", "b", "b"], residency=[([0, 1], [0, 2])])
    >>> limits.for_clients([0, 2]).storage.tolist()
    [4, 2]
    """

    storage: ArrayLike | None = None
    computation: ArrayLike | None = None
    domain: Sequence[Hashable] | NDArray[np.generic] | None = None
    residency: Residency | None = None
    domain_name: str = "domain"

    def __post_init__(self) -> None:
        lengths = {}
        for name in ("storage", "computation"):
            value = getattr(self, name)
            if value is not None:
                checked = check_indices(name, value)
                checked.setflags(write=False)
                object.__setattr__(self, name, checked)
                lengths[name] = checked.size
        if self.domain is not None:
            lengths["domain"] = len(self.domain)
        if len(set(lengths.values())) > 1:
            named = {self.name_of(name): length for name, length in lengths.items()}
            raise ValueError(
                f"storage, computation and {self.domain_name} must have one entry per client; got lengths {named}"
            )

    def name_of(self, constraint: str) -> str:
        """Return what errors call one of :data:`CONSTRAINTS`."""
        return self.domain_name if constraint == "domain" else constraint

    def without(self, name: str) -> AssignmentConstraints:
        """Return these constraints with one of them dropped."""
        dropped: dict[str, Any] = {} if name == "holders" else {name: None}
        return replace(self, **dropped)

    def for_clients(self, clients: ArrayLike) -> AssignmentConstraints:
        """Return the constraints of some of the clients, numbered by their place in `clients`."""
        kept = check_indices("clients", clients)
        number = {int(client): place for place, client in enumerate(kept)}
        rules = [
            (list(shards), [number[client] for client in allowed if client in number])
            for shards, allowed in residency_rules(self.residency)
        ]
        return AssignmentConstraints(
            storage=None if self.storage is None else np.asarray(self.storage)[kept],
            computation=None if self.computation is None else np.asarray(self.computation)[kept],
            domain=None if self.domain is None else [self.domain[int(client)] for client in kept],
            residency=None if self.residency is None else rules,
            domain_name=self.domain_name,
        )


def residency_rules(residency: Residency | None) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Return the rules as pairs (shards, clients)."""
    if residency is None:
        return []
    if isinstance(residency, Mapping):
        return [([shard], list(clients)) for shard, clients in residency.items()]
    try:
        return [(list(shards), list(clients)) for shards, clients in residency]
    except (TypeError, ValueError):
        raise ValueError(
            f"residency must map shards to clients or list pairs (shards, clients); got {residency!r}"
        ) from None


def residency_classes(
    residency: Residency | None, n_clients: int, n_shards: int
) -> tuple[NDArray[np.intp], tuple[NDArray[np.intp] | None, ...]]:
    """Group the shards by the clients on which they may live.

    Returns
    -------
    class_of_shard : ndarray of int, shape (n_shards,)
        Class of each shard; class 0 holds those that may live anywhere.
    allowed : tuple
        For each class the allowed clients, ascending; None for class 0.

    Raises
    ------
    ValueError
        If a rule names a shard or a client that is not there.
    """
    everyone = frozenset(range(n_clients))
    rules: dict[int, frozenset[int]] = {}
    for shards, clients in residency_rules(residency):
        for client in clients:
            check_integer("residency's clients", client, low=0, high=n_clients - 1)
        allowed = frozenset(int(client) for client in clients)
        # By what was allowed before: a rule over many shards and many clients is cut with each such set only once.
        both: dict[frozenset[int], frozenset[int]] = {everyone: allowed}
        for shard in shards:
            check_integer("residency's shards", shard, low=0, high=n_shards - 1)
            before = rules.get(int(shard), everyone)
            if before not in both:
                both[before] = before & allowed
            rules[int(shard)] = both[before]
    class_of_shard = np.zeros(n_shards, dtype=np.intp)
    number: dict[frozenset[int], int] = {everyone: 0}
    for shard in sorted(rules):
        class_of_shard[shard] = number.setdefault(rules[shard], len(number))
    sets = list(number)[1:]
    return class_of_shard, (None, *(np.array(sorted(clients), dtype=np.intp) for clients in sets))
