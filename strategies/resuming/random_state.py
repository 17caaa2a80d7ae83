"""Random generators as plain data: where they are in their streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fedgc.checkpoint import Tree

#: numpy's sources of random bits, by their names in a generator's state.
_BITS: dict[str, Callable[[], Any]] = {
    kind.__name__: kind
    for kind in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}


def random_to_tree(value: Any) -> Tree | None:  # noqa: ANN401  (whatever an attribute is)
    """Return the state of a generator of Python, numpy or torch as plain data, None if it is something else.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> tree = random_to_tree(rng)
    >>> bool(rng.random() == random_from_tree(tree).random())
    True
    """
    name = _name_of(value)
    if name is None:
        return None
    state: Tree
    if name == "Random":
        state = value.getstate()
    elif name == "torch.Generator":
        state = value.get_state().numpy()
    elif name == "RandomState":
        state = value.get_state(legacy=False)
    else:
        state = value.bit_generator.state if name == "Generator" else value.state
    return {"kind": "random", "name": name, "of": state}


def random_from_tree(tree: Tree, made: object = None) -> Any:  # noqa: ANN401  (whichever it was)
    """Return a generator that goes on where the one was that :func:`random_to_tree` wrote.

    Parameters
    ----------
    tree : object
        What was written.
    made : object
        What the attribute holds; if it is such a generator it is taken and set, since others may draw from it too.
    """
    name, state = tree["name"], tree["of"]
    bits = state["bit_generator"] if name in {"Generator", "RandomState"} else None
    generator: Any = made if _name_of(made) == name and _bits_of(made) == bits else _new(name, bits)
    if name == "Random":
        generator.setstate(state)
    elif name == "torch.Generator":
        generator.set_state(sys.modules["torch"].from_numpy(state.copy()))
    elif name == "RandomState":
        generator.set_state(state)
    elif name == "Generator":
        generator.bit_generator.state = state
    else:
        generator.state = state
    return generator


def _new(name: str, bits: str | None) -> Any:  # noqa: ANN401
    if name == "Random":
        return random.Random()
    if name == "torch.Generator":
        return sys.modules["torch"].Generator()
    if bits is None:
        return _BITS[name]()
    return np.random.Generator(_BITS[bits]()) if name == "Generator" else np.random.RandomState(_BITS[bits]())


def _name_of(value: Any) -> str | None:  # noqa: ANN401
    kind, torch = type(value), sys.modules.get("torch")
    if kind in {random.Random, *_BITS.values()}:
        return kind.__name__
    if kind in {np.random.Generator, np.random.RandomState}:
        return kind.__name__ if _bits_of(value) in _BITS else None
    # The state of an accelerator's generator means nothing to another one's.
    if torch is not None and kind is torch.Generator and value.device.type == "cpu":
        return "torch.Generator"
    return None


def _bits_of(value: Any) -> str | None:  # noqa: ANN401
    if type(value) is np.random.RandomState:
        return str(value.get_state(legacy=False)["bit_generator"])
    return str(value.bit_generator.state["bit_generator"]) if type(value) is np.random.Generator else None
