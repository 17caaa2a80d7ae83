"""Bits for a budget: the prefix method against the exact optimum, and the star code that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from fedgc.codes import CommonShard, optimal_row_sums
from fedgc.quantisers import (
    BucketedNorm,
    GlobalNorm,
    Quantiser,
    allocate_bits,
    allocate_bits_by_bisection,
    allocate_bits_exactly,
    bit_allocation,
    equal_bits,
)


def measured_factors(rng: np.random.Generator) -> np.ndarray:
    """Of a random vector, of one or of very unequal sizes, for 0 to 16 bits."""
    vector = rng.standard_t(rng.uniform(2.0, 30.0), 600)
    return factors_of(BucketedNorm, vector)


def factors_of(kind: type[Quantiser], vector: np.ndarray) -> np.ndarray:
    return np.array([kind(bits).variance_factor(vector) for bits in range(17)])


def nearly_on_a_grid(rng: np.random.Generator) -> np.ndarray:
    """Multiples of a seventh, which four bits hit and five do not."""
    return factors_of(BucketedNorm, rng.integers(-7, 8, 600) / 7 + rng.normal(0.0, 1e-3, 600))


def nearly_ternary(rng: np.random.Generator) -> np.ndarray:
    return factors_of(GlobalNorm, rng.integers(-1, 2, 600) + rng.normal(0.0, 1e-3, 600))


def unevenly_learnt(rng: np.random.Generator) -> np.ndarray:
    """As if some numbers of bits had been seen once and others often."""
    factors = measured_factors(rng)
    factors[[3, 2, 6]] *= [4.0, 0.3, 20.0]
    return factors


def instances(factors: Callable[..., np.ndarray], most: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """A hundred random fleets, their factors and a budget of so many bits a client at most."""
    rng = np.random.default_rng(4)
    for _ in range(100):
        n = int(rng.integers(2, 30))
        p = rng.uniform(0.0, 1.0, n) ** rng.uniform(0.3, 3.0)
        yield p, factors(rng) * rng.uniform(0.5, 20.0), int(rng.integers(1, most * n + 1))


@pytest.mark.parametrize("most", [16, 3])
@pytest.mark.parametrize("factors", [measured_factors, nearly_on_a_grid, nearly_ternary, unevenly_learnt])
def test_the_division_is_within_one_per_cent_of_the_optimum(factors: Callable[..., np.ndarray], most: int) -> None:
    for p, omega, budget in instances(factors, most):
        exact, prefix = allocate_bits_exactly(p, omega, budget), allocate_bits(p, omega, budget)
        assert prefix.bits.sum() <= budget
        assert exact.bits.sum() <= budget
        assert 0.99 * exact.objective <= prefix.objective <= exact.objective * (1 + 1e-12)
        assert equal_bits(p, omega, budget).objective <= exact.objective * (1 + 1e-12)


@pytest.mark.parametrize(
    ("factors", "by_prefixes", "worst"),
    [(measured_factors, 100, 1.0), (nearly_on_a_grid, 0, 0.6), (nearly_ternary, 20, 0.8), (unevenly_learnt, 0, 0.3)],
)
def test_prefixes_are_for_gains_that_first_rise_and_then_fall(
    factors: Callable[..., np.ndarray], by_prefixes: int, worst: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many of the instances above they serve, and the least part of the optimum that they would find of all."""
    known, served, least = bit_allocation._is_s_shaped, 0, 1.0
    for p, omega, budget in instances(factors):
        served += known(bit_allocation.worth_of_bits(p, omega, budget)[0])
        monkeypatch.setattr(bit_allocation, "_is_s_shaped", lambda _: True)
        least = min(
            least, allocate_bits(p, omega, budget).objective / allocate_bits_exactly(p, omega, budget).objective
        )
        monkeypatch.setattr(bit_allocation, "_is_s_shaped", known)
    assert served == by_prefixes
    assert least == pytest.approx(worst, abs=0.03)


def test_the_papers_own_bisection_finds_nearly_as_much_where_its_formula_holds() -> None:
    rng, parts = np.random.default_rng(4), []
    for p, _, budget in instances(measured_factors):
        formula = np.concatenate([[np.inf], 4.0 ** -np.arange(1, 17)]) * np.exp(rng.uniform(-2.0, 4.0))
        found, exact = allocate_bits_by_bisection(p, formula, budget), allocate_bits_exactly(p, formula, budget)
        assert found.bits.sum() <= budget and found.objective <= exact.objective * (1 + 1e-12)
        parts.append(found.objective / exact.objective)
    assert min(parts) > 0.97 and np.mean(np.array(parts) > 0.99) >= 0.98


def test_of_measured_factors_the_papers_bisection_finds_less() -> None:
    parts = []
    for p, omega, budget in instances(measured_factors):
        found, exact = allocate_bits_by_bisection(p, omega, budget), allocate_bits_exactly(p, omega, budget)
        assert found.bits.sum() <= budget and found.objective <= exact.objective * (1 + 1e-12)
        parts.append(found.objective / exact.objective)
    assert 0.95 < min(parts) < 0.96 and sum(part < 0.99 for part in parts) == 6


def test_the_papers_bisection_is_of_factors_that_all_clients_share() -> None:
    with pytest.raises(
        ValueError, match=r"^variance_factor must be one row, the same for all clients; got shape \(2, 3"
    ):
        allocate_bits_by_bisection([0.1, 0.2], np.ones((2, 3)), 2)


def test_the_dynamic_programme_is_the_best_of_all_divisions() -> None:
    rng = np.random.default_rng(5)
    for budget in range(1, 13):
        p, omega = rng.uniform(0.0, 0.9, 3), np.concatenate([[np.inf], np.sort(rng.exponential(3.0, 4))[::-1]])
        every = np.array([bits for bits in product(range(5), repeat=3) if sum(bits) <= budget])
        values = ((1 - p) / (p + omega[every])).sum(axis=1)
        assert allocate_bits_exactly(p, omega, budget).objective == pytest.approx(values.max(), rel=1e-12)


def test_clients_with_factors_of_their_own_have_the_best_of_all_divisions() -> None:
    rng = np.random.default_rng(7)
    pool = [measured_factors(rng) for _ in range(10)]
    for _ in range(100):
        n = int(rng.integers(2, 25))
        p = rng.uniform(0.0, 1.0, n) ** rng.uniform(0.3, 4.0)
        omega = np.array([pool[rng.integers(10)] * rng.uniform(0.2, 30.0) for _ in range(n)])
        budget = int(rng.integers(1, n * rng.choice([1, 2, 4, 16]) + 1))
        found = allocate_bits(p, omega, budget)
        assert found.bits.sum() <= budget
        assert found.objective == pytest.approx(((1 - p) / (p + omega[np.arange(n), found.bits])).sum(), rel=1e-12)
        assert found.objective == pytest.approx(most_of_all(p, omega, budget), rel=1e-9)


def most_of_all(p: np.ndarray, omega: np.ndarray, budget: int) -> float:
    """The optimum by a dynamic programme of its own, client by client."""
    best = np.zeros(budget + 1)
    for chance, own in zip(p, omega, strict=True):
        with_it = np.zeros(budget + 1)
        for total in range(budget + 1):
            bits = np.arange(min(own.size - 1, total) + 1)
            with_it[total] = ((1 - chance) / (chance + own[bits]) + best[total - bits]).max()
        best = with_it
    return float(best[-1])


def test_a_reliable_client_that_is_hard_to_round_is_not_served_first() -> None:
    """With all bits it is worth most, with few next to nothing; and bits that cannot send are worth nothing."""
    vector = np.random.default_rng(0).standard_normal(600)
    omega = np.array([BucketedNorm(bits).variance_factor(vector) for bits in range(17)])
    assert allocate_bits([0.1, 0.2], [50 * omega, omega], 3).bits.tolist() == [0, 3]
    late = [[np.inf, np.inf, np.inf, 1e-3], [np.inf, 0.1, 0.05, 0.01]]
    assert allocate_bits([0.01, 0.2], late, 1).bits.tolist() == [0, 1]


def test_clients_with_factors_of_their_own() -> None:
    p, omega = [0.2, 0.2], [[np.inf, 8.0, 4.0, 1.0], [np.inf, 0.4, 0.3, 0.29]]
    for allocate in (allocate_bits, allocate_bits_exactly):
        assert allocate(p, omega, 3).bits.tolist() == [1, 2]
        assert allocate(p, omega, 4).bits.tolist() == [3, 1]


@pytest.mark.parametrize("allocate", [allocate_bits, allocate_bits_by_bisection, allocate_bits_exactly, equal_bits])
def test_what_cannot_be_allocated_is_an_error_of_one_line(allocate: object) -> None:
    omega = [np.inf, np.inf, 0.5]

    def refused(why: str, *given: object) -> None:
        with pytest.raises(ValueError, match=why) as error:
            allocate(*given)  # type: ignore[operator]
        assert "\n" not in str(error.value)

    refused("^budget must be an integer from 2 to 4; got 1$", [0.1, 0.2], omega, 1)
    refused("^budget must be an integer from 2 to 4; got 5$", [0.1, 0.2], omega, 5)
    refused("for 0 to at most 16 bits; got 18", [0.1], np.ones(18), 3)
    refused("^straggle_prob must be that of at least one client; got none$", [], omega, 1)
    refused("^straggle_prob must be that of at least one client; got none$", [], np.ones((0, 3)), 1)
    refused("above 0; got 0", [0.1], [np.inf, 0.0], 1)
    refused("above 0; got nan", [0.1], [np.inf, np.nan], 1)
    refused("finite for some number of bits", [0.1], [np.inf, np.inf], 1)
    refused("a row, or one per client", [0.1], np.ones((2, 3)), 1)
    refused(r"must lie in \[0, 1\); got 1 for client 0", [1.0], omega, 2)


def test_row_sums_are_in_proportion_to_q_over_p_plus_omega_and_have_the_least_variance() -> None:
    rng = np.random.default_rng(6)
    p, omega = rng.uniform(0.0, 0.9, 5), rng.exponential(1.0, 5)
    y = optimal_row_sums(p, 5, omega)
    np.testing.assert_allclose(y, 5 * ((1 - p) / (p + omega)) / ((1 - p) / (p + omega)).sum(), rtol=1e-12)
    np.testing.assert_allclose(optimal_row_sums(p, 5), optimal_row_sums(p, 5, 0.0))

    def variance(rows: np.ndarray) -> float:
        # Enumerated: who comes, and of each that does the relative variance omega.
        total = 0.0
        for came in product((0, 1), repeat=5):
            chance = np.prod(np.where(came, 1 - p, p))
            weighed = np.array(came) / (1 - p) * rows
            total += chance * ((weighed.sum() - rows.sum()) ** 2 + (weighed**2 * omega).sum())
        return total

    assert variance(y) == pytest.approx(25 / ((1 - p) / (p + omega)).sum(), rel=1e-12)
    for _ in range(20):
        other = y + rng.normal(0, 0.1, 5)
        assert variance(other * 5 / other.sum()) >= variance(y)


def test_the_star_code_of_quantised_updates() -> None:
    p, omega = [0.1, 0.5, 0.3, 0.2], [0.2, 0.1, np.inf, 1.0]
    code = CommonShard(p, 6, omega)
    np.testing.assert_allclose(code.encoding_matrix.sum(axis=0), 1.0)
    np.testing.assert_allclose(code.encoding_matrix.sum(axis=1), optimal_row_sums(p, 6, omega))
    assert not code.encoding_matrix[2].any()
    with pytest.raises(ValueError, match=r"^variance_factor must be at least 0; got -1 for client 1$"):
        CommonShard([0.1, 0.1], 2, [0.0, -1.0])
    with pytest.raises(ValueError, match=r"^variance_factor must be finite for some client"):
        CommonShard([0.1, 0.1], 2, np.inf)
