"""What an inner strategy has come to know, as plain data: momentum, second moments, its copy of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedgc.checkpoint import Tree, pack_tree
from fedgc.errors import CheckpointError
from fedgc.simulation.records import records_from_tree, records_to_tree

#: Kinds of containers, and how each is made of its parts.
_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "dict": dict}


def inner_to_tree(strategy: Strategy) -> dict[str, Tree]:
    """Return what can be saved of a strategy's attributes, by their name, those of strategies within it by their path.

    Notes
    -----
    Flower's strategies keep what they learn in plain attributes: ``momentum_vector``, ``m_t``, ``v_t``,
    ``current_arrays``. Numbers, text, arrays and records are saved, and containers of these; what else there is
    (functions, say) is part of how a strategy was made.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvgM
    >>> strategy = FedAvgM()
    >>> before = inner_to_tree(strategy)
    >>> strategy.momentum_vector = {"w": np.ones(2)}
    >>> changes = changed(inner_to_tree(strategy), before)
    >>> list(changes)
    ['momentum_vector']
    >>> other = FedAvgM()
    >>> restore_inner(other, changes)
    >>> other.momentum_vector
    {'w': array([1., 1.])}
    """
    saved: dict[str, Tree] = {}
    for path, value in _attributes(strategy):
        try:
            saved[path] = _to_tree(value)
        except TypeError:
            continue
    return saved


def changed(now: Mapping[str, Tree], before: Mapping[str, Tree]) -> dict[str, Tree]:
    """Return what differs: options are not saved, so that a resumed run may have others."""
    return {path: tree for path, tree in now.items() if path not in before or not _same(tree, before[path])}


def restore_inner(strategy: Strategy, tree: Mapping[str, Tree]) -> None:
    """Set the attributes that :func:`inner_to_tree` saved.

    Raises
    ------
    CheckpointError
        If the strategy has no such attribute: another kind of strategy wrote it.
    """
    for path, value in tree.items():
        owner: Any = strategy
        *steps, name = path.split(".")
        for step in steps:
            owner = getattr(owner, step, None)
        if not isinstance(owner, Strategy) or not hasattr(owner, name):
            raise CheckpointError(
                f"the inner strategy must be of the kind that wrote the checkpoint, with {path!r}; got {strategy!r:.80}"
            )
        setattr(owner, name, _from_tree(value))


def _attributes(strategy: Strategy) -> Iterator[tuple[str, object]]:
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            yield from ((f"{name}.{path}", inner) for path, inner in _attributes(value))
        else:
            yield name, value


def _to_tree(value: object) -> Tree:
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return {"kind": "plain", "of": value}
    if isinstance(value, np.generic):
        return {"kind": "scalar", "of": np.asarray(value)}
    if isinstance(value, ArrayRecord | MetricRecord | ConfigRecord):
        return {"kind": "record", "of": records_to_tree(RecordDict({"": value}))}
    if isinstance(value, Mapping):
        return {"kind": "dict", "of": [{"kind": "tuple", "of": [_to_tree(k), _to_tree(v)]} for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"kind": "list" if isinstance(value, list) else "tuple", "of": [_to_tree(item) for item in value]}
    raise TypeError(f"cannot save {type(value).__name__}")


def _from_tree(tree: Tree) -> Any:  # noqa: ANN401  (whatever the attribute was)
    kind, of = tree["kind"], tree["of"]
    if kind == "plain":
        return of
    if kind == "scalar":
        return of[()]
    if kind == "record":
        (record,) = records_from_tree(of).values()
        return record
    return _CONTAINERS[kind]([_from_tree(item) for item in of])


def _same(one: Tree, other: Tree) -> bool:
    left, right = pack_tree(one), pack_tree(other)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
