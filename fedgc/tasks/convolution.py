"""A small convolutional network for digits: one gradient step per shard, on a loss that is not convex."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.network_step import NetworkStepTask
from fedgc.tasks.partition import Partition, build_shards
from fedgc.tasks.torch_model import drawn_arrays
from fedgc.validation import check_integer, check_positive


class DigitsConvTask(NetworkStepTask):
    """Digits with two convolutions and a linear layer, 6090 parameters, by one full-batch gradient step per shard.

    The mean over all shards, weighted by their examples, is a step of gradient descent on the mean cross-entropy of
    all training examples, as in :class:`fedgc.tasks.DigitsRegressionTask`; here that objective is not convex. There is
    no batch normalisation, with which a shard's gradient would depend on what else is in the shard.

    Parameters
    ----------
    shards : int
        Number of data shards.
    partition : str
        How labels are spread over them, see :func:`fedgc.tasks.build_shards`.
    alpha : float
        Concentration of the partition ``"dirichlet"``.
    pieces : int
        Into how many each shard is divided.
    learning_rate : float
        Step size.
    seed : int
        Seed of the shards and of the initial network. The test set is the same for every seed.
    """

    def __init__(
        self,
        *,
        shards: int = 40,
        partition: Partition = "dirichlet",
        alpha: float = 0.3,
        pieces: int = 1,
        learning_rate: float = 0.3,
        seed: int = 0,
    ) -> None:
        rate = check_positive("task.learning_rate", learning_rate)
        seed = check_integer("seed", seed, low=0)
        data = digits_data()
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )
        super().__init__(
            network,
            drawn_arrays(network, seed),
            (torch.from_numpy(data.train_x).reshape(-1, 1, 8, 8), torch.from_numpy(data.train_y)),
            (torch.from_numpy(data.test_x).reshape(-1, 1, 8, 8), torch.from_numpy(data.test_y)),
            shards=build_shards(data.train_y, shards, partition, alpha, np.random.default_rng([seed, 7]), pieces),
            learning_rate=rate,
        )
