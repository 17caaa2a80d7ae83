"""Keep foreign code reproducible: Flower apps draw from global random generators, so each gets seeded ones.

This package is the one place in the project that touches global randomness. Flower's node sampling uses `random`, its
differential privacy uses `numpy.random`, and most ClientApps shuffle with torch's default generator. Seeding them once
at the start would not do: the clients' order, and with it every later draw, differs between strategies.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fedgc.global_random.numpy_state import keep_numpy_state

if TYPE_CHECKING:
    from fedgc.checkpoint import Tree  # a client, which saves nothing, need not load it


def seed_globals(*key: int) -> None:
    """Seed the global generators of `random`, numpy and torch (if it is loaded) from `key`."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch := cast(Any, sys.modules.get("torch")):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds every accelerator, at a millisecond


@contextmanager
def kept_globals() -> Iterator[None]:
    """Put the global generators of `random`, numpy and torch (if it is loaded) back to where they were, after."""
    torch: Any = sys.modules.get("torch")
    python_state, put_numpy_back = random.getstate(), keep_numpy_state()
    torch_state = torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(python_state)
        put_numpy_back()
        if torch and torch_state is not None:
            torch.set_rng_state(torch_state)


@contextmanager
def seeded_globals(*key: int) -> Iterator[None]:
    """Seed the global generators from `key`, and put them back after."""
    with kept_globals():
        seed_globals(*key)
        yield


def globals_to_tree() -> Tree:
    """Return the state of the global generators of `random`, numpy and torch (if it is loaded) as plain data."""
    torch: Any = sys.modules.get("torch")
    return {
        "python": random.getstate(),
        "numpy": tuple(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy() if torch else None,
    }


def restore_globals(tree: Tree) -> None:
    """Let the global generators go on from where they were."""
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    if torch and tree["torch"] is not None:
        torch.set_rng_state(torch.from_numpy(tree["torch"].copy()))
