"""Clients that go down together, in rounds: what is learnt of them, and that what is decoded with it is unbiased."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from fedgc.strategies.reporting.read_status import run_status
from fedgc.strategies.variance_aware import VarianceAwareFedAdam
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedgc.arrivals import DomainArrivals, IndependentArrivals
from fedgc.assignment import AssignmentConstraints
from fedgc.codes import FractionalRepetition
from fedgc.coherence import KnownCoherence
from fedgc.deadline import FixedDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig, check_config
from fedgc.experiment.runner import run_one
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round import CodedUpdate, FailureDomains, Planning, RoundPlan, RoundState, finish_round, plan_round
from fedgc.round.after.learn_outages import apart_from_outages
from fedgc.round.before.failure_domains import arrivals_with_outages, taken_for_independent
from tests.apps import steady, train
from tests.enumeration import exact_moments

N, N_SITES = 12, 4
SITE = np.arange(N) // 3
PROB = np.array([0.1, 0.4, 0.3, 0.2, 0.5, 0.4, 0.3, 0.3, 0.3, 0.6, 0.1, 0.4])
OUTAGE = np.array([0.2, 0.05, 0.1, 0.15])
TRUTH = DomainArrivals(PROB, SITE, OUTAGE)
ARRAYS = {"w": np.zeros(3)}
AT_SITE = AssignmentConstraints(residency=[(range(s, s + 3), range(s, s + 3)) for s in range(0, N, 3)])


def planning(**options: Any) -> Planning:
    given = {"load": 3, "decoder": OptimalUnbiasedDecoder(), "failure_domains": FailureDomains.named(SITE), **options}
    return Planning(deadline=FixedDeadline(10.0), constraints=AT_SITE, **given)


def start(domains: bool = True) -> RoundState:
    coherence = KnownCoherence(energy=1.0, overlap=0.3)
    outages = OutagePosterior().for_domains(N_SITES) if domains else None
    return RoundState(np.ones(N), ReliabilityPosterior(), coherence, outages=outages)


def reply(plan: RoundPlan, client: int, seconds: float | None = None) -> CodedUpdate:
    shards = plan.code.shards_of(client)
    total = {"w": np.array([shards.sum(), shards.size, 1.0])}
    return CodedUpdate({client: total}, shards, np.ones(shards.size), seconds=seconds)


def bias(plan: RoundPlan) -> NDArray[np.float64]:
    """Return the bias of every shard over all sets of sites that may be heard in the true fleet."""
    silent = OUTAGE + (1.0 - OUTAGE) * np.array([PROB[site == SITE].prod() for site in range(N_SITES)])
    order, mean = SITE[list(plan.node_ids)], np.zeros(N)
    for heard in itertools.product((False, True), repeat=N_SITES):
        weight = np.where(heard, 1.0 - silent, silent).prod()
        mean += weight * plan.decoder.decode(np.array(heard)[order]).coverage
    return mean - 1.0


def play(how: Planning, rounds: int, *, by_times: bool) -> tuple[RoundState, NDArray[np.float64]]:
    """Return what is known after rounds, and the mean bias of those in the second half."""
    state, biases = start(domains=how.failure_domains is not None), []
    for arrived in TRUTH.draw(rounds, np.random.default_rng(7)):
        plan = plan_round(state, range(N), how)
        biases.append(bias(plan))
        seconds = 3.0 if by_times else None
        replies = {client: reply(plan, client, seconds) for client, node in enumerate(plan.node_ids) if arrived[node]}
        state, _ = finish_round(state, plan, replies, arrays=ARRAYS, waited=seconds and 10.0)
    return state, np.mean(biases[rounds // 2 :], axis=0)


def test_with_what_is_true_of_outages_a_plan_is_unbiased_over_all_sets_of_arrivals() -> None:
    outages = replace(OutagePosterior().for_domains(N_SITES), down=np.zeros(N_SITES))
    true = np.stack([OUTAGE, 1.0 - OUTAGE], axis=1)[:, None, :] * np.full((1, 2, 1), 1e12)
    outages = replace(outages, counts=true)
    known = KnownOutcomes(dict(enumerate(PROB)))
    state = replace(start(), outages=outages, reliability=known)
    plan = plan_round(state, range(N), planning())
    assert isinstance(plan.arrivals, DomainArrivals)
    np.testing.assert_allclose(plan.straggle_prob, 1.0 - TRUTH.row_probability[list(plan.node_ids)], rtol=1e-9)
    assert np.abs(bias(plan)).max() < 1e-9
    independent = KnownOutcomes(dict(enumerate(1.0 - TRUTH.row_probability)))
    without = plan_round(
        replace(start(domains=False), reliability=independent), range(N), planning(failure_domains=None)
    )
    assert isinstance(without.arrivals, IndependentArrivals)
    assert np.abs(bias(without)).max() > 0.02
    assert plan.decoder.residual_error is not None
    assert without.decoder.residual_error is not None
    assert plan.decoder.residual_error > 1.5 * without.decoder.residual_error  # which does not know what it loses


class KnownOutcomes(ReliabilityPosterior):
    """Probabilities that are given."""

    def __init__(self, prob: dict[int, float]) -> None:
        super().__init__()
        object.__setattr__(self, "prob", prob)

    def straggle_prob(self, node_ids: Any) -> NDArray[np.float64]:
        prob: dict[int, float] = self.prob  # type: ignore[attr-defined]
        return np.array([prob[node] for node in node_ids])


@pytest.mark.parametrize("by_times", [False, True], ids=["from outcomes", "from times"])
def test_outages_are_learnt_and_take_the_bias_away(by_times: bool) -> None:
    """Once times are seen, blocks go by these, in which outages look like absence; without, by outcomes."""
    state, known = play(planning(reassignment_gain=1.0), 200, by_times=by_times)
    assert state.outages is not None
    assert bool(state.completion_times.priors) == by_times
    found = state.outages.counts[:, 0, 0] / state.outages.counts[:, 0].sum(axis=1)
    own = state.reliability.straggle_prob(range(N))
    _, unknown = play(planning(reassignment_gain=1.0, failure_domains=None), 200, by_times=by_times)
    np.testing.assert_allclose(found, OUTAGE, atol=0.08)
    assert np.abs(own - PROB).mean() < 0.06
    assert np.abs(known).mean() < 0.5 * np.abs(unknown).mean()


def test_one_round_moves_both_posteriors_as_far_as_bayes_rule() -> None:
    """Against the joint posterior of an outage and of two clients' own probabilities, by quadrature."""
    prior = ReliabilityPosterior(3.0, 2.0, conditional=False, forgetting=1.0)
    outages = replace(OutagePosterior((1.0, 5.0), forgetting=1.0).for_domains(1), down=np.zeros(1))
    state = RoundState(np.ones(2), prior, outages=outages)
    how = Planning(load=2, decoder=OptimalUnbiasedDecoder(), failure_domains=FailureDomains.named(["a", "a"]))
    plan = plan_round(state, [7, 8], how)
    o, p, q = np.meshgrid(*[(np.arange(200) + 0.5) / 200] * 3, indexing="ij", sparse=True)
    density = o**0 * (1 - o) ** 4 * p * (1 - p) ** 2 * q * (1 - q) ** 2
    for replies, likelihood in (
        ({}, o + (1 - o) * p * q),
        ({0: reply(plan, 0)}, (1 - o) * (1 - p) * q),
        ({0: reply(plan, 0), 1: reply(plan, 1)}, (1 - o) * (1 - p) * (1 - q)),
    ):
        after, _ = finish_round(state, plan, replies, arrays=ARRAYS)
        weight = density * likelihood
        assert after.outages is not None
        found = after.outages.counts[0, 0]
        assert found[0] / found.sum() == pytest.approx((weight * o).sum() / weight.sum(), rel=2e-4)
        expected = [(weight * one).sum() / weight.sum() for one in (p, q)]
        means = [after.reliability.clients.slow.misses, after.reliability.clients.slow.rounds]
        got = (2.0 + means[0].sum(axis=1)) / (5.0 + means[1].sum(axis=1))
        np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_a_client_that_an_early_end_cut_off_is_half_seen() -> None:
    """It would have come with c; that it was silent until then has the probability (1 - a) / (1 - c)."""
    state = replace(start(), reliability=KnownOutcomes(dict.fromkeys(range(N), 0.4)))
    plan = plan_round(state, range(N), planning())
    at_first = [node for node in plan.node_ids if SITE[node] == 0]
    outcomes: dict[int, bool | float] = {node: node not in at_first for node in plan.node_ids}
    outcomes |= {at_first[0]: 0.4, at_first[1]: False}
    del outcomes[at_first[2]]  # of which nothing is known
    replied = [client for client, node in enumerate(plan.node_ids) if node not in at_first]
    seen, outages = apart_from_outages(state, plan, outcomes, replied)
    assert outages is not None
    assert state.outages is not None
    o = state.outages.outage_prob[0]
    r = o / (o + (1.0 - o) * (0.4 / 0.6) * 0.4)
    assert outages.down.tolist() == pytest.approx([r, 0.0, 0.0, 0.0])
    assert seen == pytest.approx({**outcomes, at_first[0]: r * 0.6 + (1 - r) * 0.4, at_first[1]: r * 0.6})


def test_domains_that_cross_the_blocks_of_a_large_fleet_count_as_independent() -> None:
    code = FractionalRepetition(np.arange(20) // 2, np.arange(10))
    domain = np.r_[0, 0, 1, 2, 1, 2, np.full(14, -1)]
    prob, outage_prob = np.full(20, 0.4), np.array([0.1, 0.2, 0.3])
    assert taken_for_independent(code, domain).tolist() == [1, 2]
    for includes in (False, True):
        model = arrivals_with_outages(code, prob, domain, outage_prob, includes_outages=includes)
        assert isinstance(model, DomainArrivals)
        own = np.where(domain >= 0, outage_prob[domain], 0.0)
        whole = prob if includes else own + (1.0 - own) * prob
        np.testing.assert_allclose(1.0 - model.row_probability, whole, rtol=1e-12)
        assert np.count_nonzero(model.outage_prob) == 1
        silent = np.exp(model.log_silence(code.blocks.of_client, 10))  # type: ignore[arg-type, union-attr]
        up = (0.4 - 0.1) / 0.9 if includes else 0.4
        np.testing.assert_allclose(silent[:2], [0.1 + 0.9 * up**2, whole[2] * whole[3]], rtol=1e-12)
    all_crossing = np.where(domain == 0, -1, domain)
    assert isinstance(
        arrivals_with_outages(code, prob, all_crossing, outage_prob, includes_outages=False), IndependentArrivals
    )
    small = FractionalRepetition([0, 1, 0, 1], [0, 1])
    crossing = arrivals_with_outages(small, prob[:4], np.array([0, 0, 1, 1]), outage_prob, includes_outages=False)
    calibrated = OptimalUnbiasedDecoder().calibrate(small, crossing, GramModel.uniform(2, 0.3))
    assert exact_moments(calibrated, crossing, GramModel.uniform(2, 0.3)).bias < 1e-12


def test_what_outages_explain_altogether_leaves_clients_some_misses() -> None:
    code = FractionalRepetition([0, 0], [0])
    model = arrivals_with_outages(
        code, np.full(2, 0.05), np.zeros(2, dtype=np.intp), np.array([0.3]), includes_outages=True
    )
    assert isinstance(model, DomainArrivals)
    np.testing.assert_allclose(model.straggle_prob, 1e-3)


def test_nodes_that_are_not_named_are_in_no_domain() -> None:
    domains = FailureDomains.named(["a", "a", "b", "b"])
    assert domains.for_nodes((7, None, 8, 9), [9, 7, 5]).of_client.tolist() == [1, 0, -1]
    how = Planning(load=1, decoder=OptimalUnbiasedDecoder(), failure_domains=domains, nodes=(7, None, 8, 9))
    plan = plan_round(RoundState(np.ones(4), outages=OutagePosterior().for_domains(2)), [9, 7, 5], how)
    assert plan.node_ids == (5, 7, 9)
    assert plan.domain is not None
    assert plan.domain.tolist() == [-1, 0, 1]
    with pytest.raises(ValueError, match="failure_domains must be of the 2 nodes; got 4"):
        plan_round(RoundState(np.ones(4)), [1, 2], replace(how, nodes=None))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"failure_domains": "ab"}, "failure_domains must be one label for each client; got 'ab'"),
    ({"failure_domains": [["a"], ["a"]]}, "failure_domains must be labels, numbers or names say; got"),
    ({"failure_domains": ["a", "b", None, None]}, "failure_domains must have a label that two clients share; got"),
    ({"failure_domains": [0, 0], "schedule": "work-list"}, "failure_domains must be left out for schedule 'work-list'"),
    (
        {"failure_domains": [0, 0], "decoder": "fixed"},
        "failure_domains must be left out unless decoder is 'optimal-unb",
    ),
    (
        {"failure_domains": [0, 0], "memory": True},
        "failure_domains must be left out unless decoder is .* 'least-squares'",
    ),
    ({"failure_domains": [0, 0], "max_weight": 4.0}, "failure_domains must be left out unless decoder is"),
    ({"failure_domains": [0, 0], "code": "scheme-II"}, "failure_domains must be left out for a code that says itself"),
    ({"failure_domains": [0, 0], "outages": 0.1}, "outages must be an OutagePosterior; got 0.1"),
    ({"outages": OutagePosterior()}, "outages must be left out without failure_domains"),
    (
        {"failure_domains": [0, 0], "outages": OutagePosterior().for_domains(2)},
        "outages must be of at most 1 failure_domains; got 2",
    ),
    (
        {"failure_domains": [0, 0], "constraints": AssignmentConstraints(storage=[9, 9, 9])},
        r"constraints and failure_domains must be about the same clients; got \[2, 3\] of them",
    ),
    (
        {"failure_domains": [0, 0], "strategy": VarianceAwareFedAdam(second_moment="subtract")},
        "second_moment must be 'scale' or 'second-track' where failure_domains are given; got 'subtract'",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(k) for k in range(len(BAD))])
def test_what_cannot_be_is_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        GradientCoding(**{"num_shards": 6, "deadline": 5.0, **options})
    assert "\n" not in str(told.value)


def site_fleet(**settings: Any) -> Any:
    groups = {"site": [0, 0, 0, 1, 1, 1], "outage_fraction": 0.3, "outage_seconds": 5.0, "dropout": 0.2}
    return build_fleet({"model": "log-normal", "clients": 6, "sigma": 0.0, **groups, **settings}, seed=3)


def test_a_run_learns_of_outages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flwr.fedgc")
    at_site = AssignmentConstraints(residency=[([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5])])
    inner = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    strategy = GradientCoding(
        FedAvg(**inner),
        num_shards=6,
        deadline=5.0,
        load=3,
        constraints=at_site,
        failure_domains=["a", "a", "a", "b", "b", "b"],
    )
    train(strategy, site_fleet(), rounds=60)
    known = strategy.state.outages
    assert known is not None
    stationary = known.counts[:, 0, 0] / known.counts[:, 0].sum(axis=1)
    assert (stationary > 0.1).all()
    plan = strategy.state.plan
    assert plan is not None
    assert np.median(strategy.state.reliability.straggle_prob(plan.everyone)) < 0.35
    assert isinstance(plan.arrivals, DomainArrivals)
    assert plan.code.blocks is not None
    status = run_status(strategy)
    silence = plan.arrivals.log_silence(plan.code.blocks.of_client, 2)
    assert silence is not None
    assert [block.silence_prob for block in status.blocks] == pytest.approx(np.exp(silence).tolist())
    assert "failure domains" not in caplog.text
    again = GradientCoding(num_shards=6, deadline=5.0, failure_domains=["a", "a", "a", "b", "b", "b"], outages=known)
    assert again.state.outages is known


def test_that_domains_cross_blocks_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flwr.fedgc")
    inner = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    strategy = GradientCoding(FedAvg(**inner), num_shards=6, deadline=5.0, load=6, failure_domains=np.arange(18) // 6)
    train(strategy, steady(18))
    assert "3 of 3 failure domains have clients in several blocks, which count as independent" in caplog.text


SITES = {"model": "log-normal", "clients": 6, "sigma": 0.0, "site": [0, 0, 0, 1, 1, 1]}


def config(own: dict[str, Any], fleet: dict[str, Any]) -> ExperimentConfig:
    strategy = {"kind": "gradient-coding", "label": "x", "deadline": 9.0, "load": 3, **own}
    task = {"name": "digits-regression", "shards": 6}
    return check_config(
        {"name": "x", "rounds": 8, "seeds": [1], "fleet": fleet, "task": task, "strategies": [strategy]}
    )


def test_an_experiment_heeds_the_sites_of_its_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[GradientCoding] = []
    original = GradientCoding.start

    def noting(self: GradientCoding, *given: Any, **options: Any) -> Any:
        ran.append(self)
        return original(self, *given, **options)

    monkeypatch.setattr(GradientCoding, "start", noting)
    both = config({"failure_domains": "site", "residency": "site"}, SITES)
    run_one(both, both.strategies[0], 1, lambda row: None)
    plan = ran[0].state.plan
    assert plan is not None
    assert plan.domain is not None
    assert plan.code.blocks is not None
    assert plan.domain.tolist() == [0, 0, 0, 1, 1, 1]
    assert isinstance(plan.arrivals, DomainArrivals)
    for client, domain in enumerate(plan.domain.tolist()):
        assert set(plan.code.shards_of(client) // 3) == {domain}


@pytest.mark.parametrize(
    ("own", "fleet", "message"),
    [
        ({"failure_domains": "rack"}, SITES, "strategies.0.failure_domains must be 'site'"),
        (
            {"failure_domains": "site"},
            {**SITES, "site": -1},
            "failure_domains must have a label that two clients share",
        ),
        ({"failure_domains": "site", "schedule": "work-list"}, SITES, "failure_domains must be left out for schedule"),
        ({"failure_domains": "site", "decoder": "fixed"}, SITES, "failure_domains must be left out unless decoder is"),
        ({"failure_domains": "site", "max_weight": 3.0}, SITES, "max_weight must be left out with failure_domains"),
        ({"failure_domains": "site", "code": "scheme-II"}, SITES, "failure_domains must be left out for a code"),
        ({"residency": "site", "code": "scheme-II"}, SITES, "residency must be left out for a code that says itself"),
        ({"residency": "site"}, {**SITES, "site": [0, 0, 0, 1, 1, -1]}, "each client has a site; got none for 5"),
        ({"residency": "site"}, {**SITES, "clients": 7, "site": range(7)}, "with fewer shards than sites; got 6 and 7"),
    ],
)
def test_sites_that_make_no_sense_are_told(own: dict[str, Any], fleet: dict[str, Any], message: str) -> None:
    fleet = {**fleet, "site": list(fleet["site"]) if isinstance(fleet["site"], range) else fleet["site"]}
    with pytest.raises(ConfigError) as told:
        config(own, fleet)
    assert message in str(told.value)
    assert str(told.value).startswith("strategies.0.")
