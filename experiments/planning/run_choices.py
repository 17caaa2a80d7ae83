"""Run choices of a plan: through messages in the virtual-time runtime, or played without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fedgc.clients import ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding, RoundReport
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.assignment import InfeasibleAssignmentError
from fedgc.codes import WorkLists
from fedgc.coherence import KnownCoherence
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder
from fedgc.fleets import Fleet, TraceFleet
from fedgc.fleets.presence import stay_prob
from fedgc.forecast import arrivals_by_deadline, work_of
from fedgc.gram import GramModel
from fedgc.planning import Candidate, Choice, candidates, constraints_of
from fedgc.planning.choice import BLOCK_CODES
from fedgc.play import PlayedRounds, RoundDraws, play_rounds
from fedgc.simulation import run_virtual

#: Rounds and virtual seconds between the starts of two runs on a fleet: they have nothing to do with each other.
_ROUNDS_APART, _SECONDS_APART = 20_000, 1e6


def run_choice(fleet: Fleet, choice: Choice, n_shards: int, rounds: int) -> list[RoundReport]:
    """Run a choice through messages in virtual time and return what happened in each round."""
    decoder: Any = choice.decoder
    if decoder == "optimal-unbiased":
        decoder = OptimalUnbiasedDecoder(most_states=4096)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=n_shards,
        deadline=choice.deadline,
        load=choice.redundancy,
        schedule=choice.schedule,
        decoder=decoder,
        shard_examples=[1] * n_shards,
        timing=fleet,
        constraints=constraints_of(fleet),
        coherence=KnownCoherence(energy=1.0, overlap=0.0),
    )
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=n_shards)
    def train(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={"w": np.zeros(1)})

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1))}), num_rounds=rounds)

    run_virtual(server, app, fleet, num_shards=n_shards)
    return strategy.history


@dataclass(frozen=True, eq=False)
class PreparedChoice:
    """A choice with the decoder that its prediction was made with, ready to be played.

    Attributes
    ----------
    choice : Choice
        The choice.
    candidate : Candidate
        Its code, and the clients that take part.
    decoder : CalibratedDecoder
        Ready for the code.
    arrivals : ArrivalModel
        What the plan expects to come by the deadline.
    """

    choice: Choice
    candidate: Candidate
    decoder: CalibratedDecoder
    arrivals: ArrivalModel

    def play(self, draws: RoundDraws, rounds: int, *, run: int = 0) -> PlayedRounds:
        """Play rounds of an independent run; coverage is by columns of the code."""
        return play_rounds(
            draws,
            self.decoder,
            self.choice.deadline,
            rounds,
            clients=self.candidate.clients,
            unit=self.candidate.unit,
            first_round=1 + run * _ROUNDS_APART,
            start=run * _SECONDS_APART,
        )


def prepare(fleet: Fleet, choices: tuple[Choice, ...], n_shards: int) -> Iterator[PreparedChoice]:
    """Yield the choices of a plan, prepared, deadline by deadline.

    Raises
    ------
    RuntimeError
        If a choice is not among the candidates, or is predicted differently: it would not be the plan's that is played.
    """
    wanted = {_key(c.redundancy, c.schedule, c.code, c.decoder, c.deadline): c for c in choices}
    constraints, most = constraints_of(fleet), max(c.redundancy for c in choices)
    for deadline in sorted({c.deadline for c in choices}):
        blocks = {(c.redundancy, c.schedule) for c in choices if c.deadline == deadline and c.code in BLOCK_CODES}
        for holders in range(1, most + 1):
            skip = {(holders, schedule) for schedule in ("work-list", "full")} - blocks
            found = candidates(
                fleet, deadline, n_shards=n_shards, redundancies=[holders], constraints=constraints, skip=skip
            )
            try:
                for one in found:
                    key = _key(one.redundancy, one.schedule, one.name, one.decoder_name, deadline)
                    if key in wanted:
                        yield _prepared(fleet, one, wanted.pop(key))
            except InfeasibleAssignmentError:
                continue
    if wanted:
        raise RuntimeError(f"every choice must be among the candidates; got none for {next(iter(wanted))}")


def _prepared(fleet: Fleet, candidate: Candidate, choice: Choice) -> PreparedChoice:
    code, asked = candidate.code, np.zeros(fleet.n_clients)
    asked[candidate.clients] = work_of(code) * candidate.unit
    if isinstance(code, WorkLists):
        reach = fleet.partial_reach(choice.deadline, asked.astype(np.intp))
        arrivals = arrivals_by_deadline(code, reach[candidate.clients])
    else:
        miss = fleet.straggle_prob(choice.deadline, asked)[candidate.clients]
        arrivals = IndependentArrivals(np.clip(miss, 0.0, 1.0 - 1e-12))
    decoder = candidate.decoder.calibrate(code, arrivals, GramModel.uniform(code.n_shards, 0.0))
    error, planned = decoder.residual_error or np.nan, choice.residual_error
    # Where clients come and go a plan is about rounds as they follow each other, the decoder about a random instant.
    at_random = (stay_prob(fleet.parameters)(np.zeros(fleet.n_clients)) < 1.0).any()
    # So it is with a trace, whose clients are not taken as independent.
    joint = isinstance(fleet, TraceFleet)
    if not at_random and not joint and not np.isclose(error, planned, rtol=1e-6, atol=1e-12):
        raise RuntimeError(f"residual_error must be {planned} as planned; got {error}")
    return PreparedChoice(choice, candidate, decoder, arrivals)


def _key(redundancy: int, schedule: str, code: str, decoder: str, deadline: float) -> tuple[object, ...]:
    return redundancy, schedule, code, decoder, deadline
