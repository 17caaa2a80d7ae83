"""Everything that a strategy's next round depends on, as plain data, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from fedgc.strategies.nodes.warm_up import NodeFacts
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.resuming.inner_state import inner_values, kinds, restore_inner
from fedgc.strategies.resuming.past_state import past_from_tree, past_to_tree
from flwr.app import ArrayRecord

from fedgc.checkpoint import Tree
from fedgc.errors import CheckpointError
from fedgc.global_random import globals_to_tree, restore_globals
from fedgc.records.trees import arrays_from_tree, arrays_to_tree, message_from_tree, message_to_tree
from fedgc.reliability import OutagePosterior
from fedgc.round.saved_state import state_from_tree, state_to_tree

if TYPE_CHECKING:
    from fedgc.strategies.coded_strategy import CodedStrategy

_REPORT = tuple(field.name for field in fields(RoundReport))


def run_to_tree(strategy: CodedStrategy, arrays: ArrayRecord, inner: Tree) -> Tree:
    """Return a run between two calls of its grid as plain data.

    Parameters
    ----------
    strategy : CodedStrategy
        The strategy.
    arrays : ArrayRecord
        The model.
    inner : object
        What the inner strategy has come to know, and what kind it is.
    """
    run = strategy._run
    assert run.grid is not None
    in_virtual_time = run.grid.snapshot()
    return {
        "arrays": arrays_to_tree(arrays),
        "num_shards": strategy.num_shards,
        "schedule": strategy.planning.schedule,
        "in_a_row": strategy.planning.in_a_row,
        "state": state_to_tree(strategy.state),
        "inner": inner,
        "nodes": {
            node: (facts.overhead, facts.partition, dict(facts.labels)) for node, facts in strategy.nodes.items()
        },
        "planned_nodes": strategy.planning.nodes,
        "set_aside": run.set_aside.to_data(),
        "dissent": run.dissent.to_data(),
        "newcomers": run.newcomers.to_data(),
        "told": sorted(run._told),
        "shard_counts": strategy._shard_counts.to_data(),
        "history": [{name: getattr(report, name) for name in _REPORT} for report in strategy.history],
        "shards": None if strategy.shards is None else strategy.shards.to_data(),
        "first_report": run.first_report,
        "introduced": run.introduced,
        "silent": (run.silent_rounds, None if in_virtual_time is None else run.silent_since),
        "heard_late": sorted(run.heard_late),
        # Elsewhere messages are lost with the process that sent them.
        "grid": in_virtual_time,
        "past": None if in_virtual_time is None or run.past is None else past_to_tree(run.past),
        "listened for": sorted(run.grid.earlier),
        "late": [] if in_virtual_time is None else [(message_to_tree(one), instant) for one, instant in run.grid.late],
        "global randomness": globals_to_tree(),
    }


def restore_run(strategy: CodedStrategy, tree: Tree, initial: ArrayRecord) -> ArrayRecord:
    """Set a strategy to where the run was, and return the model.

    Parameters
    ----------
    strategy : CodedStrategy
        The strategy, as it was made, with its run begun.
    tree : object
        What :func:`run_to_tree` wrote.
    initial : ArrayRecord
        The arrays that a new run would begin with.

    Raises
    ------
    CheckpointError
        If the checkpoint is of another model, plan or kind of inner strategy than the strategy's, or is not what was
        written. Nothing has been changed then, so that another one may be tried.
    """
    run, planning = strategy._run, strategy.planning
    assert run.grid is not None
    try:
        arrays = arrays_from_tree(tree["arrays"])
        _check_model(arrays, initial)
        if (theirs := tree["inner"]["kinds"]) != (ours := kinds(strategy.strategy)):
            raise CheckpointError(f"the inner strategy must be {theirs}, as in the checkpoint; got {ours}")
        for name, given in (("num_shards", strategy.num_shards), ("schedule", planning.schedule)):
            if tree[name] != given:
                raise CheckpointError(f"{name} must be {tree[name]!r}, as in the checkpoint; got {given!r}")
        if tree.get("in_a_row", False) != planning.in_a_row:
            raise CheckpointError(
                f"in_a_row must be {not planning.in_a_row}, as in the checkpoint; got {planning.in_a_row}"
            )
        memory = strategy.state.memory
        if (memory is None) != (tree["state"]["memory"] is None):
            raise CheckpointError(f"memory must be {memory is None}, as in the checkpoint; got {memory is not None}")
        _check_domains(strategy.state.outages, tree["state"].get("outages"))
        state = state_from_tree(tree["state"], planning, None if memory is None else memory.store)
        nodes = {int(node): NodeFacts(*facts) for node, facts in tree["nodes"].items()}
        history = [RoundReport(**report) for report in tree["history"]]
        first_report = int(tree["first_report"])
        silent_rounds, silent_since = tree["silent"]
        introduced, heard_late = bool(tree["introduced"]), set(tree["heard_late"])
        set_aside = run.set_aside.from_data(tree["set_aside"])
        dissent = run.dissent.from_data(tree["dissent"])
        messages = tree["grid"] is not None and not run.grid.one_at_a_time
        counts = strategy._shard_counts.from_data(tree["shard_counts"])
        told = {(shard, tuple(nodes)) for shard, nodes in tree["told"]}
        newcomers = run.newcomers.from_data(tree["newcomers"], messages=messages)
        late = [(message_from_tree(reply), float(instant)) for reply, instant in tree["late"]]
        past = None
        if tree["past"] is not None:
            past = past_from_tree(tree["past"], state, strategy.round_settings)
        go_on_pushing = _pushing(strategy, tree["shards"], messages=messages)
        inner = inner_values(strategy.strategy, tree["inner"]["attributes"])
        # Nothing has been set before this, and nothing can be found wrong after it.
        in_virtual_time = run.grid.restore(tree["grid"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"a checkpoint must hold what was written; got {error!r:.200}") from error
    restore_inner(inner)
    go_on_pushing()
    strategy.state, strategy.nodes, strategy.history[:] = state, nodes, history
    strategy.planning = replace(planning, nodes=tree["planned_nodes"])
    strategy._shard_counts, run.first_report = counts, first_report
    run.set_aside, run.dissent, run.newcomers, run._told = set_aside, dissent, newcomers, told
    run.heard_late = heard_late
    if in_virtual_time:  # elsewhere nodes are met anew, and instants were of a process that has gone
        run.introduced, run.silent_rounds, run.silent_since = introduced, silent_rounds, silent_since
        run.past = past
        run.grid.listen_for(tree["listened for"])
        run.grid.late = late
    restore_globals(tree["global randomness"])
    return arrays


def _pushing(strategy: CodedStrategy, data: Tree | None, *, messages: bool) -> Callable[[], None]:
    """Return what lets a strategy know what its nodes keep; nothing, if it or the run before pushes no shards."""
    if strategy.shards is None or data is None:
        return lambda: None
    return strategy.shards.from_data(data, messages=messages)


def _check_domains(ours: OutagePosterior | None, saved: Tree | None) -> None:
    here, there = 0 if ours is None else ours.down.size, 0 if saved is None else len(saved["down"])
    if here != there:
        raise CheckpointError(f"failure_domains must be {there}, as in the checkpoint; got {here}")


def _check_model(arrays: ArrayRecord, initial: ArrayRecord) -> None:
    def shapes(record: ArrayRecord) -> dict[str, Any]:
        return {name: (array.dtype, tuple(array.shape)) for name, array in record.items()}

    ours, saved = shapes(initial), shapes(arrays)
    for name in {**saved, **ours}:
        if ours.get(name) != saved.get(name):
            raise CheckpointError(
                f"the checkpoint must be of the same model; array {name!r} is {_told(saved.get(name))} in it "
                f"and {_told(ours.get(name))} in initial_arrays"
            )


def _told(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return "missing" if kind is None else f"{kind[0]} of shape {kind[1]}"
