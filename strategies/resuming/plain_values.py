"""What a strategy may keep in an attribute, as plain data and back, without running code that a file names."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fedgc.strategies.resuming.class_values import object_from_tree, object_to_tree
from fedgc.strategies.resuming.random_state import random_from_tree, random_to_tree
from fedgc.strategies.resuming.tensor_values import tensor_from_tree, tensor_to_tree
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedgc.checkpoint import Tree
from fedgc.records.trees import records_from_tree, records_to_tree

_PLAIN = {type(None), bool, int, float, str, bytes}
#: Containers by their names, and how each is made of its items.
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, bytearray)
}
_MAPPINGS: dict[str, Callable[[list[Any]], Any]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "Counter": lambda items: Counter(dict(items)),
}
#: What makes the missing values of a defaultdict, of those that have a name.
_FACTORIES: dict[str, Callable[[], Any]] = {kind.__name__: kind for kind in (int, float, list, dict, set, bool, str)}


def value_to_tree(value: object) -> Tree:
    """Return a value as plain data.

    Parameters
    ----------
    value : object
        None, numbers, text, bytes, paths, numpy arrays and scalars, torch tensors, Flower's records and arrays, random
        generators of Python, numpy and torch; lists, tuples, named tuples, sets, deques, dicts of Python's kinds,
        dataclasses and members of enumerations, of any of these.

    Raises
    ------
    TypeError
        If it is or holds anything else.

    Notes
    -----
    Exact types are asked for: a subclass may keep more than its base does. A dataclass, named tuple or enumeration is
    written with the name of its class. Reading looks that up in what is loaded already and makes the object without
    calling anything of it, so that no code runs that a file names, as it would with pickle.

    Examples
    --------
    >>> tree = value_to_tree({"seen": deque([(1, b"ab")], maxlen=3)})
    >>> value_from_tree(tree)
    {'seen': deque([(1, b'ab')], maxlen=3)}
    """
    for write in _WRITERS:
        tree = write(value)
        if tree is not None:
            return tree
    raise TypeError(f"cannot save {type(value).__qualname__}")


def value_from_tree(tree: Tree) -> Any:  # noqa: ANN401  (whatever it was)
    """Return the value that :func:`value_to_tree` wrote.

    Raises
    ------
    CheckpointError
        If its class is not there any more, or torch is not loaded.
    """
    kind, of = tree["kind"], tree["of"]
    if kind in _READERS:
        return _READERS[kind](tree)
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([value_from_tree(item) for item in of])
    return _MAPPINGS[kind]([(value_from_tree(key), value_from_tree(item)) for key, item in of])


def _plain_to_tree(value: Any) -> Tree | None:  # noqa: ANN401
    if type(value) in _PLAIN:
        return {"kind": "plain", "of": value}
    return {"kind": "path", "of": str(value)} if isinstance(value, Path) else None


def _numbers_to_tree(value: Any) -> Tree | None:  # noqa: ANN401
    if type(value) not in {complex, np.ndarray} and not isinstance(value, np.generic):
        return None
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"cannot save an array of {array.dtype}")
    kind = {complex: "complex", np.ndarray: "array"}.get(type(value), "scalar")
    return {"kind": kind, "dtype": array.dtype.str, "shape": array.shape, "of": array.tobytes()}


def _numbers(tree: Tree) -> Any:  # noqa: ANN401
    array: Any = np.ndarray(tree["shape"], dtype=tree["dtype"], buffer=bytearray(tree["of"]))
    if tree["kind"] == "array":
        return array
    return array[()] if tree["kind"] == "scalar" else complex(array[()])


def _records_to_tree(value: Any) -> Tree | None:  # noqa: ANN401
    if isinstance(value, ArrayRecord | MetricRecord | ConfigRecord):
        return {"kind": "record", "of": records_to_tree(RecordDict({"": value}))}
    if isinstance(value, RecordDict):
        return {"kind": "records", "of": records_to_tree(value)}
    if isinstance(value, Array):
        return {"kind": "flower array", "of": (value.dtype, tuple(value.shape), value.stype, value.data)}
    return None


def _flower_array(tree: Tree) -> Array:
    dtype, shape, stype, data = tree["of"]
    return Array(dtype=dtype, shape=tuple(shape), stype=stype, data=data)


def _container_to_tree(value: Any) -> Tree | None:  # noqa: ANN401
    name = type(value).__name__
    if type(value) is deque:
        return {"kind": name, "of": [value_to_tree(item) for item in value], "maxlen": value.maxlen}
    if _SEQUENCES.get(name) is type(value):
        return {"kind": name, "of": [value_to_tree(item) for item in value]}
    if type(value) not in {dict, OrderedDict, Counter, defaultdict}:
        return None
    tree: dict[str, Tree] = {
        "kind": name,
        "of": [(value_to_tree(key), value_to_tree(item)) for key, item in value.items()],
    }
    if type(value) is defaultdict:
        make = value.default_factory
        if make is not None and _FACTORIES.get(getattr(make, "__name__", "")) is not make:
            raise TypeError(f"cannot save a defaultdict of {make!r:.80}")
        tree["factory"] = None if make is None else make.__name__
    return tree


def _defaultdict(tree: Tree) -> defaultdict[Any, Any]:
    make = None if tree["factory"] is None else _FACTORIES[tree["factory"]]
    return defaultdict(make, [(value_from_tree(key), value_from_tree(item)) for key, item in tree["of"]])


def _object(tree: Tree) -> Any:  # noqa: ANN401
    return object_from_tree(tree, value_from_tree)


#: Asked one after the other: each takes a value, or has None to say of it.
_WRITERS: tuple[Callable[[Any], Tree | None], ...] = (
    _plain_to_tree,
    _numbers_to_tree,
    _records_to_tree,
    random_to_tree,
    tensor_to_tree,
    _container_to_tree,
    partial(object_to_tree, to_tree=value_to_tree),
)
_READERS: dict[str, Callable[[Tree], Any]] = {
    "plain": lambda tree: tree["of"],
    "path": lambda tree: Path(tree["of"]),
    **dict.fromkeys(("array", "scalar", "complex"), _numbers),
    "record": lambda tree: next(iter(records_from_tree(tree["of"]).values())),
    "records": lambda tree: records_from_tree(tree["of"]),
    "flower array": _flower_array,
    "random": random_from_tree,
    "tensor": tensor_from_tree,
    "deque": lambda tree: deque([value_from_tree(item) for item in tree["of"]], maxlen=tree["maxlen"]),
    "defaultdict": _defaultdict,
    **dict.fromkeys(("enum", "named tuple", "dataclass"), _object),
}
