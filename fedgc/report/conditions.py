"""Conditions of an experiment: what a sweep gives to all strategies alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedgc.report.tables import Entry


def condition_text(condition: Mapping[str, str]) -> str:
    """Return a condition as a title: the last part of each key, and its value.

    Examples
    --------
    >>> condition_text({"fleet.preset": "phones", "task.alpha": "0.3"})
    'preset phones, alpha 0.3'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in condition.items())


def by_condition(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each condition, by its title."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(condition_text(entry.condition), []).append(entry)
    return groups


def strategies_of(entries: Sequence[Entry]) -> list[str]:
    """Return the labels of the strategies, in the order in which they first appear."""
    return list(dict.fromkeys(entry.strategy for entry in entries))
