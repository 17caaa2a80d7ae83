"""What a command says where this computer's memory does not suffice."""

from __future__ import annotations

from collections.abc import Mapping

from fedgc.errors import ConfigError


def too_large(error: MemoryError, given: Mapping[str, int]) -> ConfigError:
    """Return the error in terms of the options that decide about memory."""
    came = ", ".join(f"{name} {value}" for name, value in given.items())
    return ConfigError(f"{' and '.join(given)} must be small enough for this computer's memory; got {came} ({error})")
