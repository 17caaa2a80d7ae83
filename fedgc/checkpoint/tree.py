"""Nested plain data with arrays as JSON and arrays, and back, to the last bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: What a checkpoint is made of: None, booleans, numbers, strings, bytes, arrays, and lists, tuples and dicts of these.
Tree = Any

_TAG = "$"


def pack_tree(tree: Tree) -> dict[str, Array]:
    """Return a tree as arrays of plain types, one of which holds JSON.

    Parameters
    ----------
    tree : object
        None, booleans, integers of any size, floats, strings, bytes, numpy arrays and numbers, and lists, tuples and
        dicts of these; keys of dicts are strings or integers.

    Returns
    -------
    dict of str to ndarray
        ``"json"``, the structure, and one array each for what is an array or bytes in it. The same array or the same
        bytes twice are stored once, as when hundreds of messages hold one model.

    Raises
    ------
    TypeError
        If something else is in it: an object is never written, so that none has to be made from a file.

    Examples
    --------
    >>> packed = pack_tree({"round": 3, 7: (np.eye(2), b"ab"), "miss": float("nan")})
    >>> sorted(packed)
    ['a0', 'a1', 'json']
    >>> unpack_tree(packed)[7][0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    arrays: dict[str, Array] = {}
    names: dict[tuple[object, ...], str] = {}

    def name_of(value: Array) -> str:
        data = np.ascontiguousarray(value)
        digest = hashlib.sha256(data.reshape(-1).view(np.uint8).data).digest()
        return names.setdefault((digest, data.dtype.str, value.shape), f"a{len(names)}")

    def plain(value: Tree) -> Tree:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.bool_ | np.integer | np.floating) and value.dtype.itemsize <= 8:
            return value.item()
        if isinstance(value, bytes | np.ndarray):
            content = np.frombuffer(value, dtype=np.uint8) if isinstance(value, bytes) else value
            if content.dtype.kind not in "biuf" or content.dtype.itemsize > 8:
                raise TypeError(f"an array of a checkpoint must hold booleans, integers or floats; got {content.dtype}")
            arrays[name := name_of(content)] = content
            return {_TAG: "bytes" if isinstance(value, bytes) else "array", "of": name}
        return _container(value, plain)

    # Python writes floats with all their digits, and NaN and infinity in a way that it reads again.
    text = json.dumps(plain(tree), separators=(",", ":")).encode()
    return {**arrays, "json": np.frombuffer(text, dtype=np.uint8)}


def unpack_tree(packed: Mapping[str, Array]) -> Tree:
    """Return the tree of :func:`pack_tree`.

    Raises
    ------
    ValueError
        If the arrays are not those of a tree.
    """

    def full(value: Tree) -> Tree:
        if isinstance(value, list):
            return [full(item) for item in value]
        if not isinstance(value, dict):
            return value
        if _TAG not in value:
            return {key: full(item) for key, item in value.items()}
        kind, of = value[_TAG], value["of"]
        if kind in {"bytes", "array"}:
            return packed[of].tobytes() if kind == "bytes" else packed[of]
        if kind == "tuple":
            return tuple(full(item) for item in of)
        return {key: full(item) for key, item in of}

    try:
        return full(json.loads(packed["json"].tobytes()))
    except (KeyError, TypeError, RecursionError, ValueError) as error:
        raise ValueError(f"the structure of a checkpoint must be what was written; got {error!r:.120}") from error


def _container(value: Tree, plain: Callable[[Tree], Tree]) -> Tree:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return {_TAG: "tuple", "of": [plain(item) for item in value]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and _TAG not in value:
            return {key: plain(item) for key, item in value.items()}
        if all(isinstance(key, str | int) and not isinstance(key, bool) for key in value):
            return {_TAG: "dict", "of": [[key, plain(item)] for key, item in value.items()]}
    raise TypeError(f"a checkpoint must hold plain data and arrays; got {type(value).__name__} {value!r:.80}")
