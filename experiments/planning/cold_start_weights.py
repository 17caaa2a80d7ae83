"""What happens on a fleet, what each rule believes of it, and the weights and the bias that come of this."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedgc.assignment import fractional_repetition_blocks
from fedgc.calibration.quadrature import exponential_nodes
from fedgc.codes import Code
from fedgc.decoders import DECODERS
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import GramModel
from fedgc.reliability import ReliabilityPosterior

Vector = NDArray[np.float64]

N_CLIENTS, N_SHARDS, LOAD = 50, 50, 2
LONGEST = 180
#: Deadline in seconds, or the share of the clients' rounds that shall miss it.
FLEETS = {"paper": {"deadline": 1.5}, "lambda": {"missed": 0.22}, "phones": {"missed": 0.3}}
#: Part of the predicted residual error that new blocks must save to be formed, as in fedgc.round.Planning.
REASSIGNMENT_GAIN = 0.2


class Rule(NamedTuple):
    """Which probabilities the decoder is calibrated with, and who is paired with whom.

    Attributes
    ----------
    prob : str
        known: stationary; conditional: given all earlier outcomes; estimated: learnt; bayes: learnt by someone who
        knows how the paper's fleet was drawn; ignoring: none, what came is added up.
    pairs : str
        truth: balanced by the stationary probabilities; own: balanced by the rule's own, and formed anew when that
        pays; blind: as they come, which is where every run without knowledge has to begin.
    """

    prob: str
    pairs: str


@cache
def deadline_of(name: str) -> float:
    """Return the deadline in seconds, the same for every seed: that of a large fleet."""
    if "deadline" in FLEETS[name]:
        return FLEETS[name]["deadline"]
    large = build_fleet({"preset": name, "clients": 4000}, seed=0)
    return float(brentq(lambda t: large.straggle_prob(t, LOAD).mean() - FLEETS[name]["missed"], 0.1, 1e3, xtol=1e-4))


@dataclass(frozen=True)
class Draws:
    """One fleet's rounds: arrivals, and by name what is believed before each; (n_rounds, n_clients) each."""

    name: str
    seed: int

    @cached_property
    def fleet(self) -> Fleet:
        """The fleet."""
        return build_fleet({"preset": self.name, "clients": N_CLIENTS}, seed=self.seed)

    @cached_property
    def arrived(self) -> NDArray[np.bool_]:
        """Who came in each round."""
        time, last = self.fleet.completion_time, deadline_of(self.name)
        return np.array([[time(i, t, LOAD) <= last for i in range(N_CLIENTS)] for t in range(LONGEST)])

    @cached_property
    def known(self) -> Vector:
        """Stationary probabilities."""
        return np.tile(self.fleet.straggle_prob(deadline_of(self.name), LOAD), (LONGEST, 1))

    @cached_property
    def estimated(self) -> Vector:
        """Estimates from the rounds before."""
        result, posterior = np.empty((LONGEST, N_CLIENTS)), ReliabilityPosterior()
        for t, came in enumerate(self.arrived):
            result[t] = posterior.straggle_prob(range(N_CLIENTS))
            posterior = posterior.update(dict(enumerate(came.tolist())))
        return result

    @cached_property
    def bayes(self) -> Vector:
        """Posterior means with the prior that the paper's fleet is drawn from, psi ~ U(0.1, 2): none can do better."""
        prob = np.exp(-np.linspace(0.1, 2.0, 401) * (deadline_of(self.name) - 1.0))
        misses = np.cumsum(~self.arrived, axis=0) - ~self.arrived
        arrivals = np.arange(LONGEST)[:, None] - misses
        log_weight = misses[..., None] * np.log(prob) + arrivals[..., None] * np.log1p(-prob)
        weight = np.exp(log_weight - log_weight.max(axis=-1, keepdims=True))
        return (weight @ prob) / weight.sum(axis=-1)

    @cached_property
    def conditional(self) -> Vector:
        """Probability to miss given all earlier outcomes, by the forward filter.

        Exact: absence and slowness are chains that copy their last state or draw it anew, so that absent/there x
        slow/not are four hidden states, and given these the outcomes are independent.
        """
        fleet, deadline = self.fleet, deadline_of(self.name)
        own = fleet.parameters
        missed, chains = [], []
        for slow in (0.0, 1.0):
            there = type(fleet)(fleet.n_clients, seed=fleet.seed, **{**own, "dropout": 0.0, "slow_prob": slow})
            missed.append(there.straggle_prob(deadline, LOAD))
        miss = np.stack([*missed, *(np.ones(fleet.n_clients),) * 2], axis=1)
        for prob, persistence in (("dropout", "dropout_persistence"), ("slow_prob", "slow_persistence")):
            stationary, again = np.stack([1.0 - own[prob], own[prob]], axis=1), own[persistence][:, None, None]
            chains.append(again * np.eye(2) + (1.0 - again) * stationary[:, None, :])
        start = np.einsum("ia,is->ias", *(np.stack([1.0 - own[p], own[p]], axis=1) for p in ("dropout", "slow_prob")))
        state = start.reshape(-1, 4)
        result = np.empty(self.arrived.shape)
        for t, came in enumerate(self.arrived):
            result[t] = (state * miss).sum(axis=1)
            state = state * np.where(came[:, None], 1.0 - miss, miss)
            state /= state.sum(axis=1, keepdims=True)
            state = np.einsum("ias,iab,isc->ibc", state.reshape(-1, 2, 2), *chains).reshape(-1, 4)
        return result


@dataclass
class Weights:
    """A rule on the rounds of one fleet, played as far as is asked for: each round's blocks, coverage and target."""

    draws: Draws
    rule: Rule
    gram: GramModel
    codes: list[Code] = field(default_factory=list)
    covered: list[Vector] = field(default_factory=list)
    #: The coverage if all came.
    target: list[Vector] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look up what the rule believes."""
        ignoring = self.rule.prob == "ignoring"
        self.decoder = DECODERS["first-arrival" if ignoring else "optimal-unbiased"]()
        self.prob: Vector = self.draws.known if ignoring else getattr(self.draws, self.rule.prob)
        first = {"truth": self.draws.known[0], "own": self.prob[0], "blind": np.full(N_CLIENTS, 0.5)}[self.rule.pairs]
        self.code: Code = fractional_repetition_blocks(first, N_SHARDS, LOAD)
        self.calibrated = self.decoder.calibrate(self.code, self.prob[0], self.gram)

    def coverage(self, server_round: int) -> Vector:
        """Return the coverage of a round, (n_shards,)."""
        for t in range(len(self.covered), server_round + 1):
            prob = self.prob[t]
            if t > 0 and (prob != self.prob[t - 1]).any():
                self.calibrated = self.decoder.calibrate(self.code, prob, self.gram)
                if self.rule.pairs == "own":
                    self._form_blocks(prob)
            self.codes.append(self.code)
            self.covered.append(self.calibrated.decode(self.draws.arrived[t]).coverage)
            self.target.append(self.calibrated.decode(np.ones(N_CLIENTS, dtype=bool)).coverage)
        return self.covered[server_round]

    def _form_blocks(self, prob: Vector) -> None:
        """Form the blocks anew if the residual error that this predicts is enough lower."""
        code = fractional_repetition_blocks(prob, N_SHARDS, LOAD)
        calibrated = self.decoder.calibrate(code, prob, self.gram)
        if calibrated.residual_error < (1.0 - REASSIGNMENT_GAIN) * self.calibrated.residual_error:
            self.code, self.calibrated = code, calibrated

    def bias(self, truth: str, rounds: int) -> Vector:
        """Return E[v] - 1 of each round if clients miss with the probabilities `truth`, exactly, (rounds, n_shards).

        With t the coverage when everything comes, ``E[v_g] = q_g t_g + (r_g / d_g) sum over h != g of r_h t_h E[g came,
        h missing, 1 / (1 + X)]``, where X sums ``x_g = r_g^2 / d_g`` over what came, and 1 / (1 + X) is an integral
        over exp(-s (1 + X)), whose expectation is a product over the blocks.
        """
        self.coverage(rounds - 1)
        _, of_shard, n_blocks = self.code.blocks
        merged = self.gram.merge(of_shard, n_blocks)
        d, r = merged.incoherent, merged.coherent
        first = np.unique(of_shard, return_index=True)[1]
        s, weight = exponential_nodes(float((r**2 / d).sum()))
        fade = np.exp(-np.outer(s, r**2 / d))
        result = np.empty((rounds, n_blocks))
        for t, prob in enumerate(getattr(self.draws, truth)[:rounds]):
            p = np.ones(n_blocks)
            np.multiply.at(p, self.codes[t].blocks.of_client, prob)
            of_block = self.target[t][first]
            if self.rule.prob == "ignoring":
                result[t] = -p
                continue
            phi = p + (1.0 - p) * fade
            came, missing = (r / d) * (1.0 - p) * fade / phi, r * p / phi
            pairs = np.einsum("k,kg,kh->gh", weight * np.exp(-s) * phi.prod(axis=1), came, missing, optimize=True)
            np.fill_diagonal(pairs, 0.0)
            result[t] = (1.0 - p) * of_block + pairs @ of_block - 1.0
        return result[:, of_shard]
