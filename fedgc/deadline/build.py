"""Deadline rules from data: a number of seconds, or a table that names a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedgc.deadline.automatic import AutomaticDeadline
from fedgc.deadline.base import DeadlineRule
from fedgc.deadline.fixed import FixedDeadline
from fedgc.deadline.quantile import QuantileDeadline
from fedgc.validation import one_of

#: Every rule by the name that configurations use.
DEADLINES: dict[str, Callable[..., DeadlineRule]] = {
    rule.name: rule for rule in (FixedDeadline, QuantileDeadline, AutomaticDeadline)
}


def build_deadline(value: float | Mapping[str, object]) -> DeadlineRule:
    """Return the rule that `value` describes.

    Parameters
    ----------
    value : float or mapping
        Seconds, the same in every round; or a table with ``rule`` ("fixed", "quantile" or "auto") and the parameters of
        :class:`FixedDeadline`, :class:`QuantileDeadline` or :class:`AutomaticDeadline`.

    Raises
    ------
    ValueError
        If the rule or a parameter is not known, missing or out of range.

    Examples
    --------
    >>> build_deadline({"rule": "quantile", "share": 0.8, "initial": 30.0}).share
    0.8
    """
    if not isinstance(value, Mapping):
        return FixedDeadline(value)
    options = dict(value)
    rule = DEADLINES[one_of("deadline.rule", str(options.pop("rule", None)), list(DEADLINES))]
    try:
        return rule(**options)
    except TypeError as error:
        reason = str(error).partition("__init__() ")[2] or str(error)
        raise ValueError(f"deadline must have the parameters of its rule; {reason}") from None
