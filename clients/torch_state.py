"""Carry a torch model of any dtypes in Flower's records, and tell how far training has moved it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor, nn


def torch_arrays(model: nn.Module) -> ArrayRecord:
    """Return the model's state as an ArrayRecord, also where numpy has no such dtype.

    Parameters
    ----------
    model : torch.nn.Module
        The model: nested modules, buffers, tied and frozen parameters, arrays of any size.

    Returns
    -------
    ArrayRecord
        The entries of ``model.state_dict()`` under their names. bfloat16 and float8 become float32, which holds each
        of their values exactly; all else keeps its dtype.

    Raises
    ------
    ValueError
        If the state holds something that cannot be averaged: no tensor, or complex numbers.

    Notes
    -----
    Flower stores arrays as numpy does, and ``ArrayRecord(model.state_dict())`` raises a TypeError at bfloat16. With
    this record, or with that of the same model in float32, the server keeps float32 weights: clients train in bfloat16
    if their model is so, and steps that bfloat16 would round away still add up on the server. float16 travels as it is,
    and then the server's weights are rounded to it every round; the record of the model in float32 avoids that.

    Examples
    --------
    >>> record = torch_arrays(nn.Linear(2, 1, dtype=torch.bfloat16))
    >>> {name: array.dtype for name, array in record.items()}
    {'weight': 'float32', 'bias': 'float32'}
    """
    return ArrayRecord({name: Array(to_numpy(value)) for name, value in _state(model).items()})


def to_numpy(value: Tensor) -> NDArray[Any]:
    """Return a tensor as a numpy array: on the CPU, and in float32 where numpy has no such floating dtype."""
    value = value.detach().cpu()
    if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
        value = value.float()
    array: NDArray[Any] = value.numpy()
    return array


def load_arrays(model: nn.Module, arrays: ArrayRecord) -> dict[str, Tensor]:
    """Load the global arrays into the model and return what was loaded: on the CPU, in the model's dtypes.

    Raises
    ------
    ValueError
        If names or shapes are not the model's.

    Notes
    -----
    torch casts what it loads, and cuts fractions off: a counter that averaging has left at 2.9999 would become 2.
    """
    state = _state(model)
    if state.keys() != arrays.keys():
        odd = f"missing {sorted(state.keys() - arrays.keys())}, unknown {sorted(arrays.keys() - state.keys())}"
        raise ValueError(f"arrays must have the names of the model's state; got {odd}")
    loaded = {}
    for name, value in state.items():
        array = arrays[name].numpy()
        if array.shape != tuple(value.shape):
            raise ValueError(f"array {name!r} must have shape {tuple(value.shape)}; got {array.shape}")
        if not value.is_floating_point() and array.dtype.kind == "f":
            array = np.asarray(np.rint(array))
        loaded[name] = torch.from_numpy(array).to(value.dtype)
    model.load_state_dict(loaded)
    return loaded


def moved(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return how far the model is from what was loaded, array by array, in float32 or float64.

    The difference from what the model began with, not from the arrays that the server sent: if the model holds them in
    fewer digits, the rounding is no part of the update, and would pull the server's weights to where they are rounded.
    """
    deltas = {}
    for name, value in _state(model).items():
        wide = wide_dtype(value)
        deltas[name] = (value.detach().cpu().to(wide) - before[name].to(wide)).numpy()
    return deltas


def wide_dtype(value: Tensor) -> torch.dtype:
    """Return the dtype for sums and differences: float32 for it and anything shorter, float64 for it and integers."""
    return torch.float32 if value.is_floating_point() and value.dtype != torch.float64 else torch.float64


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.is_complex():
            what = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"entry {name!r} of the model's state must be a tensor of real numbers; got {what}")
    return state
