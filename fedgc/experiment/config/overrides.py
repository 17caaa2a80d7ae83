"""Change single keys of a configuration."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from fedgc.errors import ConfigError

#: A part of a dotted key; one with dots of its own is quoted, as in TOML.
_PART = r'(?:"[^"]+"|[^."]+)'


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set what ``key=value`` says, in plain data.

    Examples
    --------
    >>> raw = {"sweep": {"task.alpha": [0.1]}}
    >>> apply_override(raw, 'sweep."task.alpha"=[0.1, 1.0]')
    >>> raw
    {'sweep': {'task.alpha': [0.1, 1.0]}}
    """
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(rf"{_PART}(\.{_PART})*", key.strip()):
        raise ConfigError(f"--set must be of the form key=value; got {override!r}")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": text}
    if len(parsed) > 1:
        raise ConfigError(f"--set must name one key; got {override!r}")
    set_value(raw, key.strip(), parsed["value"], option=f"--set {key}")


def set_value(raw: dict[str, Any], key: str, value: Any, *, option: str) -> None:  # noqa: ANN401  (any TOML value)
    """Set a dotted key of plain data.

    Raises
    ------
    ConfigError
        If there is no such place; the line begins with `option`.
    """
    node: Any = raw
    *parents, last = [part.strip('"') for part in re.findall(_PART, key)]
    for part in parents:
        if isinstance(node, dict):
            node = node.setdefault(part, {})
        elif isinstance(node, list):
            node = node[_position(option, part, node)]
        else:
            raise ConfigError(f"{option}: {part!r} must be inside a table or a list; got {node!r}")
    if isinstance(node, list):
        node[_position(option, last, node)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"{option}: {last!r} must be inside a table or a list; got {node!r}")


def _position(option: str, part: str, items: list[Any]) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{option}: position must be an integer from 0 to {len(items) - 1}; got {part!r}")
    return int(part)
