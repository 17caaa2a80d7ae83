"""Forecasts of round time, arrivals and residual error against closed forms and enumeration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from fedgc.arrivals import IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, CyclicRepetition, FractionalRepetition, StochasticGradientCode, Uncoded, WorkLists
from fedgc.decoders import (
    Decoder,
    FixedDecoder,
    InverseProbabilityDecoder,
    LeastSquaresDecoder,
    OptimalUnbiasedDecoder,
    SumDecoder,
)
from fedgc.fleets import LogNormalFleet, build_fleet
from fedgc.forecast import arrivals_by_deadline, forecast_round, work_of
from fedgc.gram import GramModel
from fedgc.planning.timing import AtRound
from fedgc.play import RoundDraws, play_rounds
from tests.enumeration import exact_moments

#: Instants of the quadrature over the deadline: what happens on their boundaries is integrated exactly.
INSTANTS = 32


def steady(*medians: float, dropout: Any = 0.0) -> LogNormalFleet:
    """Clients whose shards take the same seconds each time."""
    return LogNormalFleet(len(medians), seed=1, sigma=0.0, median=list(medians), dropout=dropout)


def test_whole_blocks_arrive_if_all_of_them_is_done() -> None:
    code = FractionalRepetition([0, 1, 1], [0, 0, 1])
    reach = np.array([[1.0, 0.9, 0.7], [1.0, 0.5, 0.2], [1.0, 0.0, 0.0]])
    model = arrivals_by_deadline(code, reach)
    assert work_of(code).tolist() == [2, 1, 1]
    assert isinstance(model, IndependentArrivals)
    np.testing.assert_allclose(model.row_probability, [0.7, 0.5, 0.0], atol=1e-11)


def test_work_lists_arrive_as_far_as_they_are_done() -> None:
    code = WorkLists([[0, 1, 2], [2, 1]], 3)
    reach = np.array([[1.0, 0.9, 0.7, 0.1], [1.0, 0.6, 0.2, 0.15]])
    model = arrivals_by_deadline(code, reach)
    assert isinstance(model, ProgressArrivals)
    # A row per place; with one shard per segment a row comes if that many shards are done.
    np.testing.assert_allclose(model.row_probability, [0.9 - 0.7, 0.7 - 0.1, 0.1, 0.6 - 0.2, 0.2], atol=1e-15)
    apart = WorkLists([[[0], [1], [2]], [[2], [1]]], 3)
    np.testing.assert_allclose(arrivals_by_deadline(apart, reach).row_probability, [0.9, 0.7, 0.1, 0.6, 0.2])


@pytest.mark.parametrize("p", [0.0, 0.25, 0.7])
def test_a_pair_of_steady_clients(p: float) -> None:
    """The first is done after 1 s unless it is away, the second after 2 s: the round takes 1 + p seconds."""
    fleet = steady(1.0, 2.0, dropout=[p, 0.0])
    code = FractionalRepetition([0, 0], [0])
    forecast = forecast_round(fleet, code, OptimalUnbiasedDecoder(), GramModel.uniform(1, 0.0), 3.2)
    assert forecast.round.round_time == pytest.approx(1.0 + p, abs=1e-9)
    assert forecast.round.arrivals == pytest.approx(2.0 - p)
    assert forecast.round.residual_error == pytest.approx(0.0, abs=1e-11)
    late = forecast_round(fleet, code, OptimalUnbiasedDecoder(), GramModel.uniform(1, 0.0), 3.2, early_end=False)
    assert late.round.round_time == 3.2
    assert late.round.arrivals == forecast.round.arrivals
    assert late.round.residual_error == forecast.round.residual_error


@pytest.mark.parametrize("deadline", [3.2, 40.0, 500.0, 1e5])
def test_a_deadline_far_beyond_what_is_needed_does_not_hide_when_rounds_end(deadline: float) -> None:
    """With p = 0.3 the first ends rounds after 1 s, else the second after 2 s.

    A jump lies somewhere in an interval of at most an eighth of its instant, of which the middle is taken: half of
    that, 6 %, may be wrong where times do not vary, and far less where they do.
    """
    fleet = steady(1.0, 2.0, dropout=[0.3, 0.0])
    code = FractionalRepetition([0, 0], [0])
    found = forecast_round(fleet, code, OptimalUnbiasedDecoder(), GramModel.uniform(1, 0.0), deadline).round
    assert found.round_time == pytest.approx(1.3, rel=0.06)
    noisy = LogNormalFleet(2, seed=1, median=[1.0, 2.0], sigma=0.3)
    alone = FractionalRepetition([0, 1], [0, 1])
    exact, _ = quad(lambda t: 1 - np.prod(stats.lognorm.cdf(t, 0.3, scale=[1.0, 2.0])), 0.0, min(deadline, 50.0))
    found = forecast_round(noisy, alone, OptimalUnbiasedDecoder(), GramModel.uniform(2, 0.0), deadline).round
    assert found.round_time == pytest.approx(exact, rel=0.02)


def test_a_pair_of_work_lists() -> None:
    """By 3.2 s the first has done both shards unless it is away, the second only shard 1."""
    p = 0.3
    fleet = steady(1.0, 2.0, dropout=[p, 0.0])
    code = WorkLists([[[0], [1]], [[1], [0]]], 2)
    found = forecast_round(fleet, code, OptimalUnbiasedDecoder(), GramModel.uniform(2, 0.0), 3.2).round
    assert found.round_time == pytest.approx(3.2 - (1 - p) * 1.2, abs=1e-9)  # ends when the first replies, after 2 s
    assert found.arrivals == pytest.approx(2.0 - p)
    assert found.residual_error == pytest.approx(p / (1 - p) / 2)


def test_lists_that_end_before_their_block_wait_for_everyone() -> None:
    fleet = steady(1.0, 2.0)
    code = WorkLists([[[0], [1]], [[1], [2]]], 3)
    found = forecast_round(fleet, code, OptimalUnbiasedDecoder(), GramModel.uniform(3, 0.0), 6.4).round
    assert (found.round_time, found.residual_error) == (pytest.approx(4.0, abs=1e-9), pytest.approx(0.0, abs=1e-12))


MEDIANS, SIGMAS, DROPOUTS = [1.0, 1.5, 0.8], [0.3, 0.5, 0.4], [0.1, 0.3, 0.05]
NOISY = LogNormalFleet(3, seed=1, median=MEDIANS, sigma=SIGMAS, dropout=DROPOUTS)


def answered_by(t: float, load: NDArray[np.intp]) -> NDArray[np.float64]:
    return (1 - np.array(DROPOUTS)) * stats.lognorm.cdf(t, SIGMAS, scale=load * np.array(MEDIANS))


def pairs_settled(done: NDArray[np.float64]) -> float:
    return float((1 - (1 - done[0]) * (1 - done[1])) * done[2])


def all_settled(done: NDArray[np.float64]) -> float:
    return float(done.prod())


CASES: dict[str, tuple[Code, Decoder, Any]] = {
    "blocks": (FractionalRepetition([0, 0, 1], [0, 0, 1]), OptimalUnbiasedDecoder(), pairs_settled),
    "work lists": (WorkLists([[[0], [1]], [[1], [0]], [[2]]], 3), OptimalUnbiasedDecoder(), pairs_settled),
    "every copy counts": (FractionalRepetition([0, 0, 1], [0, 0, 1]), FixedDecoder(), all_settled),
    "no redundancy": (Uncoded(3, 3), InverseProbabilityDecoder(), all_settled),
}


@pytest.mark.parametrize("deadline", [2.0, 5.0])
@pytest.mark.parametrize(("code", "decoder", "settled"), CASES.values(), ids=CASES)
def test_the_mean_round_time_is_its_integral(code: Code, decoder: Decoder, settled: Any, deadline: float) -> None:
    work = work_of(code)
    integral, _ = quad(lambda t: settled(answered_by(t, work)), 0.0, deadline)
    forecast = forecast_round(NOISY, code, decoder, GramModel.uniform(3, 0.2), deadline)
    assert forecast.decoder is not None
    # The midpoint rule over 32 steps of a distribution function, at worst half a step where it jumps; it is smooth.
    assert forecast.round.round_time == pytest.approx(deadline - integral, abs=0.05 * deadline / (2 * INSTANTS))
    unended = forecast_round(NOISY, code, decoder, GramModel.uniform(3, 0.2), deadline, early_end=False)
    assert unended.round.round_time == deadline > forecast.round.round_time
    arrivals = answered_by(deadline, np.ones(3, dtype=np.intp) if isinstance(code, WorkLists) else work).sum()
    assert forecast.round.arrivals == pytest.approx(arrivals, rel=1e-9)


@pytest.mark.parametrize("coherence", [0.0, 0.6])
@pytest.mark.parametrize(("code", "decoder", "settled"), CASES.values(), ids=CASES)
def test_the_residual_error_is_the_decoders_and_that_of_enumeration(
    code: Code, decoder: Decoder, settled: Any, coherence: float
) -> None:
    gram = GramModel.uniform(3, coherence)
    forecast = forecast_round(NOISY, code, decoder, gram, 2.5)
    model = arrivals_by_deadline(code, NOISY.reach(2.5, 2))
    assert forecast.decoder is not None
    assert forecast.round.residual_error == decoder.calibrate(code, model, gram).residual_error
    moments = exact_moments(forecast.decoder, model, gram)
    assert moments.bias < 1e-10
    assert forecast.round.residual_error == pytest.approx(moments.residual_error, rel=1e-9)


def test_codes_without_blocks_end_by_random_rounds() -> None:
    """Any two of three clients have all shards, so that the round ends with the second of them."""
    code = CyclicRepetition(3, 1, rng=np.random.default_rng(0))
    fleet = LogNormalFleet(3, seed=1, sigma=0.4)
    found = forecast_round(fleet, code, LeastSquaresDecoder(), GramModel.uniform(3, 0.0), 6.0)
    one = stats.lognorm(0.4, scale=2.0)

    def not_yet(t: float) -> float:
        return float(stats.binom.cdf(1, 3, one.cdf(t)))

    mean, square = (quad(lambda t, k=k: k * t ** (k - 1) * not_yet(t), 0.0, 6.0)[0] for k in (1, 2))
    # z = 4.5 standard errors of the mean of 64 rounds, and half a step of the instants.
    error = 4.5 * np.sqrt((square - mean**2) / 64) + 6.0 / (2 * INSTANTS)
    assert abs(found.round.round_time - mean) <= error
    assert error < 0.5


IMPOSSIBLE: dict[str, tuple[Code, Decoder]] = {
    "blocks": (FractionalRepetition([0, 0, 1], [0, 0, 1]), OptimalUnbiasedDecoder()),
    "fixed weights": (FractionalRepetition([0, 0, 1], [0, 0, 1]), FixedDecoder()),
    "lists": (WorkLists([[[0], [1]], [[0], [1]], [[2]]], 3), OptimalUnbiasedDecoder()),
    "random": (StochasticGradientCode(3, 3, 2, rng=np.random.default_rng(0)), InverseProbabilityDecoder()),
}


@pytest.mark.parametrize(("code", "decoder"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_deadline_by_which_a_shard_never_arrives_has_an_infinite_error(code: Code, decoder: Decoder) -> None:
    found = forecast_round(steady(1.0, 1.0, 1.0), code, decoder, GramModel.uniform(3, 0.0), 0.5)
    assert found.decoder is None
    assert (found.round.round_time, found.round.arrivals, found.round.residual_error) == (0.5, 0.0, np.inf)


def test_one_shard_that_never_arrives_is_enough_for_that() -> None:
    for lists, arrivals in (([[[0], [1]], [[0], [1]], [[2]]], 3.0), ([[[0], [1]], [[1], [0]], [[2]]], 3.0)):
        found = forecast_round(
            steady(1.0, 1.0, 1.0), WorkLists(lists, 3), OptimalUnbiasedDecoder(), GramModel.uniform(3, 0.0), 1.5
        ).round
        assert found.arrivals == arrivals
        # From different ends the first two do both of their shards.
        assert np.isinf(found.residual_error) == (lists[0] == lists[1])
    blocks = FractionalRepetition([0, 0, 1], [0, 0, 1])
    found = forecast_round(steady(1.0, 1.0, 1.0), blocks, FixedDecoder(), GramModel.uniform(3, 0.0), 1.5).round
    assert (found.arrivals, found.residual_error) == (1.0, np.inf)


def test_a_biased_decoder_makes_do_with_what_arrives() -> None:
    code = FractionalRepetition([0, 0, 1], [0, 0, 1])
    found = forecast_round(steady(1.0, 1.0, 1.0), code, SumDecoder(), GramModel.uniform(3, 0.0), 1.5)
    assert found.round.residual_error == pytest.approx(2 / 3)


def test_a_code_may_be_for_some_of_the_clients() -> None:
    chosen = np.array([2, 0])
    some = LogNormalFleet(
        2,
        seed=1,
        median=[MEDIANS[c] for c in chosen],
        sigma=[SIGMAS[c] for c in chosen],
        dropout=[DROPOUTS[c] for c in chosen],
    )
    for code in (FractionalRepetition([0, 1], [0, 0, 1]), WorkLists([[[0], [1]], [[2]]], 3)):
        gram = GramModel.uniform(3, 0.0)
        inside = forecast_round(NOISY, code, OptimalUnbiasedDecoder(), gram, 2.5, clients=chosen).round
        alone = forecast_round(some, code, OptimalUnbiasedDecoder(), gram, 2.5).round
        assert vars(inside) == pytest.approx(vars(alone))


class HalfThere:
    """The first client is there half of the time, the second always."""

    prob, cycle, shortest_cycle = np.array([0.5, 1.0]), 10.0, 10.0
    site = np.array([-1, -1])

    def at(self, instants: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.column_stack([np.arange(instants.size) % 2 == 0, np.ones(instants.size, dtype=bool)])


class WithPresence:
    """A fleet's timing at random instants, with what is known of coming and going."""

    presence, loss_detection = HalfThere(), np.inf

    def __init__(self, fleet: LogNormalFleet) -> None:
        self.reach, self.partial_reach, self.straggle_prob = fleet.reach, fleet.partial_reach, fleet.straggle_prob


def test_quick_rounds_are_more_frequent_while_more_clients_are_there() -> None:
    """With the first there a round takes 2 s, else it lasts until 8 s: four of five rounds are of the first kind."""
    timing = WithPresence(steady(1.0, 2.0, dropout=[0.5, 0.0]))
    code = WorkLists([[[0]], [[1]]], 2)
    found = forecast_round(timing, code, OptimalUnbiasedDecoder(), GramModel.uniform(2, 0.0), 8.0).round
    assert found.round_time == pytest.approx(0.8 * 2.0 + 0.2 * 8.0, rel=1e-3)
    assert found.arrivals == pytest.approx(1.8)
    # The weight of two for shard 0 leaves an error of one whether it comes or not: 1 / 2 over both shards.
    assert found.residual_error == pytest.approx(0.5, abs=1e-12)
    late = forecast_round(timing, code, OptimalUnbiasedDecoder(), GramModel.uniform(2, 0.0), 8.0, early_end=False).round
    assert (late.round_time, late.arrivals) == (8.0, pytest.approx(1.5))


def test_rounds_among_sessions_are_those_that_are_played() -> None:
    """Sessions of 300 s: forecasts of rounds against 25,000 s of them, z = 4 over 25 batches."""
    table = {"clients": 6, "model": "log-normal", "median": [1.0, 0.6, 2.0, 1.5, 0.4, 1.0], "sigma": 0.3}
    fleet = build_fleet({**table, "session_on": 300.0, "session_off": 200.0}, seed=3)
    code, deadline = WorkLists([[[0], [1]], [[1], [0]], [[2]], [[2]], [[3], [4]], [[4], [3]]], 5), 9.0
    gram = GramModel.uniform(5, 0.0)
    found = forecast_round(AtRound(fleet, 0), code, OptimalUnbiasedDecoder(), gram, deadline)
    assert found.decoder is not None
    plain = forecast_round(fleet, code, OptimalUnbiasedDecoder(), gram, deadline).round
    played = play_rounds(RoundDraws(fleet), found.decoder, deadline, int(25_000 / found.round.round_time))

    def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
        means = [part.mean() for part in np.array_split(values, 25)]
        return float(np.mean(values)), float(np.std(means, ddof=1) / 5.0)

    seconds, spread = mean_and_error(played.seconds)
    assert abs(seconds - found.round.round_time) < 4 * spread
    assert abs(seconds - plain.round_time) > 4 * spread
    error, spread = mean_and_error(((played.coverage - 1.0) ** 2).mean(axis=1))
    assert abs(error - found.round.residual_error) < 4 * spread
