"""What the tasks that train a torch network share."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord
from torch import nn

Tensors = tuple[torch.Tensor, torch.Tensor]


def drawn_arrays(network: nn.Module, seed: int) -> ArrayRecord:
    """Return a network's arrays with weights and biases drawn anew; those of normalisations stay as they are.

    Each is uniform between ``-n ** -0.5`` and ``n ** -0.5``, where n is the number of inputs of an output, as torch
    draws them itself; but from a seed of its own, and not from torch's global one.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = math.prod(module.weight.shape[1:]) ** -0.5
            for part, _ in module.named_parameters():
                key = f"{name}.{part}"
                state[key] = torch.empty(state[key].shape).uniform_(-bound, bound, generator=generator)
    return ArrayRecord(state)


class Proximal(NamedTuple):
    """FedProx's term ``mu / 2 ||w - w_global||^2``: its weight, and the parameters that a client begins with."""

    mu: float
    centre: list[torch.Tensor]


def proximal_of(network: nn.Module, config: ConfigRecord) -> Proximal | None:
    """Return the proximal term around a network as it is, if the server asks for one."""
    mu = float(cast(float, config.get("proximal-mu", 0.0)))
    return Proximal(mu, [parameter.detach().clone() for parameter in network.parameters()]) if mu else None


def gradient_step(network: nn.Module, batch: Tensors, learning_rate: float, proximal: Proximal | None = None) -> float:
    """Take one step of gradient descent on the mean cross-entropy of a batch, and return its loss before.

    This is the step of torch.optim.SGD by hand: importing torch.optim's machinery alone takes two seconds. With a
    proximal term that is minimised too, but no part of the loss.
    """
    parameters = list(network.parameters())
    x, y = batch
    loss = nn.functional.cross_entropy(network(x), y)
    with torch.no_grad():
        gradients = torch.autograd.grad(loss, parameters)
        if proximal is not None:
            around = zip(gradients, parameters, proximal.centre, strict=True)
            gradients = tuple(gradient + proximal.mu * (own - centre) for gradient, own, centre in around)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=learning_rate)
    return float(loss.detach())


def arrays_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's arrays as copies in main memory, since the next shard is trained in the same network."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
