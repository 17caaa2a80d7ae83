"""The codes and decoders that a plan chooses from, at one deadline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import Assignment, AssignmentConstraints, assign, longest_list, own_part, with_backups
from fedgc.codes import Code
from fedgc.decoders import DECODERS, Decoder, OptimalUnbiasedDecoder
from fedgc.fleets import Fleet
from fedgc.planning.choice import BLOCK_CODES, Choice
from fedgc.schemes import SCHEMES

#: Blocks with more states are calibrated on random ones: a plan compares choices to a per cent, not to 1e-10.
_MOST_STATES = 4096
#: Decoders of blocks. On whole blocks `fixed-aligned` and `fixed-general` are `fixed`; work lists they do not know, nor
#: does `inverse-probability`.
_BLOCK_DECODERS = {
    "full": ("optimal-unbiased", "fixed", "inverse-probability"),
    "work-list": ("optimal-unbiased", "fixed"),
}
#: Decoders of codes without blocks, whatever their own is; for orthogonal updates both are the same. `fixed-aligned` is
#: left out: with the Gram model that a plan assumes, `fixed-general` is never worse.
_FREE_DECODERS = ("fixed", "fixed-general")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A code and a decoder, ready to be forecast.

    Attributes
    ----------
    redundancy : int
        Clients that are asked to hold each shard; codes that vary it hold as many in the mean, to the nearest integer.
    schedule, name, decoder_name : str
        "full" or "work-list", and the names of code and decoder.
    code : Code
        The code, over units of `unit` shards.
    decoder : Decoder
        The decoder.
    clients : ndarray of int, shape (code.n_clients,)
        The fleet's clients that take part.
    unit : int
        Shards that one column of the code stands for.
    held : set of (int, int)
        Client and column of every copy.
    n_clients : int
        Number of clients in the fleet.
    """

    redundancy: int
    schedule: str
    name: str
    decoder_name: str
    code: Code
    decoder: Decoder
    clients: NDArray[np.intp]
    unit: int
    held: frozenset[tuple[int, int]]
    n_clients: int

    @property
    def shards_moved(self) -> int:
        """Copies that are not where an equal part of the shards, in order, would have them."""
        parts = [own_part(client, self.n_clients, self.code.n_shards) for client in range(self.n_clients)]
        own = {(client, shard) for client, part in enumerate(parts) for shard in part}
        return self.unit * len(self.held - own)


def candidates(
    fleet: Fleet,
    deadline: float,
    *,
    n_shards: int,
    redundancies: Sequence[int],
    constraints: AssignmentConstraints | None = None,
    schemes: bool = True,
    coherence: float = 0.0,
    server_round: int = 0,
    skip: Collection[tuple[int, str]] = (),
) -> Iterator[Candidate]:
    """Yield what can be run on a fleet with a deadline.

    Parameters
    ----------
    fleet : Fleet
        The clients.
    deadline : float
        Seconds.
    n_shards : int
        Number of shards.
    redundancies : sequence of int
        Numbers of holders per shard.
    constraints : AssignmentConstraints, optional
        Limits of the clients.
    schemes : bool
        Whether to include the codes of the literature, which give every client as many shards as any other. They know
        no constraints and are left out where there are some, and where :func:`fits_schemes` says that the shards
        cannot be dealt out evenly.
    coherence : float
        rho in ``G = rho 11' + (1 - rho) I``: where it is 0, decoders that only differ elsewhere are yielded once.
    server_round : int
        Round, for fleets that change.
    skip : collection of (int, str)
        Numbers of holders and schedules of blocks that are not wanted.

    Notes
    -----
    Biased decoders are left out: their error does not average out over the rounds, and no time to target follows from
    the error of one round.
    """
    for holders in redundancies:
        for schedule in ("work-list", "full"):
            if (holders, schedule) in skip:
                continue
            assignment = _assignment(
                fleet,
                deadline,
                n_shards,
                holders=holders,
                schedule=schedule,
                constraints=constraints,
                server_round=server_round,
            )
            if not np.isfinite(assignment.residual_error):
                continue
            code, active = assignment.code()
            held = frozenset(divmod(int(copy), n_shards) for copy in assignment.holdings())
            label = BLOCK_CODES[schedule == "full"]
            for name in _BLOCK_DECODERS[schedule]:
                optimal = name == OptimalUnbiasedDecoder.name
                decoder = OptimalUnbiasedDecoder(most_states=_MOST_STATES) if optimal else DECODERS[name]()
                yield Candidate(holders, schedule, label, name, code, decoder, active, 1, held, fleet.n_clients)
        if schemes and constraints is None and fits_schemes(fleet, n_shards):
            yield from _schemes(fleet, deadline, n_shards, holders, coherence=coherence, server_round=server_round)


def fits_schemes(fleet: Fleet, n_shards: int) -> bool:
    """Return whether the literature's codes, which have a column per client, can be run: columns of whole shards.

    Columns that differ by a shard would need weights that know it, which the codes do not define.
    """
    return n_shards % fleet.n_clients == 0


def constraints_of(fleet: Fleet) -> AssignmentConstraints | None:
    """Return the limits that a fleet states: storage, computation, and sites as failure domains; None if none.

    Errors call them as fleet files do: storage, computation, site.
    """
    storage, computation, site = (fleet.limits[name] for name in ("storage", "computation", "site"))
    if storage is None and computation is None and site is None:
        return None
    # Infinity is no integer, and nobody holds more shards than there can be; clients without a site share none.
    whole = [None if v is None else np.minimum(v, 2**40).astype(np.intp) for v in (storage, computation)]
    domain = None if site is None else np.where(site < 0, -2.0 - np.arange(site.size), site)
    return AssignmentConstraints(storage=whole[0], computation=whole[1], domain=domain, domain_name="site")


def recommended_assignment(
    fleet: Fleet,
    choice: Choice,
    n_shards: int,
    constraints: AssignmentConstraints | None = None,
    server_round: int = 0,
) -> Assignment | None:
    """Return the blocks and work lists of a choice, None for a code that is not made from blocks."""
    if choice.code not in BLOCK_CODES:
        return None
    return _assignment(
        fleet,
        choice.deadline,
        n_shards,
        holders=choice.redundancy,
        schedule=choice.schedule,
        constraints=constraints,
        server_round=server_round,
    )


def _assignment(
    fleet: Fleet,
    deadline: float,
    n_shards: int,
    *,
    holders: int,
    schedule: str,
    constraints: AssignmentConstraints | None,
    server_round: int,
) -> Assignment:
    reach = fleet.reach(deadline, longest_list(n_shards, fleet.n_clients, holders), server_round=server_round)
    found = assign(reach, n_shards, holders=holders, schedule=schedule, constraints=constraints, rng=0)
    # With one holder there are no backups: they would be redundancy, in what redundancy is compared with.
    return found if constraints is not None or holders == 1 else with_backups(found, reach)


def _schemes(
    fleet: Fleet, deadline: float, n_shards: int, holders: int, *, coherence: float, server_round: int
) -> Iterator[Candidate]:
    """Yield the literature's codes with unbiased decoders, whose shards are as many as the clients."""
    unit, every = n_shards // fleet.n_clients, np.arange(fleet.n_clients)
    prob = fleet.straggle_prob(deadline, holders * unit, server_round=server_round)
    if (prob >= 1.0).any():
        return
    built: set[str] = set()
    for scheme in SCHEMES:
        fixed_load = {"uncoded": 1, "scheme-I": 2, "scheme-II": 2}.get(scheme.name, holders)
        # With one holder all others are the uncoded one, under another name; codes of blocks are formed for the fleet.
        if fixed_load != holders or (holders == 1) != (scheme.name == "uncoded") or scheme.name in built:
            continue
        try:
            code = scheme.build(prob, holders, np.random.default_rng(0))
        except ValueError:
            continue  # does not exist for this size
        if code.blocks is not None and holders > 1:
            continue
        built.add(scheme.name)
        held = frozenset((c, int(s)) for c in range(code.n_clients) for s in code.shards_of(c))
        # Where all clients are alike, coefficients of schemes I and II are zero, and shards have one holder: that is no
        # code of this redundancy, nor one that a plan may compare with where one holder was not asked for.
        if round(len(held) / code.n_shards) != holders:
            continue
        own = (scheme.decoder,) if DECODERS[scheme.decoder].unbiased else ()
        free = _FREE_DECODERS if coherence > 0.0 else _FREE_DECODERS[:1]
        for name in own if holders == 1 else (*own, *free):
            yield Candidate(
                holders, "full", scheme.name, name, code, DECODERS[name](), every, unit, held, fleet.n_clients
            )
