"""Training on a row of shards by a torch model: batches across the borders of shards, until the deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from fedgc.clients.in_a_row import RowOfShards
from fedgc.clients.shard_update import ShardUpdate
from fedgc.clients.torch_batches import BatchMean, BatchMeans, batches, call, seeded_training
from fedgc.clients.torch_proximal import proximal_step
from fedgc.clients.torch_state import moved
from fedgc.clients.torch_update import MakesOptimizer, fresh_optimizer, prepare
from flwr.app import ArrayRecord, ConfigRecord
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import Dataset, default_collate

from fedgc.validation import check_integer


def torch_in_a_row(
    model: nn.Module,
    dataset: Dataset[Any],
    row: RowOfShards,
    arrays: ArrayRecord,
    config: ConfigRecord,
    *,
    examples_of: Callable[[int], ArrayLike],
    loss: BatchMean,
    optimizer: MakesOptimizer,
    batch_size: int,
    epochs: int = 1,
    device: str | torch.device = "cpu",
    metrics: Mapping[str, BatchMean] | None = None,
) -> ShardUpdate:
    """Train the global arrays on a row of shards and return how far they moved.

    Parameters
    ----------
    model : torch.nn.Module
        The network, as for :func:`fedgc.clients.torch_epochs`.
    dataset : Dataset
        A map-style dataset of pairs ``(inputs, targets)``, by the numbers of the examples.
    row, arrays, config : RowOfShards, ArrayRecord, ConfigRecord
        What the function under :func:`fedgc.clients.coded_in_a_row` is given.
    examples_of : callable
        The numbers of a shard's examples, for one of the shards.
    loss, optimizer, device, metrics
        As for :func:`fedgc.clients.torch_epochs`.
    batch_size : int
        Examples of a batch. The loss of the last batch, if it is smaller, counts for as much less; if it is a single
        example it is passed over.
    epochs : int
        How often each example of a piece counts.

    Returns
    -------
    ShardUpdate
        With the row's examples, and the means of "train_loss" and `metrics`.

    Raises
    ------
    ValueError
        If the arrays are not the model's, or an argument does not fit.

    Examples
    --------
    >>> from functools import partial
    >>> from fedgc.clients.encode import Budget
    >>> data = torch.utils.data.TensorDataset(torch.ones(8, 2), torch.zeros(8, 1))
    >>> row = RowOfShards([0, 1], 1, Budget(ConfigRecord()), seed_of=lambda shard_id: shard_id)
    >>> arrays = ArrayRecord({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> sgd = partial(torch.optim.SGD, lr=0.1)
    >>> update = torch_in_a_row(nn.Linear(2, 1), data, row, arrays, ConfigRecord({"shard-seed": 7}), loss=nn.MSELoss(),
    ...     examples_of=lambda shard_id: range(4 * shard_id, 4 * shard_id + 4), optimizer=sgd, batch_size=4)
    >>> update.num_examples, round(update.metrics["train_loss"], 2)
    (8, 2.32)
    """
    check_integer("batch_size", batch_size, low=1)
    place, before = prepare(model, arrays, loss, device)
    steps = fresh_optimizer(optimizer, model)
    add_proximal = proximal_step(model, config)
    means = BatchMeans({"train_loss": loss, **(metrics or {})})
    with seeded_training(config, place, ()):
        for numbers in row.batches(examples_of, size=batch_size, epochs=epochs):
            if len(numbers) == 1 < batch_size:
                continue  # the last of all: normalisation needs two, and so small a step is not worth another way
            together = default_collate([dataset[int(number)] for number in numbers])
            for inputs, targets, count in batches([together], place):
                steps.zero_grad()
                output = call(model, inputs)
                value = loss(output, targets)
                (value * (count / batch_size)).backward()  # type: ignore[no-untyped-call]
                add_proximal()
                steps.step()
                means.add(count, value, output, targets)
    return ShardUpdate(row.num_examples, delta=moved(model, before), metrics=means.values())
