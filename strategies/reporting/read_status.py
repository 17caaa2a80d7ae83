"""What a strategy knows of its run, put together for people and their tools."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from fedgc.strategies.nodes.warm_up import NodeFacts
from fedgc.strategies.reporting.report_numbers import block_of_client, block_of_shard
from fedgc.strategies.reporting.status import RISK, BlockStatus, ClientStatus, Evaluation, RunStatus
from fedgc.strategies.reporting.tally import RunTally
from flwr.app import MetricRecord
from numpy.typing import NDArray

from fedgc.arrivals import DomainArrivals
from fedgc.codes import WorkLists
from fedgc.round import RoundPlan, present_load

if TYPE_CHECKING:
    from fedgc.strategies.coded_strategy import CodedStrategy


def run_status(strategy: CodedStrategy) -> RunStatus:
    """Return what a strategy knows of the run that it is in, or was in last.

    Parameters
    ----------
    strategy : CodedStrategy
        The strategy. Nothing in it changes but what is cached.

    Examples
    --------
    >>> from fedgc.strategies import GradientCoding
    >>> status = run_status(GradientCoding(num_shards=4, deadline=30.0))
    >>> status.phase, status.rounds_done, status.deadline
    ('waiting', 0, 30.0)
    """
    run, state, result = strategy._run, strategy.state, strategy._journal.result
    waiting = None if run.phase in {"ended", "stopped"} else run.waiting
    phase = run.phase if waiting is None else "waiting"
    current = run.open if phase == "training" else None
    plan = state.plan if current is None else current.plan
    deadline = current.deadline if current is not None else None if plan is None else plan.deadline
    if deadline is None:
        deadline = strategy.first_deadline or strategy.deadline.initial
    tally = run.tally.catch_up(strategy.history[run.first_report :])
    done, here = tally.n_reports, tally.n_reports - run.rounds_before
    seconds = None if run.began is None or run.grid is None else run.grid.clock.now() - run.began
    left = None
    if seconds is not None and run.rounds is not None and here > 0:
        left = seconds / here * (run.rounds - done) if phase == "training" else None
    nodes = sorted({*tally.place, *strategy.nodes, *(() if plan is None else plan.everyone)})
    straggle_prob = state.reliability.straggle_prob(nodes)
    blocks: tuple[BlockStatus, ...] = ()
    if plan is not None:
        place = {node: index for index, node in enumerate(nodes)}
        missing = straggle_prob[[place[node] for node in plan.node_ids]]
        blocks = _blocks(plan, _silence(strategy, plan, missing, planned=current is not None), tally)
    return RunStatus(
        phase=phase,
        waiting=waiting,
        rounds_done=done,
        rounds_planned=run.rounds,
        round_open=None if current is None else current.server_round,
        seconds_in_rounds=float(sum(value for value in tally.numbers["fedgc-round-seconds"] if value is not None)),
        seconds=seconds,
        seconds_left=left,
        deadline=deadline,
        schedule=strategy.planning.schedule,
        decoder=strategy.decoder.name,
        n_shards=strategy.num_shards,
        load=present_load(strategy.planning, plan),
        error_predicted=_mean(tally, "fedgc-error-predicted"),
        error_observed=_mean(tally, "fedgc-error-observed"),
        sum_only=tally.sum_only,
        clients_evaluation=_last(result.evaluate_metrics_clientapp),
        server_evaluation=_last(result.evaluate_metrics_serverapp),
        clients=_clients(strategy, tally, nodes, straggle_prob) if nodes else (),
        blocks=blocks,
        rounds=tuple(tally.rounds),
        numbers={name: tuple(values) for name, values in tally.numbers.items()},
    )


def _clients(
    strategy: CodedStrategy, tally: RunTally, nodes: list[int], straggle_prob: NDArray[np.float64]
) -> tuple[ClientStatus, ...]:
    low, high = strategy.state.reliability.credible_interval(nodes)
    pace, times = np.full(len(nodes), np.nan), strategy.state.completion_times
    if times.priors and times.history is not None:
        # Who has only been silent is thought to be as fast as others, which is nothing to tell.
        timed = np.append(((times.history.age() >= 0) & ~times.history.censored).any(axis=1), False)
        known = timed[times.history.rows(nodes)]
        pace[known] = times.seconds_per_shard(nodes)[known]
    row = np.array([tally.place.get(node, -1) for node in nodes])
    rounds = np.zeros((4, row.size), dtype=np.intp)
    for kind, values in enumerate((tally.last_asked, tally.last_seen, tally.came, tally.asked)):
        rounds[kind, row >= 0] = values[row[row >= 0]]
    until, next_round = strategy._run.set_aside.until, (tally.rounds[-1] if tally.rounds else 0) + 1
    columns = zip(nodes, *(c.tolist() for c in (straggle_prob, low, high, pace, *rounds)), strict=True)
    unknown, never = NodeFacts(0.0), (0, None)
    clients = []
    for node, prob, least, most, seconds, last_asked, last_seen, came, asked in columns:
        facts, (rejected, reason) = strategy.nodes.get(node, unknown), tally.rejected.get(node, never)
        clients.append(
            ClientStatus(
                node_id=node,
                partition=facts.partition,
                labels=facts.labels,
                straggle_prob=prob,
                low=least,
                high=most,
                seconds_per_shard=seconds if seconds > 0.0 else None,
                last_asked=last_asked or None,
                last_seen=last_seen or None,
                came=came,
                asked=asked,
                rejected=rejected,
                last_rejection=reason,
                set_aside_until=aside if (aside := until.get(node, 0)) >= next_round else None,
            )
        )
    return tuple(clients)


def _silence(
    strategy: CodedStrategy, plan: RoundPlan, missing: NDArray[np.float64], *, planned: bool
) -> NDArray[np.float64]:
    """Return the probability that nothing comes of each client in the round that is `planned`, or else in the next one.

    Notes
    -----
    The next round has not been planned, which may take a second for large fleets. What the round that is over has shown
    of who comes can make all the difference, so that it is taken into account as the next plan will; times and deadline
    are those of the last plan. On a work list, with the probability a to be away (`missing`) and else q to have done
    the first shard in time, silence is ``1 - (1 - a) q``, of which only a is new.
    """
    last = strategy.history[-1] if strategy.history else None
    # The report has it already; for long lists it takes a while.
    told = last is not None and last.node_ids is plan.node_ids
    silent = last.straggle_prob if told and last is not None else plan.silence_prob
    if planned or strategy.planning.timing is not None:
        return silent
    if isinstance(plan.code, WorkLists):
        in_time = np.minimum((1.0 - silent) / (1.0 - plan.straggle_prob), 1.0)
        return np.asarray(1.0 - (1.0 - missing) * in_time)
    return missing if not strategy.deadline.changes or not strategy.state.completion_times.priors else silent


def _blocks(plan: RoundPlan, silent: NDArray[np.float64], tally: RunTally) -> tuple[BlockStatus, ...]:
    of_shard, of_client = block_of_shard(plan), block_of_client(plan)
    n_blocks = int(of_shard.max()) + 1
    together = np.ones(n_blocks)
    np.multiply.at(together, of_client[of_client >= 0], silent[of_client >= 0])
    if isinstance(plan.arrivals, DomainArrivals):
        # Members that go down together are silent together more often than that: as in the last plan.
        log_silence = plan.arrivals.log_silence(of_client, n_blocks)
        together = together if log_silence is None else np.exp(log_silence)
    since = np.full(n_blocks, np.iinfo(np.intp).max)
    np.minimum.at(since, of_shard, tally.last_recovered if tally.n_reports else 0)
    members, shards = _grouped(of_client, n_blocks), _grouped(of_shard, n_blocks)
    return tuple(
        BlockStatus(
            block=block,
            members=tuple(plan.node_ids[client] for client in who),
            shards=tuple(what),
            silence_prob=probability,
            at_risk=probability > RISK,
            last_recovered=last or None,
        )
        for block, (who, what, probability, last) in enumerate(
            zip(members, shards, together.tolist(), since.tolist(), strict=True)
        )
    )


def _grouped(of: NDArray[np.intp], n_groups: int) -> list[list[int]]:
    """Return which entries are of each group, ascending."""
    order = np.argsort(of, kind="stable")
    ends = np.searchsorted(of[order], np.arange(n_groups + 1)).tolist()
    entries = order.tolist()
    return [entries[start:end] for start, end in pairwise(ends)]


def _mean(tally: RunTally, name: str) -> float | None:
    known = [value for value in tally.numbers[name] if value is not None]
    return float(np.mean(known)) if known else None


def _last(results: Mapping[int, MetricRecord]) -> Evaluation | None:
    if not results:
        return None
    server_round = max(results)
    return Evaluation(server_round, dict(results[server_round]))
