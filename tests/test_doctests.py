"""Every example in a docstring runs and says what it prints."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import fedgc.clients
import fedgc.strategies
import pytest

import fedgc

# Two packages live outside ./fedgc, where a walk from its folder does not find them.
PACKAGES = (fedgc, fedgc.clients, fedgc.strategies)
MODULES = sorted({m.name for p in PACKAGES for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")})


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0


def test_all_packages_are_walked() -> None:
    assert {"fedgc.decoders.optimal_unbiased", "fedgc.strategies.gradient_coding", "fedgc.clients.shards"} <= set(
        MODULES
    )
