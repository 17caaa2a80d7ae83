"""The update of one shard by a torch model: local epochs with an optimiser, or one gradient over all its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from fedgc.clients.shard_update import ShardUpdate
from fedgc.clients.torch_batches import BatchMean, BatchMeans, batches, call, seeded_training
from fedgc.clients.torch_proximal import proximal_step
from fedgc.clients.torch_state import load_arrays, moved, wide_dtype
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor, nn
from torch.optim import Optimizer

from fedgc.validation import check_integer, check_positive

#: An optimiser over the model's parameters, or what makes one from parameters.
MakesOptimizer = Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer]


def torch_epochs(
    model: nn.Module,
    loader: Iterable[Any],
    arrays: ArrayRecord,
    config: ConfigRecord,
    *,
    loss: BatchMean,
    optimizer: MakesOptimizer,
    epochs: int = 1,
    device: str | torch.device = "cpu",
    metrics: Mapping[str, BatchMean] | None = None,
) -> ShardUpdate:
    """Train the global arrays on one shard for some epochs and return how far they moved.

    Parameters
    ----------
    model : torch.nn.Module
        The network, with whatever weights. It is moved to `device` and left there as training ends; if it is in
        evaluation mode it is put into training mode, otherwise its submodules stay in the modes that they are in.
    loader : iterable
        The shard's batches, a DataLoader or a list: pairs ``(inputs, targets)``. Inputs are a tensor, a tuple or list
        (passed on as arguments) or a mapping (as keyword arguments). Without batches, ``[]``, the shard counts nothing.
    arrays, config : ArrayRecord, ConfigRecord
        What the function under :func:`fedgc.clients.gradient_coded` is given.
    loss : callable
        ``loss(output, targets)``, a mean over the examples of a batch.
    optimizer : callable or Optimizer
        Makes the optimiser from the parameters that are to be trained, ``functools.partial(SGD, lr=0.1)`` say; or an
        optimiser over the model's parameters, whose momentum and the like are cleared first.
    epochs : int
        Passes over the loader.
    device : str or torch.device
        Where to train. The update is back on the CPU.
    metrics : mapping of str to callable, optional
        Further means over a batch, called like `loss`.

    Returns
    -------
    ShardUpdate
        With the examples of one pass, and the means over all passes of "train_loss" and `metrics`. As a difference
        from the global arrays *in the model's dtypes*: see :func:`fedgc.clients.torch_arrays` for bfloat16.

    Raises
    ------
    ValueError
        If the arrays are not the model's, or an argument does not fit.

    Notes
    -----
    The global generators of Python, numpy and torch, and those of the loader, are seeded with ``config["shard-seed"]``
    and, but for the loader's, restored afterwards: the same shard, round and model give the same update, bit for bit,
    whoever computes it after whatever else. On a GPU cuDNN is made deterministic meanwhile; it holds then between
    devices of one kind, and for layers whose other kernels are deterministic (most; torch lists the rest at
    ``torch.use_deterministic_algorithms``).

    Under Flower's FedProx, which sends ``config["proximal-mu"]``, what is minimised is the loss plus
    ``mu / 2 ||w - w_global||^2`` over the parameters w that require a gradient (T. Li et al., "Federated optimization
    in heterogeneous networks", MLSys 2020): ``mu (w - w_global)`` is added to the gradient of every batch.
    "train_loss" is the loss alone.

    Examples
    --------
    >>> from functools import partial
    >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    >>> def train(shard_id, arrays, config):
    ...     sgd = partial(torch.optim.SGD, lr=0.1)
    ...     return torch_epochs(nn.Linear(2, 1), data, arrays, config, loss=nn.MSELoss(), optimizer=sgd, epochs=3)
    >>> arrays = ArrayRecord({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> update = train(0, arrays, ConfigRecord({"shard-seed": 7}))
    >>> update.num_examples, round(update.metrics["train_loss"], 3)
    (4, 1.581)
    """
    check_integer("epochs", epochs, low=1)
    if epochs > 1 and isinstance(loader, Iterator):
        raise ValueError(f"loader must be iterable once per epoch; got a {type(loader).__name__} for {epochs} epochs")
    place, before = prepare(model, arrays, loss, device)
    steps = fresh_optimizer(optimizer, model)
    add_proximal = proximal_step(model, config)
    means = BatchMeans({"train_loss": loss, **(metrics or {})})
    examples = 0
    with seeded_training(config, place, loader):
        for epoch in range(epochs):
            for inputs, targets, count in batches(loader, place):
                steps.zero_grad()
                output = call(model, inputs)
                value = loss(output, targets)
                value.backward()  # type: ignore[no-untyped-call]
                add_proximal()
                steps.step()
                means.add(count, value, output, targets)
                examples += count if epoch == 0 else 0
    return ShardUpdate(examples, delta=moved(model, before), metrics=means.values())


def torch_gradient(
    model: nn.Module,
    loader: Iterable[Any],
    arrays: ArrayRecord,
    config: ConfigRecord,
    *,
    loss: BatchMean,
    learning_rate: float = 1.0,
    device: str | torch.device = "cpu",
    metrics: Mapping[str, BatchMean] | None = None,
) -> ShardUpdate:
    """Return the step down the gradient of the mean loss over all of a shard's data.

    Parameters
    ----------
    model, loader, arrays, config, loss, device, metrics
        As for :func:`torch_epochs`. The loader only divides the data into what memory holds.
    learning_rate : float
        The update is ``-learning_rate x gradient``: by default minus the gradient, for an inner strategy that takes
        the step (FedAdam, FedAvgM); with FedAvg, the learning rate of gradient descent.

    Returns
    -------
    ShardUpdate
        With the examples of the loader, and the means of "train_loss" and `metrics` at the global arrays.

    Raises
    ------
    ValueError
        If the arrays are not the model's, or an argument does not fit.

    Notes
    -----
    With n_b examples in batch b, N in all, and the batch's mean loss f_b, the update of a parameter x is
    ``-learning_rate x sum_b (n_b / N) grad f_b(x)``: a last batch that is smaller counts for less, and the order of the
    batches for nothing. A buffer, such as the running statistics of batch normalisation, begins every batch as it is in
    the global arrays, and its update is the mean of its changes with the same weights: one gradient is one step for it
    too. Parameters that require no gradient stay as they are. FedProx's proximal term, which :func:`torch_epochs` adds,
    has no gradient at the global arrays, and so no part in this one.

    Examples
    --------
    >>> halves = [(torch.ones(2, 1), torch.zeros(2, 1)), (torch.ones(1, 1), torch.full((1, 1), 4.0))]
    >>> arrays = ArrayRecord({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    >>> config = ConfigRecord({"shard-seed": 7})
    >>> torch_gradient(nn.Linear(1, 1), halves, arrays, config, loss=nn.MSELoss()).delta["bias"]
    array([0.6666667], dtype=float32)
    """
    check_positive("learning_rate", learning_rate)
    place, before = prepare(model, arrays, loss, device)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums = {id(parameter): torch.zeros_like(parameter, dtype=wide_dtype(parameter)) for parameter in trained}
    starts = {name: value.clone() for name, value in _buffers(model, before).items()}
    changes = {name: torch.zeros_like(value, dtype=wide_dtype(value)) for name, value in starts.items()}
    means = BatchMeans({"train_loss": loss, **(metrics or {})})
    with seeded_training(config, place, loader):
        for inputs, targets, count in batches(loader, place):
            output = call(model, inputs)
            value = loss(output, targets)
            gradients = torch.autograd.grad(value, trained, allow_unused=True) if trained else ()
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    sums[id(parameter)].add_(gradient, alpha=count)
            for name, buffer in _buffers(model, before).items():
                wide = changes[name].dtype  # torch does not subtract a mask of booleans
                changes[name].add_(buffer.to(wide) - starts[name].to(wide), alpha=count)
                buffer.copy_(starts[name])
            means.add(count, value, output, targets)
    examples = max(means.examples, 1)
    delta = {}
    for name, start in before.items():
        if name in changes:
            change = changes[name] / examples
        elif (total := sums.get(id(parameters[name]))) is not None:
            change = total * (-learning_rate / examples)
        else:
            change = torch.zeros(start.shape)
        delta[name] = change.cpu().numpy()
    return ShardUpdate(means.examples, delta=delta, metrics=means.values())


def prepare(
    model: nn.Module, arrays: ArrayRecord, loss: object, device: str | torch.device
) -> tuple[torch.device, dict[str, Tensor]]:
    """Load the arrays, move everything to the device, and return it with what was loaded."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"loss must be a mean over the examples of a batch; got reduction {reduction!r}")
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError(f"device must be one that torch has here; got {str(device)!r}") from None
    before = load_arrays(model, arrays)
    model.to(place)
    if isinstance(loss, nn.Module):
        loss.to(place)
    if not model.training:
        model.train()
    return place, before


def fresh_optimizer(optimizer: MakesOptimizer, model: nn.Module) -> Optimizer:
    """Return the optimiser for the model's parameters, without anything left of what it did before."""
    if not isinstance(optimizer, Optimizer):
        return optimizer([parameter for parameter in model.parameters() if parameter.requires_grad])
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) not in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("optimizer must hold the parameters of this model and no others; got others")
    optimizer.state.clear()  # momentum left by the shard before would make the update depend on who computes it
    return optimizer


def _buffers(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the buffers that are part of the model's state, as they are now: a module may have replaced one."""
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name in state}
