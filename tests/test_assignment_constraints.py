"""Assign: instances that cannot be met, and what is said of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError, assign, solve_exactly

ANYWHERE = [0, 1, 2, 3]


@pytest.mark.parametrize("schedule", ["full", "work-list"])
@pytest.mark.parametrize(
    ("holders", "given", "blamed", "message"),
    [
        (2, {"storage": [3, 3, 3, 2]}, ("storage",), "storage must hold at least 12 shards in all; got 11"),
        (1, {"storage": [1, 1, 1, 2]}, ("storage",), "storage must hold at least 6 shards in all; got 5"),
        (2, {"storage": [6, 6, 0, 0], "domain": [1, 1, 1, 1]}, ("domain",), "domain must name at least 2 .* got 1"),
        (
            2,
            {"storage": [6, 2, 2, 2]},
            ("storage",),
            "storage must let blocks of 2 clients hold at least 6 shards; got 4",
        ),
        (3, {"domain": [0, 0, 1, 1]}, ("domain",), "domain must name at least 3 different domains, .* got 2"),
        (4, {"domain": list("abca")}, ("domain",), "domain must name at least 4 different domains, .* got 3"),
        (5, {}, ("holders",), "holders must be at most n_clients = 4; got 5"),
        ((5, 6), {"storage": [1] * 4}, ("holders",), "holders must be at most n_clients = 4; got 5"),
        (2, {"residency": {3: [1]}}, ("residency",), "residency must allow at least 2 clients .*; got 1 for shard 3"),
        (
            1,
            {"residency": [([5], [])]},
            ("residency",),
            "residency must allow at least 1 clients .*; got 0 for shard 5",
        ),
        (
            1,
            {"residency": [([2, 4], [0, 1]), ([4], [2, 3])]},
            ("residency",),
            "residency must allow at least 1 clients for every shard; got 0 for shard 4",
        ),
        (2, {"residency": [([0], [0, 1]), ([1], [1, 2])]}, ("residency",), "residency must leave room"),
        (
            1,
            {"storage": [1, 6, 6, 6], "residency": [([0, 1], [0])]},
            ("storage", "residency"),
            r"storage must leave room for 6 shards, 4 clients and 1 holders together with the other constraints; "
            r"got no assignment \(without storage or residency there would be one\)",
        ),
        (
            2,
            {"storage": [6, 6, 1, 1], "domain": [0, 0, 1, 1]},
            ("storage", "domain", "holders"),
            "storage must leave room .* together with the other constraints",
        ),
        (
            2,
            {"domain": [0, 0, 1, 1], "residency": [([0], [0, 1])]},
            ("domain", "residency", "holders"),
            "domain must leave room .* together with the other constraints",
        ),
        ((1, 2), {"computation": [0, 0, 1, 1]}, ("computation",), "computation must .* at least 6 shards .*; got 2"),
        (
            1,
            {"computation": [0, 6, 6, 6], "residency": {2: [0]}},
            ("computation", "residency"),
            "computation must leave room .* together with the other constraints",
        ),
    ],
)
def test_the_right_constraint_is_named(
    schedule: str, holders: Any, given: dict[str, Any], blamed: tuple[str, ...], message: str
) -> None:
    constraints = AssignmentConstraints(**given)
    for method in (assign, solve_exactly):
        with pytest.raises(InfeasibleAssignmentError, match=message) as caught:
            method([[1, 0.5]] * 4, 6, holders=holders, schedule=schedule, constraints=constraints)
        assert caught.value.constraints == blamed


def test_computation_limits_copies_only_in_the_full_schedule() -> None:
    constraints = AssignmentConstraints(computation=[3, 3, 3, 2])
    with pytest.raises(
        InfeasibleAssignmentError, match="computation must hold at least 12 shards in all; got 11"
    ) as caught:
        assign([[1, 0.5]] * 4, 6, holders=2, schedule="full", constraints=constraints)
    assert caught.value.constraints == ("computation",)
    found = assign([[1, 0.5]] * 4, 6, holders=2, schedule="work-list", constraints=constraints)
    assert [order.size for order in found.lists] == [3, 3, 3, 2]
    assert [found.shards_of(client).size for client in range(4)] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("given", "blamed"),
    [
        ({"storage": [1] * 99 + [150]}, "storage"),
        ({"domain": [0] * 100}, "domain"),
        ({"residency": {0: [5]}}, "residency"),
        ({"computation": [1] * 100}, "computation"),
        ({"storage": [3] * 100, "residency": [(range(9), [3, 4, 7])]}, "storage"),
        ({"storage": [50] * 10 + [1] * 90, "domain": [0] * 10 + [1] * 90}, "storage"),
    ],
)
def test_large_instances_are_refused_as_well(given: dict[str, Any], blamed: str) -> None:
    with pytest.raises(InfeasibleAssignmentError, match=f"^{blamed} must") as caught:
        assign([[1, 0.5]] * 100, 120, holders=2, schedule="full", constraints=AssignmentConstraints(**given))
    assert caught.value.constraints[0] == blamed


@pytest.mark.parametrize("n_clients", [6, 60])
def test_what_is_just_feasible_is_found(n_clients: int) -> None:
    """Storage that is used to the last shard, for pairs of different domains and equal room."""
    rng = np.random.default_rng(0)
    room = np.repeat(rng.integers(1, 5, n_clients // 2), 2)
    constraints = AssignmentConstraints(storage=room, domain=np.tile([0, 1], n_clients // 2))
    for schedule in ("full", "work-list"):
        found = assign(
            [[1, 0.5, 0.4, 0.3, 0.2]] * n_clients,
            int(room.sum()) // 2,
            holders=2,
            schedule=schedule,
            constraints=constraints,
        )
        held = [found.shards_of(client).size for client in range(n_clients)]
        assert held == room.tolist()


@pytest.mark.parametrize(
    ("given", "holders", "message"),
    [
        ({}, 3, "site must name at least 3 different sites, one for each holder; got 2"),
        (
            {"residency": [([0], [0, 1])]},
            2,
            "site must leave room for 6 shards, 4 clients and 2 holders together with the other constraints; "
            "got no assignment (without site or residency or holders there would be one)",
        ),
        (
            {"storage": [6, 6, 1, 1]},
            2,
            "storage must leave room for 6 shards, 4 clients and 2 holders together with the other constraints; "
            "got no assignment (without storage or site or holders there would be one)",
        ),
    ],
)
def test_failure_domains_go_by_the_name_that_they_were_given(given: dict[str, Any], holders: int, message: str) -> None:
    constraints = AssignmentConstraints(domain=[0, 0, 1, 1], domain_name="site", **given)
    for method in (assign, solve_exactly):
        with pytest.raises(InfeasibleAssignmentError, match=f"^{re.escape(message)}$") as caught:
            method([[1, 0.5]] * 4, 6, holders=holders, schedule="work-list", constraints=constraints)
        assert "domain" in caught.value.constraints  # the word of the Python API
    of_three = constraints.for_clients([0, 1, 2]).without("storage")
    assert of_three.domain_name == "site"
    with pytest.raises(ValueError, match=r"^site must have one entry per client, 4; got 3$"):
        assign(
            [[1, 0.5]] * 4,
            6,
            holders=1,
            schedule="full",
            constraints=AssignmentConstraints(domain=[0, 0, 1], domain_name="site"),
        )
    with pytest.raises(
        ValueError, match=r"^storage, computation and site must have one entry per client; got .*'site'"
    ):
        AssignmentConstraints(storage=[1, 2], domain=[0], domain_name="site")


def test_malformed_constraints_are_refused() -> None:
    with pytest.raises(ValueError, match=r"storage must be integers of at least 0.*got \[-1, 2\]"):
        AssignmentConstraints(storage=[-1, 2])
    with pytest.raises(ValueError, match=r"storage, computation and domain must have one entry per client"):
        AssignmentConstraints(storage=[1, 2], domain=["a"])
    with pytest.raises(ValueError, match=r"residency must map shards to clients or list pairs \(shards, clients\)"):
        assign([[1, 0.5]], 1, holders=1, schedule="full", constraints=AssignmentConstraints(residency=[3]))  # type: ignore[list-item]
