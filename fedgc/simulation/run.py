"""Run a Flower ServerApp and ClientApp in one process, in virtual time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedgc.fleets import Fleet
from fedgc.global_random import seeded_globals
from fedgc.simulation.grid import FIRST_NODE_ID, VirtualGrid
from fedgc.simulation.grid_state import Event
from fedgc.simulation.quick_records import quick_records

RUN_ID = 1


@dataclass(frozen=True)
class VirtualRun:
    """What a run leaves.

    Attributes
    ----------
    trace : tuple of Event
        Every message and what became of it, in order.
    seconds : float
        Virtual duration of the run.
    context : Context
        The ServerApp's context after the run.
    """

    trace: tuple[Event, ...]
    seconds: float
    context: Context


def run_virtual(
    server_app: Callable[[Grid, Context], None],
    client_app: Callable[[Message, Context], Message],
    fleet: Fleet,
    *,
    run_config: Mapping[str, bool | float | int | str] | None = None,
    num_shards: int | None = None,
    backlog: bool = False,
) -> VirtualRun:
    """Run unmodified Flower apps on a fleet, in virtual time and without sleeping.

    Parameters
    ----------
    server_app, client_app : ServerApp, ClientApp
        Flower apps of the message API. Any strategy works.
    fleet : Fleet
        Completion times and drop-out of the clients.
    run_config : mapping, optional
        What ``flwr run --run-config`` would set: ``context.run_config`` on both sides.
    num_shards : int, optional
        Number of shards that clients divide among themselves when the server assigns none; one each by default.
    backlog : bool
        Whether a node finishes late work before it starts on a new message; see :class:`VirtualGrid`.

    Returns
    -------
    VirtualRun
        The same seed gives the same trace and the same arrays, bit for bit.

    Notes
    -----
    Every node gets Flower's usual ``node_config`` with ``partition-id`` and ``num-partitions``, and a context whose
    state lasts for the run.
    """
    config: UserConfig = dict(run_config or {})
    contexts = {
        FIRST_NODE_ID + client: Context(
            run_id=RUN_ID,
            node_id=FIRST_NODE_ID + client,
            node_config={"partition-id": client, "num-partitions": fleet.n_clients},
            state=RecordDict(),
            run_config=dict(config),
        )
        for client in range(fleet.n_clients)
    }
    context = Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), dict(config))
    with _task_identity(), seeded_globals(fleet.seed, 0):
        grid = VirtualGrid(fleet, client_app, contexts, run_id=RUN_ID, num_shards=num_shards, backlog=backlog)
        with grid.clock.installed(), quick_records(), _older_objects_left_alone():
            server_app(grid, context)
    return VirtualRun(tuple(grid.trace), grid.clock.now(), context)


@contextmanager
def _older_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector from looking through what was there before the run.

    With torch and Flower that is half a million objects, which a run goes through every few thousand messages: in up to
    a quarter of its time, if clients do little. What comes into being during the run is collected as ever.
    """
    if gc.get_freeze_count():  # somebody has done so already, and may want it to last
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _task_identity() -> Iterator[None]:
    """Tell Flower's Message who sends it; its own runtimes do so when their process starts."""
    names = ("_run_id", "_node_id", "_task_id")
    before = [TaskIdentity.__dict__[name] for name in names]
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SUPERLINK_NODE_ID, 0
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(TaskIdentity, name, value)
