"""The options that a run starts from: what earlier ones have learnt, and where past updates are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.coherence import CoherenceEstimate
from fedgc.memory import MemoryStore, UpdateMemory
from fedgc.noise import NoiseSensitivity
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round import Planning, RoundState


def first_state(  # noqa: PLR0917  (what a state begins with)
    sizes: NDArray[np.float64],
    reliability: ReliabilityPosterior | None,
    coherence: CoherenceEstimate | None,
    memory: bool | MemoryStore,
    planning: Planning,
    outages: OutagePosterior | None = None,
) -> RoundState:
    """Return what a first round is planned from: what is given, and else the priors.

    Raises
    ------
    ValueError
        If one of them is something else than its option must be.
    """
    if not isinstance(reliability, ReliabilityPosterior | None):
        raise ValueError(f"reliability must be a ReliabilityPosterior; got {reliability!r}")
    if not isinstance(outages, OutagePosterior | None):
        raise ValueError(f"outages must be an OutagePosterior; got {outages!r:.80}")
    domains = planning.failure_domains
    if outages is not None and domains is None:
        raise ValueError("outages must be left out without failure_domains, whose they are; got some")
    if outages is not None and domains is not None and outages.down.size > domains.n_domains:
        raise ValueError(f"outages must be of at most {domains.n_domains} failure_domains; got {outages.down.size}")
    if not isinstance(coherence, CoherenceEstimate | None):
        raise ValueError(f"coherence must be a CoherenceEstimate; got {coherence!r:.80}")
    if not isinstance(memory, bool | MemoryStore):
        raise ValueError(f"memory must be True, False or a MemoryStore; got {memory!r:.80}")
    rule = planning.deadline
    store = memory if isinstance(memory, MemoryStore) else MemoryStore()
    return RoundState(
        sizes,
        reliability or ReliabilityPosterior(),
        coherence if coherence is not None else CoherenceEstimate(),
        memory=UpdateMemory.empty(sizes.size, store) if memory else None,
        noise=NoiseSensitivity() if rule is not None and rule.learns_noise else None,
        outages=None if domains is None else (outages or OutagePosterior()).for_domains(domains.n_domains),
    )
