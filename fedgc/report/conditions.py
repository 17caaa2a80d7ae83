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
    >>> condition_text({"fleet.seconds": "1.3636363636363635", "fleet.clients": "100"})
    'seconds 1.364, clients 100'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in condition.items())


def by_condition(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each condition, by its title."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(condition_text(entry.condition), []).append(entry)
    return groups


def strategies_of(entries: Sequence[Entry]) -> list[str]:
    """Return the labels of the strategies, in the order in which they first appear."""
    return list(dict.fromkeys(entry.strategy for entry in entries))


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}" if len(value) > 6 else value
    except ValueError:
        return value
