"""Deadline rules against closed forms, and the loop that keeps to a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedgc.deadline import (
    AutomaticDeadline,
    FixedDeadline,
    Outlook,
    QuantileDeadline,
    RoundForecast,
    collect_replies,
    cover_time,
    time_to_target,
)
from fedgc.fleets import Fleet, LogNormalFleet


def outlook(
    fleet: Fleet,
    forecast: Callable[[float], RoundForecast] | None = None,
    *,
    last: float | None = None,
    work: int = 1,
    n_shards: int = 4,
) -> Outlook:
    def nothing(deadline: float) -> RoundForecast:
        raise AssertionError("this rule needs no forecast")

    return Outlook(fleet, np.full(fleet.n_clients, work), n_shards, last, forecast or nothing)


FLEET = LogNormalFleet(4, seed=1, median=2.0, sigma=0.5)


def test_a_fixed_deadline_stays() -> None:
    rule = FixedDeadline(7.5)
    assert rule.initial == 7.5
    assert [rule.choose(outlook(FLEET, last=last)) for last in (None, 3.0)] == [7.5, 7.5]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_seconds_must_be_positive_and_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="deadline must be"):
        FixedDeadline(bad)
    with pytest.raises(ValueError, match="initial must be"):
        QuantileDeadline(0.5, initial=bad)
    with pytest.raises(ValueError, match="initial must be"):
        AutomaticDeadline(initial=bad)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, np.nan, "most"])
def test_a_share_must_lie_between_none_and_all(share: Any) -> None:
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\)"):
        QuantileDeadline(share, initial=1.0)


def test_other_parameters_of_the_automatic_rule_are_checked() -> None:
    with pytest.raises(ValueError, match="shortest must be at most longest = 1"):
        AutomaticDeadline(initial=1.0, shortest=2.0, longest=1.0)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="noise_sensitivity must be"):
            AutomaticDeadline(initial=1.0, noise_sensitivity=bad)


def test_the_first_deadline_keeps_the_limits_too() -> None:
    with pytest.raises(ValueError, match=r"^initial must be at most longest = 3; got 30$"):
        QuantileDeadline(0.8, initial=30.0, longest=3.0)
    with pytest.raises(ValueError, match=r"^initial must be at most longest = 3; got 30$"):
        AutomaticDeadline(initial=30.0, longest=3.0)
    with pytest.raises(ValueError, match=r"^initial must be at least shortest = 1; got 0\.1$"):
        AutomaticDeadline(initial=0.1, shortest=1.0)
    assert AutomaticDeadline(initial=3.0, shortest=3.0, longest=3.0).initial == 3.0
    assert QuantileDeadline(0.8, initial=3.0, longest=3.0).initial == 3.0


@pytest.mark.parametrize("bad", ["false", "", 0, None])
def test_cover_is_true_or_false(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^cover must be True or False; got "):
        AutomaticDeadline(initial=1.0, cover=bad)
    assert AutomaticDeadline(initial=1.0, cover=False).cover is False


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_quantile_of_equal_clients_is_their_own(share: float, dropout: float) -> None:
    """Those who are away for good do not count: of the others, `share` make the deadline."""
    fleet = LogNormalFleet(5, seed=1, median=2.0, sigma=0.5, dropout=dropout)
    expected = 3 * 2.0 * np.exp(0.5 * stats.norm.ppf(share))
    found = QuantileDeadline(share, initial=1.0).choose(outlook(fleet, work=3))
    assert expected * (1 - 1e-9) <= found <= expected * 1.0011


def test_a_quantile_deadline_is_no_longer_than_the_longest() -> None:
    found = QuantileDeadline(0.9, initial=1.0, longest=4.0).choose(outlook(FLEET, work=3))
    done = 1.0 - FLEET.straggle_prob(found, 3)
    wanted = 0.9 * (1.0 - FLEET.straggle_prob(4.0, 3)).sum()
    assert found <= 4.0
    assert wanted <= done.sum() <= wanted * 1.01


def test_time_to_target_is_time_per_noise_free_round() -> None:
    forecast = RoundForecast(round_time=10.0, arrivals=5.0, residual_error=0.3)
    assert [time_to_target(forecast, s) for s in (0.0, 0.5, 1.0)] == [10.0, 11.5, 13.0]


@pytest.mark.parametrize("sensitivity", [0.0, 1.0])
def test_what_cannot_be_decoded_never_reaches_the_target(sensitivity: float) -> None:
    assert time_to_target(RoundForecast(1.0, 0.0, np.inf), sensitivity) == np.inf


@pytest.mark.parametrize(("n_shards", "expected"), [(1, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (6, 4.0), (11, 6.0)])
def test_cover_time_of_steady_clients(n_shards: int, expected: float) -> None:
    """Clients of 1, 2 and 3 seconds per shard have done floor(T) + floor(T / 2) + floor(T / 3) by T."""
    fleet = LogNormalFleet(3, seed=1, sigma=0.0, median=[1.0, 2.0, 3.0])
    found = cover_time(fleet, n_shards)
    assert expected * (1 - 1e-9) <= found <= expected * 1.0101


def test_cover_time_counts_expected_shards() -> None:
    fleet = LogNormalFleet(5, seed=1, sigma=0.6, dropout=0.4, median=[1.0, 1.0, 2.0, 4.0, 9.0])
    found = cover_time(fleet, 10)
    assert fleet.reach(found, 10)[:, 1:].sum() >= 10
    assert fleet.reach(found / 1.011, 10)[:, 1:].sum() < 10


def test_what_nobody_can_do_has_no_cover_time() -> None:
    fleet = LogNormalFleet(2, seed=1, sigma=0.0, dropout=0.99)
    assert cover_time(fleet, 4, shortest=0.25, longest=50.0) == 0.25


@dataclass
class Valley:
    """Rounds of T seconds with residual error A / T: the time to target T / (1 - A / T) is least at T = 2 A."""

    optimum: float
    asked: int = 0

    def __call__(self, deadline: float) -> RoundForecast:
        self.asked += 1
        return RoundForecast(deadline, 1.0, self.optimum / 2.0 / deadline)


@pytest.mark.parametrize("optimum", [3.6, 6.1, 9.0, 14.3, 28.0])
def test_the_automatic_deadline_is_nearly_the_best(optimum: float) -> None:
    valley = Valley(optimum)
    found = AutomaticDeadline(initial=1.0, cover=False).choose(outlook(FLEET, valley, last=10.0))
    assert found / (1.0 - optimum / 2.0 / found) <= 1.02 * 2.0 * optimum
    assert valley.asked <= 15


def test_far_from_the_best_it_goes_three_times_as_far_at_most() -> None:
    rule = AutomaticDeadline(initial=1.0, cover=False)
    up = rule.choose(outlook(FLEET, Valley(1000.0)))
    down = rule.choose(outlook(FLEET, Valley(0.001)))
    assert 2.5 < up < 4.0
    assert 1 / 4.0 < down < 1 / 2.5


@pytest.mark.parametrize("last", [20.0, 50.0, 3000.0])
def test_it_goes_at_once_to_where_rounds_end_early(last: float) -> None:
    """Beyond 5 s rounds are over and exact, so that all deadlines there are alike; the best is 1.2 s."""
    asked: list[float] = []

    def forecast(deadline: float) -> RoundForecast:
        asked.append(deadline)
        error = 0.6 / deadline if deadline < 5.0 else 0.0
        return RoundForecast(min(deadline, 5.0), 1.0, error)

    found = AutomaticDeadline(initial=1.0, cover=False).choose(outlook(FLEET, forecast, last=last))
    assert found / (1.0 - 0.6 / found) <= 1.03 * 2.4
    assert len(asked) <= 26


@pytest.mark.parametrize("ends", [1.0 - 1e-15, 1.0])
def test_rounds_that_last_until_their_deadline_do_not_end_early(ends: float) -> None:
    """Whatever rounding says: it would go a second time three times as far."""
    found = AutomaticDeadline(initial=1.0).choose(
        outlook(FLEET, lambda seconds: RoundForecast(ends * seconds, 1.0, 1e-5 / seconds), last=1.0)
    )
    assert 1 / 4.0 < found < 1 / 2.5


def test_a_deadline_is_kept_unless_another_saves_two_per_cent() -> None:
    rule = AutomaticDeadline(initial=1.0, cover=False)
    # The time is 1.3 % above its least at 1.13 times the best deadline, and 6.6 % above it at 1.33 times.
    assert rule.choose(outlook(FLEET, Valley(10.0), last=11.3)) == 11.3
    assert rule.choose(outlook(FLEET, Valley(10.0), last=13.3)) != 13.3


def test_the_automatic_deadline_keeps_its_limits() -> None:
    rule = AutomaticDeadline(initial=5.0, shortest=4.0, longest=6.0, cover=False)
    assert rule.choose(outlook(FLEET, Valley(100.0))) == 6.0
    assert rule.choose(outlook(FLEET, Valley(0.1))) == 4.0


def test_no_deadline_by_which_the_fleet_cannot_do_every_shard() -> None:
    within = cover_time(FLEET, 8)
    short = Valley(0.01)
    assert AutomaticDeadline(initial=within, cover=True).choose(outlook(FLEET, short, n_shards=8)) == within
    assert AutomaticDeadline(initial=within, cover=False).choose(outlook(FLEET, short, n_shards=8)) < within / 2
    # The longest goes first.
    rule = AutomaticDeadline(initial=within / 2, longest=within / 2, cover=True)
    assert rule.choose(outlook(FLEET, short, n_shards=8)) <= within / 2


@pytest.mark.parametrize("sensitivity", [0.0, 1.0])
def test_where_nothing_can_be_decoded_the_deadline_stays(sensitivity: float) -> None:
    rule = AutomaticDeadline(initial=5.0, cover=False, noise_sensitivity=sensitivity)
    assert rule.choose(outlook(FLEET, lambda deadline: RoundForecast(deadline, 0.0, np.inf), last=8.0)) == 8.0
    # What can be decoded is found from there, with noise that costs nothing too.
    found = rule.choose(outlook(FLEET, lambda t: RoundForecast(t, 1.0, 0.1 if t >= 11.0 else np.inf), last=8.0))
    assert 11.0 <= found <= 11.0 * 1.25


def test_where_all_is_more_noise_than_signal_it_goes_to_where_there_is_least() -> None:
    rule = AutomaticDeadline(initial=1.0, cover=False)
    assert rule.choose(outlook(FLEET, lambda t: RoundForecast(t, 1.0, 50.0 / t))) > 2.5


def test_deadlines_keep_away_from_one_by_which_nothing_came() -> None:
    seen = outlook(FLEET, Valley(0.1), last=1.0)
    for fruitless in (0.0, 0.5, 0.9):
        found = AutomaticDeadline(initial=1.0, cover=False).choose(replace(seen, fruitless=fruitless))
        assert found >= 1.5 * fruitless
    assert AutomaticDeadline(initial=1.0, cover=False, longest=2.0).choose(replace(seen, fruitless=5.0)) == 2.0


class Post:
    """A mailbox and its clock: reply i comes after `seconds[i]`, and time jumps to the next reply or to the limit."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.instant, self.due, self.looks = 100.0, {f"m{i}": 100.0 + s for i, s in enumerate(seconds)}, 0

    def now(self) -> float:
        return self.instant

    def wait(self, until: float) -> None:
        self.instant = min([until, *(t for t in self.due.values() if t > self.instant)])

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        assert isinstance(messages, list)
        return list(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        self.looks += 1
        came = [m for m in sorted(message_ids) if self.due.get(m, np.inf) <= self.instant]
        return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=m)) for m in came]


def collected(seconds: Sequence[float], timeout: float, **options: Any) -> tuple[Any, Post]:
    post = Post(seconds)
    messages = (f"m{i}" for i in range(len(seconds)))
    return collect_replies(post, messages, timeout=timeout, clock=post, **options), post


def test_replies_count_up_to_the_deadline() -> None:
    found, _ = collected([3.0, 1.0, 5.0, 7.0], 5.0)
    assert [reply.metadata.reply_to_message_id for reply in found.replies] == ["m1", "m0", "m2"]
    assert (found.seconds, found.waited, found.pending) == ([1.0, 3.0, 5.0], 5.0, {"m3"})


def test_a_round_ends_with_the_last_reply() -> None:
    found, _ = collected([3.0, 1.0], np.inf)
    assert (found.seconds, found.waited, found.pending) == ([1.0, 3.0], 3.0, set())


def test_replies_to_earlier_messages_are_kept_apart_and_end_nothing() -> None:
    post = Post([3.0, 1.0, 9.0, 2.0])
    asked: list[int] = []

    def enough(replies: Sequence[Any]) -> bool:
        asked.append(len(replies))
        return False

    found = collect_replies(post, ["m0", "m2"], timeout=5.0, clock=post, enough=enough, earlier={"m1", "m3", "gone"})
    assert [reply.metadata.reply_to_message_id for reply in found.replies] == ["m0"]
    assert [(reply.metadata.reply_to_message_id, instant) for reply, instant in found.late] == [
        ("m1", 101.0),
        ("m3", 102.0),
    ]
    assert (found.started, found.waited, found.pending, asked) == (100.0, 5.0, {"m2"}, [1])


def test_a_round_ends_when_there_is_enough() -> None:
    asked: list[int] = []

    def enough(replies: Sequence[Any]) -> bool:
        asked.append(len(replies))
        return len(replies) >= 2

    found, post = collected([4.0, 2.0, 2.0, 1.0, 9.0], 10.0, enough=enough)
    # Two come at once, and it is asked after each look that found something, never otherwise.
    assert asked == [1, 3]
    assert (found.seconds, found.waited, found.pending) == ([1.0, 2.0, 2.0], 2.0, {"m0", "m4"})
    assert post.looks == 3


def test_nothing_sent_is_nothing_waited() -> None:
    assert collected([], 5.0)[0].waited == 0.0
    post = Post([1.0])
    # A grid gives an empty id to a message that it could not send.
    found = collect_replies(post, ["", "m0"], timeout=5.0, clock=post)
    assert (found.seconds, found.waited) == ([1.0], 1.0)
    none = collect_replies(Post([]), [""], timeout=5.0, clock=post)
    assert (none.replies, none.waited, none.pending) == ([], 0.0, set())


def test_silence_lasts_until_the_deadline() -> None:
    found, _ = collected([np.inf, 8.0], 5.0, enough=lambda replies: True)
    assert (found.replies, found.waited, found.pending) == ([], 5.0, {"m0", "m1"})


class SlowPost(Post):
    """A mailbox that fetches replies as they are iterated over, each of which takes a while."""

    each = 0.2

    def wait(self, until: float) -> None:
        if until > self.instant:
            super().wait(until)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Any]:  # type: ignore[override]
        for reply in super().pull_messages(message_ids):
            self.instant += self.each
            yield reply


@pytest.mark.parametrize("last", [4.0, 5.0])
def test_what_is_fetched_one_by_one_does_not_hold_a_round_up(last: float) -> None:
    """Of twenty replies at the deadline, or a second before, those that a moment does not suffice for are late."""
    post = SlowPost([last] * 20)
    found = collect_replies(post, [f"m{i}" for i in range(20)], timeout=5.0, clock=post)
    assert 5.0 <= found.waited <= 5.0 + 0.5
    assert len(found.replies) == round((found.waited - last) / post.each)
    # They are not lost, as they would be of a list.
    later = collect_replies(post, [], timeout=9.0, clock=post, earlier=found.pending, held={"m99": "never"})
    assert len(later.late) == len(found.pending) == 20 - len(found.replies)
    post = Post([last] * 20)
    assert len(collect_replies(post, [f"m{i}" for i in range(20)], timeout=5.0, clock=post).replies) == 20


def test_a_node_that_is_at_work_gets_its_message_when_it_has_answered() -> None:
    post = Post([3.0, 9.0, 2.0, 4.0, 30.0])
    told: list[tuple[str, float]] = []

    def on_send(message: str, seconds: float) -> bool:
        told.append((message, seconds))
        return message != "m9"

    # m0 is sent at once. m2 and m4 are answers that others wait for; m1 would be sent after m2's, m9 after m3's.
    found = collect_replies(
        post,
        ["m0"],
        timeout=10.0,
        clock=post,
        earlier={"m2"},
        held={"m2": "m1", "m3": "m9", "m4": "m5"},
        on_send=on_send,
    )
    assert told == [("m1", 2.0), ("m9", 4.0)]
    assert [reply.metadata.reply_to_message_id for reply in found.replies] == ["m0", "m1"]
    assert found.seconds == [3.0, 7.0]  # each from its own sending
    assert [reply.metadata.reply_to_message_id for reply, _ in found.late] == ["m2", "m3"]
    assert (found.sent, found.pending, found.waited) == ({"m0": 100.0, "m1": 102.0}, set(), 10.0)
