"""What one round hands to the next, as plain data and arrays, and back to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from scipy import sparse

from fedgc.arrivals import ArrivalModel, DomainArrivals, IndependentArrivals, ProgressArrivals
from fedgc.assignment import Assignment
from fedgc.checkpoint.tree import Tree
from fedgc.codes import Code, FractionalRepetition, MatrixCode, WorkLists
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.completion_times import CompletionTimes, Overheads, TimeObservation
from fedgc.errors import CheckpointError
from fedgc.gram import GramModel
from fedgc.memory import MemoryStore, UpdateMemory
from fedgc.noise import NoiseSensitivity
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round.before.bit_budget import divided
from fedgc.round.before.planning import Planning
from fedgc.round.rounding import RoundingByBits, RoundingEstimate
from fedgc.round.state import RoundPlan, RoundState

_COHERENCE = {"learnt": CoherenceEstimate, "known": KnownCoherence}


def state_to_tree(state: RoundState) -> Tree:
    """Return the state as plain data and arrays; see :func:`fedgc.checkpoint.pack_tree`.

    Raises
    ------
    CheckpointError
        If it holds an estimate of coherence of a kind that is not known here.
    """
    kinds = [name for name, kind in _COHERENCE.items() if type(state.coherence) is kind]
    if not kinds:
        raise CheckpointError(f"coherence must be a CoherenceEstimate to be saved; got {state.coherence!r:.80}")
    return {
        "shard_examples": state.shard_examples,
        "claims": {shard: dict(said) for shard, said in state.claims.items()},
        "reliability": state.reliability.to_data(),
        "coherence": {"kind": kinds[0], **asdict(state.coherence)},
        "plan": None if state.plan is None else _plan_to_tree(state.plan),
        "completion_times": state.completion_times.to_data(),
        "overheads": state.overheads.to_data(),
        "new_times": [asdict(one) for one in state.new_times],
        "rounds": state.rounds,
        "noise": None if state.noise is None else asdict(state.noise),
        "fruitless": state.fruitless,
        "surprised": state.surprised,
        "memory": None if state.memory is None else _memory_to_tree(state.memory),
        "outages": None if state.outages is None else state.outages.to_data(),
        "rounding": None if state.rounding is None else asdict(state.rounding),
        "rounding_by_bits": None if state.rounding_by_bits is None else asdict(state.rounding_by_bits),
    }


def state_from_tree(tree: Mapping[str, Any], planning: Planning, store: MemoryStore | None) -> RoundState:
    """Return the state that :func:`state_to_tree` wrote.

    Parameters
    ----------
    tree : mapping
        The data.
    planning : Planning
        How the run plans: its decoder is calibrated anew, with what it was calibrated with.
    store : MemoryStore or None
        Where the memory is kept from now on.

    Raises
    ------
    CheckpointError
        If something is missing, or not what it must be.
    """
    try:
        coherence = dict(tree["coherence"])
        return RoundState(
            shard_examples=np.array(tree["shard_examples"]),
            claims=tree["claims"],
            reliability=ReliabilityPosterior.from_data(tree["reliability"]),
            coherence=_COHERENCE[coherence.pop("kind")](**coherence),
            plan=None
            if tree["plan"] is None
            else _plan_from_tree(tree["plan"], planning).in_round(tree["rounds"], planning.seed),
            completion_times=CompletionTimes.from_data(tree["completion_times"]),
            overheads=Overheads.from_data(tree["overheads"]),
            new_times=tuple(TimeObservation(**one) for one in tree["new_times"]),
            rounds=tree["rounds"],
            noise=None if tree.get("noise") is None else NoiseSensitivity(**tree["noise"]),
            fruitless=float(tree.get("fruitless", 0.0)),
            surprised=bool(tree.get("surprised", False)),
            memory=None if tree["memory"] is None else _memory_from_tree(tree["memory"], store or MemoryStore()),
            outages=None if tree.get("outages") is None else OutagePosterior.from_data(tree["outages"]),
            rounding=None if tree.get("rounding") is None else RoundingEstimate(**tree["rounding"]),
            rounding_by_bits=None
            if tree.get("rounding_by_bits") is None
            else RoundingByBits(**{**tree["rounding_by_bits"], "usual": tuple(tree["rounding_by_bits"]["usual"])}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the state of a checkpoint must be what was written; got {error!r:.200}") from error


def _plan_to_tree(plan: RoundPlan) -> Tree:
    if plan.undivided is not None:
        own = {"node_ids": plan.node_ids, "bits": plan.bits, "variance_factors": plan.variance_factors}
        return {**_plan_to_tree(plan.undivided), "divided": own}
    code = (plan.base or plan.decoder).code
    blocks = None if code.blocks is None else (code.blocks.of_client, code.blocks.of_shard)
    return {
        "node_ids": plan.node_ids,
        "everyone": plan.everyone,
        "straggle_prob": plan.straggle_prob,
        "deadline": plan.deadline,
        "gram": (plan.gram.incoherent, plan.gram.coherent),
        "arrivals": _arrivals_to_tree(plan.arrivals),
        "domain": plan.domain,
        "variance_factor": plan.variance_factor,
        "mean_progress": plan.mean_progress,
        "assignment": None if plan.assignment is None else _assignment_to_tree(plan.assignment),
        "blocks": blocks if isinstance(code, FractionalRepetition) else None,
        "redraw": code.interchangeable is not None,
        "matrix": _matrix_to_tree(code) if isinstance(code, MatrixCode) else None,
        "lists": _lists_to_tree(code) if isinstance(code, WorkLists) and plan.assignment is None else None,
    }


def _plan_from_tree(tree: Mapping[str, Any], planning: Planning) -> RoundPlan:
    assignment = None if tree["assignment"] is None else Assignment(**tree["assignment"])
    code: Code
    if tree["blocks"] is not None:
        code = FractionalRepetition(*tree["blocks"])
    elif tree["matrix"] is not None:
        code = _matrix_from_tree(tree["matrix"])
    elif tree["lists"] is not None:
        code = WorkLists(**tree["lists"])
    elif assignment is None:
        raise ValueError("a plan must have blocks, a matrix, lists or an assignment; got none")
    else:
        code, _ = assignment.code(segments=planning.sums, redraw=tree["redraw"])
    arrivals = _arrivals_from_tree(tree["arrivals"], code)
    gram = GramModel(*tree["gram"])
    plan = RoundPlan(
        node_ids=tree["node_ids"],
        code=code,
        straggle_prob=tree["straggle_prob"],
        arrivals=arrivals,
        gram=gram,
        decoder=planning.decoder.calibrate(code, arrivals, gram),
        deadline=tree["deadline"],
        assignment=assignment,
        everyone=tree["everyone"],
        domain=tree.get("domain"),
        variance_factor=tree.get("variance_factor"),
        in_a_row=planning.in_a_row,
        mean_progress=tree.get("mean_progress"),
    )
    own = tree.get("divided")
    if own is None:
        return plan
    asked = np.searchsorted(plan.node_ids, own["node_ids"])
    bits, factors = np.zeros(code.n_clients, dtype=np.intp), np.full(code.n_clients, np.inf)
    bits[asked], factors[asked] = own["bits"], own["variance_factors"]
    return divided(plan, bits, factors, planning.decoder)


def _matrix_to_tree(code: MatrixCode) -> Tree:
    matrix = code.sparse_matrix
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}


def _matrix_from_tree(tree: Mapping[str, Any]) -> MatrixCode:
    parts = (tree["data"], tree["indices"], tree["indptr"])
    return MatrixCode(sparse.csr_array(parts, shape=tuple(tree["shape"])), allow_unheld=True)


def _lists_to_tree(code: WorkLists) -> Tree:
    lists = [[segment.tolist() for segment in code.segments_of(client)] for client in range(code.n_clients)]
    return {"lists": lists, "n_shards": code.n_shards, "interchangeable": code.interchangeable}


def _arrivals_to_tree(arrivals: ArrivalModel) -> Tree:
    if isinstance(arrivals, IndependentArrivals):
        return {"straggle_prob": arrivals.straggle_prob}
    if isinstance(arrivals, DomainArrivals):
        return {name: getattr(arrivals, name) for name in ("straggle_prob", "domain", "outage_prob")}
    assert isinstance(arrivals, ProgressArrivals)  # plans know no other
    return {"progress_prob": list(arrivals.progress_prob)}


def _arrivals_from_tree(tree: Mapping[str, Any], code: Code) -> ArrivalModel:
    if "outage_prob" in tree:
        return DomainArrivals(**tree)
    if "straggle_prob" in tree:
        return IndependentArrivals(tree["straggle_prob"])
    if not isinstance(code, WorkLists):
        raise ValueError("progress must be on work lists")
    return ProgressArrivals(code, tree["progress_prob"])


def _memory_to_tree(memory: UpdateMemory) -> Tree:
    updates = {unit: {name: np.asarray(update[name]) for name in update} for unit, update in memory.updates.items()}
    return {"unit_of_shard": memory.unit_of_shard, "updates": {"by unit": list(updates.items())}}


def _memory_from_tree(tree: Mapping[str, Any], store: MemoryStore) -> UpdateMemory:
    updates = {int(unit): store.keep(dict(update)) for unit, update in tree["updates"]["by unit"]}
    return UpdateMemory(tree["unit_of_shard"], updates, store)


def _assignment_to_tree(assignment: Assignment) -> Tree:
    return {field.name: getattr(assignment, field.name) for field in fields(assignment)}
