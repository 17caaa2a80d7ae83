"""Read a configuration from a file, with what it is based on."""

from __future__ import annotations

import tomllib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from fedgc.errors import ConfigError
from fedgc.experiment.config.check import check_config
from fedgc.experiment.config.overrides import apply_override
from fedgc.experiment.config.sections import ExperimentConfig


def load_config(path: Path, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read a TOML configuration, apply ``key=value`` overrides, and check it.

    Parameters
    ----------
    path : Path
        The file. With ``base = "other.toml"`` it has the keys of that file (named from its own folder) but for those
        that it gives itself: tables are merged key by key, all else, lists too, takes the place of what the other has,
        and a target of one kind that of the other.
    overrides : iterable of str
        ``dotted.key=value``; positions in lists count from 0, values are written as in TOML, and a value that is not
        TOML is taken as a string.

    Raises
    ------
    ConfigError
        One line that names the key, the value and what is allowed; an override of a key that is swept is refused, since
        it would change nothing.
    """
    raw = _with_base(path, ())
    for override in overrides:
        apply_override(raw, override)
        key = override.partition("=")[0].strip()
        _make_way(raw, (key,))
        if isinstance(raw.get("sweep"), Mapping) and key in raw["sweep"]:
            raise ConfigError(f'--set {key} must not be swept; give sweep."{key}" instead, got {override!r}')
    return check_config(raw)


def _make_way(raw: dict[str, Any], given: Container[str]) -> None:
    """Take away the target of the other kind, where what comes later gives one: there may be only one."""
    for one, other in (("target_loss", "target_accuracy"), ("target_accuracy", "target_loss")):
        if one in given and other not in given:
            raw.pop(other, None)


def _with_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"base must not lead back to the file itself; got {str(path)!r}")
    raw = _read(path)
    if "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str):
        raise ConfigError(f"base must be the name of a file; got {base!r}")
    basis = _with_base(path.parent / base, (*above, path.resolve()))
    _make_way(basis, raw)
    return merged(basis, raw)


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of both, tables merged, and `own` before `base` where both have one.

    Examples
    --------
    >>> merged({"rounds": 5, "task": {"alpha": 0.1, "shards": 8}}, {"task": {"alpha": 1.0}})
    {'rounds': 5, 'task': {'alpha': 1.0, 'shards': 8}}
    """
    both = dict(base)
    for key, value in own.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"config must be a readable file; got {str(path)!r} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config must be valid TOML; got {str(path)!r} ({error})") from None
