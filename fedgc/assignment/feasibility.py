"""Say which constraint cannot be met."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.constraints import CONSTRAINTS, InfeasibleAssignmentError
from fedgc.assignment.instance import Instance


def check_each(instance: Instance) -> None:
    """Raise InfeasibleAssignmentError if a constraint cannot be met even without the others."""
    least, n_clients, n_shards, given = instance.least, instance.n_clients, instance.n_shards, instance.constraints
    if least > n_clients:
        raise InfeasibleAssignmentError(("holders",), f"holders must be at most n_clients = {n_clients}; got {least}")
    # Blocks of `least` clients of like room waste the least of it.
    for name, value in (("storage", given.storage), ("computation", given.computation)):
        if value is not None and (name == "storage" or instance.schedule == "full"):
            _check_copies(name, np.minimum(np.asarray(value), n_shards), least, n_shards)
    if given.computation is not None and instance.schedule == "work-list":
        room = np.sort(np.minimum(np.asarray(given.computation), n_shards))[::-1]
        room = room[room > 0]
        used = min(room.size, room.size // least * instance.most)
        if room[:used].sum() < n_shards:
            raise InfeasibleAssignmentError(
                ("computation",),
                f"computation must do at least {n_shards} shards in all, in blocks of at least {least} clients; "
                f"got {room[:used].sum()}",
            )
    if given.domain is not None and np.unique(instance.domain[:-1]).size < least:
        raise InfeasibleAssignmentError(
            ("domain",),
            f"{given.domain_name} must name at least {least} different {given.domain_name}s, one for each holder; "
            f"got {np.unique(instance.domain[:-1]).size}",
        )
    for number, clients in enumerate(instance.allowed):
        if clients is not None and clients.size < least and instance.class_sizes[number] > 0:
            shard = int(np.argmax(instance.class_of_shard == number))
            raise InfeasibleAssignmentError(
                ("residency",),
                f"residency must allow at least {least} clients for every shard; got {clients.size} for shard {shard}",
            )


def _check_copies(name: str, room: NDArray[np.intp], least: int, n_shards: int) -> None:
    if room.sum() < least * n_shards:
        raise InfeasibleAssignmentError(
            (name,), f"{name} must hold at least {least * n_shards} shards in all; got {room.sum()}"
        )
    together = int(np.sort(room)[::-1][least - 1 :: least].sum())
    if together < n_shards:
        raise InfeasibleAssignmentError(
            (name,), f"{name} must let blocks of {least} clients hold at least {n_shards} shards; got {together}"
        )


def diagnosis(instance: Instance, *, impossible: bool) -> InfeasibleAssignmentError:
    """Return the error for an instance without an assignment: the constraints whose removal would make it feasible.

    First each constraint is tried alone, with the number of holders, then all but one. A constraint is only named for
    what is proved; where an assignment was not found, but may exist, the error says that and no more.
    """
    from fedgc.assignment.optimise import find_blocks  # noqa: PLC0415 - the search in turn reports through this file

    given = instance.constraints
    names = [name for name in CONSTRAINTS[:-1] if getattr(given, name) is not None]
    numbers = f"for {instance.n_shards} shards, {instance.n_clients} clients and {_holders(instance)} holders"
    if not impossible:
        together = ", ".join(map(given.name_of, names))
        return InfeasibleAssignmentError(
            (*names, "holders"), f"found no assignment {numbers} that meets {together}; none is known to exist or not"
        )

    def feasible(dropped: list[str]) -> bool | None:
        relaxed = instance
        for name in dropped:
            relaxed = relaxed.relaxed(name)
        try:
            check_each(relaxed)
        except InfeasibleAssignmentError:
            return False
        found = find_blocks(relaxed, None)
        return True if found.blocks is not None else False if found.impossible else None

    for name in names:
        others = [other for other in names if other != name]
        if feasible(others) is False:
            return InfeasibleAssignmentError(
                (name,), f"{given.name_of(name)} must leave room {numbers}; got no assignment"
            )
    without = {name: feasible([name]) for name in (*names, "holders")}
    blamed = tuple(name for name, found in without.items() if found)
    if blamed:
        how = f"without {' or '.join(map(given.name_of, blamed))} there would be one"
    else:
        blamed = (*names, "holders")
        known = all(found is False for found in without.values())
        how = "only without all of them" if known else "which of them to drop is not known"
    return InfeasibleAssignmentError(
        blamed,
        f"{given.name_of(blamed[0])} must leave room {numbers} together with the other constraints; "
        f"got no assignment ({how})",
    )


def _holders(instance: Instance) -> str:
    return str(instance.least) if instance.least == instance.most else f"{instance.least} to {instance.most}"
