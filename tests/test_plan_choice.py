"""Which of the choices a plan recommends, and what is said of it."""

from __future__ import annotations

import pytest

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError
from fedgc.fleets import build_fleet
from fedgc.planning import Choice, constraints_of, plan_fleet
from fedgc.planning.choice import BLOCK_CODES, recommend


def choice(time: float, redundancy: int = 1, moved: int = 0, schedule: str = "work-list") -> Choice:
    return Choice(redundancy, schedule, "work-lists", "optimal-unbiased", 4.0, 4.0, 5.0, 0.1, time, moved)


def test_the_soonest_choice_is_recommended_where_nothing_is_close() -> None:
    plan = recommend([choice(1.0), choice(0.8, 2, 9), choice(0.9, 3, 9), choice(1.5)])
    assert plan.recommended == choice(0.8, 2, 9)
    assert [c.relative_time_to_target for c in plan.choices] == [0.8, 0.9, 1.0, 1.5]


def test_of_draws_the_one_of_least_redundancy_then_of_least_data_moved() -> None:
    draws = [choice(0.800, 3, 5), choice(0.807, 2, 9), choice(0.805, 2, 7), choice(0.801, 2, 8), choice(0.809, 2, 6)]
    assert recommend([choice(1.0), *draws]).recommended == draws[2]  # 0.809 is more than 1 % off
    assert recommend([choice(1.0), *draws[:2]]).recommended == draws[1]


def test_then_a_work_list_then_the_soonest() -> None:
    ties = [choice(1.0, schedule="full"), choice(1.008), choice(1.004), choice(1.0, moved=1)]
    assert recommend(ties).recommended == ties[2]


@pytest.mark.parametrize(("time", "redundancy"), [(0.985, 1), (0.979, 2)])
def test_redundancy_has_to_save_two_per_cent(time: float, redundancy: int) -> None:
    assert recommend([choice(1.0), choice(time, 2)]).recommended.redundancy == redundancy


def test_no_choice_no_plan() -> None:
    with pytest.raises(ValueError, match="choices must hold at least one"):
        recommend([])


def test_verdicts() -> None:
    assert recommend([choice(1.0), choice(0.8, 2)]).verdict == (
        "redundancy pays: 2 holders per shard reach the target 1.25 times as soon as one"
    )
    assert recommend([choice(1.0), choice(1.5, 2), choice(2.0, 3)]).verdict == (
        "redundancy does not pay: the best of it, 2 holders per shard, takes 50.0% longer"
    )
    assert recommend([choice(1.0), choice(0.985, 3)]).verdict == (
        "redundancy does not pay: the best of it, 3 holders per shard, saves 1.5%"
    )
    assert recommend([choice(1.0)]).verdict == "redundancy was not tried, or cannot be decoded"
    assert recommend([choice(1.0, 3), choice(1.2, 2)]).verdict == (
        "one holder per shard was not tried, or cannot be decoded: of the others, 3 are recommended"
    )


def test_numbers_of_holders_that_the_limits_do_not_allow_are_left_out() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 4, "dropout": 0.3}, seed=1)
    two_sites = AssignmentConstraints(domain=[0, 0, 1, 1])
    plan = plan_fleet(fleet, n_shards=8, redundancies=(1, 2, 3), deadlines=[4.0], constraints=two_sites)
    assert {choice.redundancy for choice in plan.choices} == {1, 2}
    with pytest.raises(InfeasibleAssignmentError, match="domain"):
        plan_fleet(fleet, n_shards=8, redundancies=(3,), deadlines=[4.0], constraints=two_sites)


def test_what_limits_do_not_allow_and_who_is_a_backup_is_said() -> None:
    together = build_fleet({"model": "log-normal", "clients": 4, "sigma": 0.3, "site": 0}, seed=1)
    plan = plan_fleet(together, n_shards=8, redundancies=(1, 2), constraints=constraints_of(together))
    assert {holders for holders, _ in plan.infeasible} == {2}
    assert plan.verdict.startswith("redundancy is not possible: site must name at least 2 different sites")
    spread = build_fleet({"preset": "paper", "clients": 10}, seed=1)
    plan = plan_fleet(spread, n_shards=40, redundancies=(1, 2), deadlines=[2.3])
    for choice in plan.choices:
        assert choice.copies >= 0.99 * choice.redundancy or choice.code not in BLOCK_CODES
        assert bool(choice.remark) == (choice.copies > 1.02 * choice.redundancy)
    assert any("are backups: 10 holders" in choice.remark for choice in plan.choices)
