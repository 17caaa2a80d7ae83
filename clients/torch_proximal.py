"""FedProx's proximal term: what holds local epochs near the global model, if the server's strategy asks for it."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord
from torch import nn

#: The key under which Flower's FedProx sends the weight of the term.
PROXIMAL_MU = "proximal-mu"


def proximal_step(model: nn.Module, config: ConfigRecord) -> Callable[[], None]:
    """Return what adds the gradient of the proximal term to those of the loss, and nothing if the weight is 0.

    Parameters
    ----------
    model : torch.nn.Module
        The network, with the global arrays.
    config : ConfigRecord
        The weight mu is its ``"proximal-mu"``, 0 if it has none.

    Raises
    ------
    ValueError
        If mu is not a finite number of at least 0.

    Notes
    -----
    With w the parameters that are trained and w_global the global ones, the local objective is the loss plus
    ``mu / 2 ||w - w_global||^2``. Its gradient ``mu (w - w_global)`` is added to that of the loss, which spares the
    term a pass through autograd. What the shard reports as its loss is without it.

    References
    ----------
    T. Li et al., "Federated optimization in heterogeneous networks", MLSys 2020.

    Examples
    --------
    >>> import torch
    >>> model = nn.Linear(1, 1)
    >>> _ = nn.init.zeros_(model.bias)
    >>> add = proximal_step(model, ConfigRecord({"proximal-mu": 0.5}))
    >>> for parameter in model.parameters():
    ...     parameter.grad = torch.zeros_like(parameter)
    ...     _ = parameter.data.add_(4.0)
    >>> add()
    >>> model.bias.grad
    tensor([2.])
    """
    mu = config.get(PROXIMAL_MU, 0.0)
    if isinstance(mu, bool) or not isinstance(mu, (int, float)) or not 0.0 <= mu < float("inf"):
        raise ValueError(f'config["{PROXIMAL_MU}"] must be a finite number of at least 0; got {mu!r:.80}')
    if mu == 0.0:
        return lambda: None
    starts = [(one, one.detach().clone()) for one in model.parameters() if one.requires_grad]

    def add() -> None:
        for parameter, start in starts:
            away = parameter.detach() - start
            if parameter.grad is None:  # the loss does not depend on it
                parameter.grad = away.mul_(mu)
            else:
                parameter.grad.add_(away, alpha=mu)

    return add
