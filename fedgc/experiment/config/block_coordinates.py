"""The section of strategies that give the coordinates of the gradient different redundancy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedgc.errors import ConfigError
from fedgc.experiment.config.keys import Grid, Name, Section
from fedgc.fleets import Fleet

#: The kind of these strategies: they have a server, and neither a deadline nor decoding weights of their own.
BLOCK_COORDINATES = "block-coordinates"
#: What makes clients of a fleet stay away for a round, or go.
_ABSENCE = ("dropout", "leave_prob", "outage_fraction", "session_off")


class BlocksConfig(Section):
    """Block-coordinate gradient coding: the exact gradient of every round, as soon as all coordinates can be decoded.

    Attributes
    ----------
    split : str
        How many coordinates have how many copies. "optimal" has the least mean runtime by the subgradient method;
        "closed-form" has equal ends of all blocks at the mean times of the n-th fastest client, "closed-form-inverse"
        at one over the means of one over these; "single-layer" has as many copies of all coordinates, the best number
        or that which `stragglers` leaves decodable.
    stragglers : int or None
        Of "single-layer", 0 for no code at all.
    """

    kind: Literal["block-coordinates"]
    label: Name
    split: Literal["optimal", "closed-form", "closed-form-inverse", "single-layer"] = "optimal"
    stragglers: Annotated[int, Field(ge=0, strict=True)] | None = None
    grid: Grid = Field(default_factory=dict)


def check_blocks(strategy: BlocksConfig, where: str, *, runtime: str, n_shards: int, fleet: Fleet) -> None:
    """Check what no single key shows.

    Raises
    ------
    ConfigError
        If the runtime has messages, there are not as many shards as clients, or clients may stay away.
    """
    if runtime != "replay":
        raise ConfigError(f"runtime must be 'replay' for {where}.kind {BLOCK_COORDINATES!r}; got {runtime!r}")
    if n_shards != fleet.n_clients:
        raise ConfigError(
            f"task.shards must be fleet.clients = {fleet.n_clients} for {where}.kind {BLOCK_COORDINATES!r}; "
            f"got {n_shards}"
        )
    if strategy.stragglers is not None and strategy.split != "single-layer":
        raise ConfigError(
            f"{where}.stragglers must be left out unless split is 'single-layer'; got {strategy.stragglers} with "
            f"{strategy.split!r}"
        )
    if (strategy.stragglers or 0) >= fleet.n_clients:
        raise ConfigError(
            f"{where}.stragglers must be below fleet.clients = {fleet.n_clients}; got {strategy.stragglers}"
        )
    for key in _ABSENCE:
        if (most := float(fleet.parameters[key].max())) > 0.0:
            raise ConfigError(
                f"fleet.{key} must be 0 for {where}.kind {BLOCK_COORDINATES!r}, whose clients are slow and never gone; "
                f"got {most:g}"
            )
