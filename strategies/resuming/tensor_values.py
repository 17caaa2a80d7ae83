"""torch tensors as plain data, where torch is loaded; nothing here loads it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from fedgc.checkpoint import Tree
from fedgc.errors import CheckpointError


def tensor_to_tree(value: Any) -> Tree | None:  # noqa: ANN401  (whatever an attribute is)
    """Return a tensor or parameter as plain data, None if it is none.

    Raises
    ------
    TypeError
        If it is sparse or quantized.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or type(value) not in {torch.Tensor, torch.nn.Parameter}:
        return None
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError("cannot save a tensor that is sparse or quantized")
    flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return {
        "kind": "tensor",
        "of": flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"",
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": tuple(value.shape),
        "device": str(value.device),
        "grad": bool(value.requires_grad),
        "parameter": type(value) is torch.nn.Parameter,
    }


def tensor_from_tree(tree: Tree) -> Any:  # noqa: ANN401
    """Return the tensor that :func:`tensor_to_tree` wrote, on its device if that is here, else on the CPU.

    Raises
    ------
    CheckpointError
        If torch is not loaded.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        raise CheckpointError("torch must be loaded to go on from a checkpoint with tensors of the inner strategy")
    dtype = getattr(torch, tree["dtype"])
    flat = torch.frombuffer(bytearray(tree["of"]), dtype=dtype) if tree["of"] else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(tree["shape"])
    # There may be no such device here; which of the two is raised depends on how torch was built.
    with contextlib.suppress(RuntimeError, AssertionError):
        tensor = tensor.to(tree["device"])
    return torch.nn.Parameter(tensor, tree["grad"]) if tree["parameter"] else tensor.requires_grad_(tree["grad"])
