"""Dataclasses, named tuples and members of enumerations as plain data, made again without running their code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from fedgc.checkpoint import Tree
from fedgc.errors import CheckpointError


def object_to_tree(value: Any, to_tree: Callable[[object], Tree]) -> Tree | None:  # noqa: ANN401
    """Return such an object as plain data, with `to_tree` for what is in it; None if it is something else.

    Raises
    ------
    TypeError
        If its class is not at the top of a module, or of a class there, where it can be found again.
    """
    kind = type(value)
    if isinstance(value, Enum):
        return {"kind": "enum", "class": _path(kind), "of": value.name}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return {"kind": "named tuple", "class": _path(kind), "of": [to_tree(item) for item in value]}
    if is_dataclass(value):
        # What is not a field too, as a cached property or a subclass may set it.
        inside = {one.name: getattr(value, one.name) for one in fields(value)} | getattr(value, "__dict__", {})
        return {"kind": "dataclass", "class": _path(kind), "of": [(name, to_tree(one)) for name, one in inside.items()]}
    return None


def object_from_tree(tree: Tree, from_tree: Callable[[Tree], Any]) -> Any:  # noqa: ANN401
    """Return the object that :func:`object_to_tree` wrote.

    Raises
    ------
    CheckpointError
        If there is no such class any more among those that are loaded.
    """
    kind, of = _class_at(tree["class"]), tree["of"]
    if tree["kind"] == "enum" and kind is not None and issubclass(kind, Enum) and of in kind.__members__:
        return kind.__members__[of]
    if tree["kind"] == "named tuple" and kind is not None and issubclass(kind, tuple):
        return tuple.__new__(kind, [from_tree(item) for item in of])
    if tree["kind"] == "dataclass" and kind is not None and is_dataclass(kind):
        made = object.__new__(kind)
        for name, value in of:
            object.__setattr__(made, name, from_tree(value))
        return made
    raise CheckpointError(f"{'.'.join(tree['class'])} must be the {tree['kind']} that it was; got {kind!r:.80}")


def _path(kind: type) -> tuple[str, str]:
    path = kind.__module__, kind.__qualname__
    if _class_at(path) is not kind:
        raise TypeError(f"{'.'.join(path)} cannot be found again by its name")
    return path


def _class_at(path: tuple[str, str]) -> type | None:
    """Return a class of that module and name, if it is loaded; nothing is imported, and no look-up of theirs called."""
    found: Any = sys.modules.get(path[0])
    for step in path[1].split("."):
        found = None if found is None else vars(found).get(step)
    return found if isinstance(found, type) else None
