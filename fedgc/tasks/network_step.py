"""A torch network trained by one full-batch gradient step per shard: by messages, or all shards at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap

from fedgc.clients import ShardUpdate
from fedgc.tasks.torch_model import Tensors, arrays_of, gradient_step
from fedgc.tasks.union import one_step

Weights = NDArray[np.float32]

#: Shards are one batch if that is at most so many times the examples, for it is as long as the largest shard for each.
_MOST_PADDING = 1.5


class NetworkStepTask:
    r"""A network whose shards each take one step of gradient descent on the mean cross-entropy of their examples.

    The mean over all shards, weighted by their examples, is a step of gradient descent on the mean cross-entropy of all
    training examples. In :mod:`fedgc.replay` a whole round is then one tensor operation: with :math:`v_j` how often
    shard :math:`j` counts, the decoded step is the gradient of :math:`\frac{1}{N} \sum_j v_j \sum_{i \in S_j} \ell_i`,
    one pass over all examples, however many clients there are.

    Parameters
    ----------
    network : Module
        The network, whose arrays are all parameters in single precision; it is worked in. There must be no batch
        normalisation, with which a shard's gradient would depend on what else is in the shard.
    initial : ArrayRecord
        The untrained network's arrays, in the order of its ``state_dict``.
    train, test : pair of Tensor
        Inputs and labels.
    shards : sequence of ndarray of int
        The training examples of each shard; each example is in one of them.
    learning_rate : float
        Step size.

    Examples
    --------
    >>> network = nn.Linear(2, 3)
    >>> data = torch.ones(4, 2), torch.tensor([0, 1, 2, 0])
    >>> shards = np.arange(4).reshape(2, 2)
    >>> task = NetworkStepTask(network, ArrayRecord(network.state_dict()), data, data, shards=shards, learning_rate=0.1)
    >>> loss, parts = task.shard_gradients(task.initial_weights())
    >>> parts.shape
    (2, 9)
    """

    def __init__(
        self,
        network: nn.Module,
        initial: ArrayRecord,
        train: Tensors,
        test: Tensors,
        *,
        shards: Sequence[NDArray[np.intp]],
        learning_rate: float,
    ) -> None:
        self.shards = shards
        # Processors are faster at convolutions with the channels last in memory.
        self._network, self._initial = network.to(memory_format=torch.channels_last), initial  # type: ignore[call-overload]
        self._train, self._test = train, test
        self._learning_rate = learning_rate
        self._parts = [(train[0][shard], train[1][shard]) for shard in shards]
        sizes = self.shard_examples
        self._shard_of = np.empty(len(train[1]), dtype=np.intp)
        self._shard_of[np.concatenate(shards)] = np.repeat(np.arange(len(shards)), sizes)
        self._batch: tuple[torch.Tensor, ...] | None = None
        if max(sizes) * len(sizes) <= _MOST_PADDING * len(train[1]):
            x, y = (nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*self._parts, strict=True))
            there = torch.arange(y.shape[1]) < torch.tensor(sizes)[:, None]
            self._batch = x, y, there.to(x.dtype)

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        return [len(shard) for shard in self.shards]

    def initial_arrays(self) -> ArrayRecord:
        """Return the untrained network's arrays."""
        return self._initial

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Return the arrays after one gradient step on one shard, and the shard's loss before it."""
        return self.train_union([shard_id], arrays, config)

    def train_union(
        self, shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float = 1.0
    ) -> ShardUpdate:
        """Return the arrays after one gradient step on all examples of some shards, and their loss before it."""
        if not one_step(self.shard_examples, shard_ids, share):
            return ShardUpdate(0, arrays)
        self._network.load_state_dict(arrays.to_torch_state_dict())
        parts = [self._parts[shard_id] for shard_id in shard_ids]
        x, y = parts[0] if len(parts) == 1 else (torch.cat(both) for both in zip(*parts, strict=True))
        loss = gradient_step(self._network, (x, y), self._learning_rate)
        return ShardUpdate(len(y), arrays_of(self._network), metrics={"train_loss": loss})

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy on the test set, and the loss on all training examples: what is minimised."""
        self._network.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            x, y = self._test
            accuracy = float((self._network(x).argmax(1) == y).float().mean())
            x, y = self._train
            return MetricRecord({"accuracy": accuracy, "loss": float(nn.functional.cross_entropy(self._network(x), y))})

    def initial_weights(self) -> Weights:
        """Return the untrained network as a vector, (n_parameters,)."""
        return np.concatenate([array.numpy().ravel() for array in self.initial_arrays().values()])

    def as_arrays(self, weights: Weights) -> ArrayRecord:
        """Return such a vector as the network's arrays."""
        return ArrayRecord(
            {name: Array(np.ascontiguousarray(value.numpy())) for name, value in self._state(weights).items()}
        )

    def shard_gradients(self, weights: Weights) -> tuple[float, Weights]:
        """Return the loss of all training examples, and each shard's part of its gradient, (n_shards, n_parameters).

        All at once with ``torch.func.vmap`` if shards are about equally large. Shard by shard otherwise: with all
        padded to the largest, as vmap needs them, what is skewed takes longer.
        """
        if self._batch is not None:
            return self._batched(weights, self._batch)
        parameters = self._set(weights)
        total, loss = len(self._train[1]), 0.0
        parts = np.empty((len(self.shards), weights.size), dtype=np.float32)
        for row, (x, y) in zip(parts, self._parts, strict=True):
            value = nn.functional.cross_entropy(self._network(x), y, reduction="sum") / total
            row[:] = _flat(torch.autograd.grad(value, parameters))
            loss += float(value.detach())
        return loss, parts

    def weighted_gradients(self, weights: Weights, coverages: NDArray[np.float32]) -> tuple[float, Weights]:
        """Return the loss, and the sums of the shards' parts that each row of `coverages` asks for."""
        parameters = self._set(weights)
        x, y = self._train
        each = nn.functional.cross_entropy(self._network(x), y, reduction="none")
        distinct, place = np.unique(coverages, axis=0, return_inverse=True)  # often everybody has come
        scales = torch.from_numpy(distinct[:, self._shard_of] / np.float32(len(y)))
        sums = [torch.autograd.grad(scale @ each, parameters, retain_graph=True) for scale in scales]
        return float(each.detach().mean()), np.array([_flat(one) for one in sums])[place.reshape(-1)]

    def _batched(self, weights: Weights, batch: tuple[torch.Tensor, ...]) -> tuple[float, Weights]:
        def loss_of(
            state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, there: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            logits = functional_call(self._network, state, x)
            loss = there @ nn.functional.cross_entropy(logits, y, reduction="none") / len(self._train[1])
            return loss, loss.detach()

        gradients = vmap(grad(loss_of, has_aux=True), in_dims=(None, 0, 0, 0))
        of_shard, losses = gradients(self._state(weights), *batch)
        flat = torch.cat([one.reshape(len(self.shards), -1) for one in of_shard.values()], dim=1)
        return float(losses.sum()), flat.numpy()

    def _state(self, weights: Weights) -> dict[str, torch.Tensor]:
        """Return a vector as the network's tensors, by name."""
        state = self._network.state_dict()
        parts = torch.from_numpy(weights).split([value.numel() for value in state.values()])  # type: ignore[no-untyped-call]
        return {
            name: torch.empty_like(value).copy_(part.view(value.shape))  # laid out in memory as the network's is
            for (name, value), part in zip(state.items(), parts, strict=True)
        }

    def _set(self, weights: Weights) -> list[nn.Parameter]:
        """Give the network these weights, and return what gradients are taken by: in the order of the vector."""
        self._network.load_state_dict(self._state(weights))
        return list(self._network.parameters())


def _flat(gradients: tuple[torch.Tensor, ...]) -> Weights:
    flat: Weights = torch.cat([one.reshape(-1) for one in gradients]).numpy()
    return flat
