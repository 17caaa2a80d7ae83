"""Images of coloured shapes and textures, and a network after MobileNetV3: a model of a size that phones train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from torch import nn

from fedgc.clients import ShardUpdate
from fedgc.protocol import SHARD_SEED
from fedgc.tasks.mobile_network import MobileNetwork
from fedgc.tasks.partition import Partition, build_shards
from fedgc.tasks.shapes import CLASSES, drawn_images
from fedgc.tasks.torch_model import arrays_of, drawn_arrays, gradient_step, proximal_of
from fedgc.tasks.union import part_of
from fedgc.validation import check_integer, check_positive, one_of

#: Images at a time when the network is tested, so that what it needs of memory does not grow with their number.
_AT_ONCE = 250


class ImagesTask:
    """Ten classes of drawn images, trained by a few steps of SGD on one shard at a time.

    Parameters
    ----------
    shards : int
        Number of data shards, at most `examples`.
    partition : str
        How labels are spread over them, see :func:`fedgc.tasks.build_shards`.
    alpha : float
        Concentration of the partition ``"dirichlet"``.
    pieces : int
        Into how many each shard is divided.
    examples : int
        Number of training images; the test set has a fourth as many more.
    size : int
        Height and width in pixels.
    width : float
        Width of :class:`fedgc.tasks.mobile_network.MobileNetwork`; with 1 it has 5.0 million parameters.
    local_steps, batch_size, learning_rate
        SGD on one shard: steps, examples per step (all, if there are fewer), step size.
    device : str
        ``"auto"`` for a GPU where there is one, ``"cpu"`` for none.
    seed : int
        Seed of the shards and of the initial network. The images are the same for every seed.

    Notes
    -----
    Runs on one kind of device can be repeated, up to the order in which a GPU adds; the loss is that of the test set.
    """

    def __init__(
        self,
        *,
        shards: int = 20,
        partition: Partition = "dirichlet",
        alpha: float = 0.3,
        pieces: int = 1,
        examples: int = 2000,
        size: int = 32,
        width: float = 0.25,
        local_steps: int = 1,
        batch_size: int = 32,
        learning_rate: float = 0.1,
        device: Literal["auto", "cpu"] = "auto",
        seed: int = 0,
    ) -> None:
        check_integer("task.examples", examples, low=10)
        check_integer("task.size", size, low=16)
        self._local_steps = check_integer("task.local_steps", local_steps, low=1)
        self._batch_size = check_integer("task.batch_size", batch_size, low=1)
        self._learning_rate = check_positive("task.learning_rate", learning_rate)
        self._seed = check_integer("seed", seed, low=0)
        one_of("task.device", device, ("auto", "cpu"))
        self._device = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
        # The generator has nothing of the seed in it: a run with another one has other shards of the same images.
        images, labels = drawn_images(examples + max(examples // 4, 10), size, np.random.default_rng(11))
        rng = np.random.default_rng([self._seed, 7])
        self.shards = build_shards(labels[:examples], shards, partition, alpha, rng, pieces)
        self._x, self._y = torch.from_numpy(images).to(self._device), torch.from_numpy(labels).to(self._device)
        self._test = self._x[examples:], self._y[examples:]
        self._network = MobileNetwork(check_positive("task.width", width), len(CLASSES)).to(self._device)

    @property
    def shard_examples(self) -> list[int]:
        """Number of training examples of each shard."""
        return [len(shard) for shard in self.shards]

    def initial_arrays(self) -> ArrayRecord:
        """Return the untrained network's arrays, drawn from the task's seed."""
        return drawn_arrays(self._network, self._seed)

    def train_shard(self, shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        """Train the global arrays on one shard and return what they became."""
        return self.train_union([shard_id], arrays, config)

    def train_union(
        self, shard_ids: Sequence[int], arrays: ArrayRecord, config: ConfigRecord, share: float = 1.0
    ) -> ShardUpdate:
        """Train the global arrays on all examples of some shards, with as many steps as each alone would take."""
        self._network.load_state_dict(arrays.to_torch_state_dict())
        examples = torch.from_numpy(np.concatenate([self.shards[shard_id] for shard_id in shard_ids]))
        generator = torch.Generator().manual_seed(int(cast(int, config[SHARD_SEED])))
        proximal = proximal_of(self._network, config)
        losses = []
        for _ in range(part_of(self._local_steps * len(shard_ids), share) if len(examples) else 0):
            drawn = torch.randperm(len(examples), generator=generator)[: self._batch_size]
            batch = examples[drawn].to(self._device)
            losses.append(gradient_step(self._network, (self._x[batch], self._y[batch]), self._learning_rate, proximal))
        metrics = {"train_loss": float(np.mean(losses))} if losses else {}
        return ShardUpdate(len(examples) if losses else 0, arrays_of(self._network), metrics=metrics)

    def evaluate(self, arrays: ArrayRecord) -> MetricRecord:
        """Return accuracy and loss on the test set."""
        self._network.load_state_dict(arrays.to_torch_state_dict())
        x, y = self._test
        with torch.no_grad():
            logits = torch.cat([self._network(part) for part in x.split(_AT_ONCE)])  # type: ignore[no-untyped-call]
            accuracy = float((logits.argmax(1) == y).float().mean())
            return MetricRecord({"accuracy": accuracy, "loss": float(nn.functional.cross_entropy(logits, y))})
