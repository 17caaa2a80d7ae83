"""What an inner strategy has come to know: momentum, second moments, its copy of the model, its generators."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from fedgc.strategies.resuming.plain_values import value_from_tree, value_to_tree
from fedgc.strategies.resuming.random_state import random_from_tree
from flwr.serverapp.strategy import Strategy

from fedgc.checkpoint import Tree, pack_tree

logger = logging.getLogger("flwr.fedgc")

#: How a strategy was made, rather than what it has come to know: nothing is lost where these are not saved.
_MADE_OF = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, functools.partial, logging.Logger)


def inner_to_tree(strategy: Strategy) -> tuple[dict[str, Tree], dict[str, str]]:
    """Return a strategy's attributes as plain data, and the types of those that cannot be saved.

    Both are by name, those of strategies within it by their path.

    Notes
    -----
    Flower's strategies keep what they learn in plain attributes: ``momentum_vector``, ``m_t``, ``v_t``,
    ``current_arrays``. What can be saved is in :func:`fedgc.strategies.resuming.plain_values.value_to_tree`. Functions
    and classes are how a strategy was made, and in neither.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvgM
    >>> strategy = FedAvgM()
    >>> before, _ = inner_to_tree(strategy)
    >>> strategy.momentum_vector, strategy.file = {"w": np.ones(2)}, open
    >>> changes = changed(inner_to_tree(strategy)[0], before)
    >>> list(changes)
    ['momentum_vector']
    >>> other = FedAvgM()
    >>> restore_inner(inner_values(other, changes))
    >>> other.momentum_vector
    {'w': array([1., 1.])}
    """
    saved: dict[str, Tree] = {}
    unsaved: dict[str, str] = {}
    for path, value in _attributes(strategy):
        if isinstance(value, _MADE_OF):
            continue
        try:
            saved[path] = value_to_tree(value)
        except (TypeError, RecursionError):
            unsaved[path] = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return saved, unsaved


def changed(now: Mapping[str, Tree], before: Mapping[str, Tree]) -> dict[str, Tree]:
    """Return what differs: options are not saved, so that a resumed run may have others.

    Generators are saved in any case: one that has not been drawn from may have been made without a seed.
    """
    return {
        path: tree
        for path, tree in now.items()
        if path not in before or tree["kind"] == "random" or not _same(tree, before[path])
    }


def kinds(strategy: Strategy) -> str:
    """Return the classes of a strategy and of those within it, as an error names them.

    Examples
    --------
    >>> from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    >>> kinds(DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 1.0, num_sampled_clients=2))
    'DifferentialPrivacyServerSideFixedClipping around FedAvg'
    """
    return " around ".join(type(one).__qualname__ for _, one in _strategies(strategy))


def inner_values(strategy: Strategy, tree: Mapping[str, Tree]) -> list[tuple[Strategy, str, Tree, Any]]:
    """Return what :func:`restore_inner` is to set of what was saved; nothing is set yet.

    Raises
    ------
    CheckpointError
        If a value cannot be had, see :func:`fedgc.strategies.resuming.plain_values.value_from_tree`.
    """
    values = []
    for path, saved in tree.items():
        owner: Any = strategy
        *steps, name = path.split(".")
        for step in steps:
            owner = getattr(owner, step, None)
        if not isinstance(owner, Strategy):  # one that was made on first use
            logger.warning("%s of the inner strategy is not restored: there is no strategy yet that it is of", path)
            continue
        values.append((owner, name, saved, None if saved["kind"] == "random" else value_from_tree(saved)))
    return values


def restore_inner(values: list[tuple[Strategy, str, Tree, Any]]) -> None:
    """Set the attributes, also those that the constructor does not: many are set when they are first needed."""
    for owner, name, saved, value in values:
        if saved["kind"] == "random":
            value = random_from_tree(saved, getattr(owner, name, None))  # noqa: PLW2901
        setattr(owner, name, value)


def _strategies(
    strategy: Strategy, at: str = "", around: frozenset[int] = frozenset()
) -> Iterator[tuple[str, Strategy]]:
    """Yield a strategy and those within it, with the path to their attributes; one that refers back is passed over."""
    yield at, strategy
    around |= {id(strategy)}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy) and id(value) not in around:
            yield from _strategies(value, f"{at}{name}.", around)


def _attributes(strategy: Strategy) -> Iterator[tuple[str, object]]:
    for at, owner in _strategies(strategy):
        yield from ((f"{at}{name}", value) for name, value in vars(owner).items() if not isinstance(value, Strategy))


def _same(one: Tree, other: Tree) -> bool:
    left, right = pack_tree(one), pack_tree(other)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
