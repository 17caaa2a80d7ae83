"""Every code over sizes, loads and seeds, and what its source promises of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgc.codes import (
    BernoulliCode,
    Chain,
    Code,
    CommonShard,
    CyclicRepetition,
    ErasureHead,
    FractionalRepetition,
    MatrixCode,
    RandomRegularGraphCode,
    StochasticGradientCode,
    StochasticGradientCodeAuthors,
    Uncoded,
    WorkLists,
    optimal_row_sums,
)

SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)


def draw(data: st.DataObject) -> tuple[int, int, int, np.random.Generator]:
    """Number of clients, of shards (at least as many), load, and a generator."""
    n_clients = data.draw(SIZES)
    n_shards = data.draw(st.integers(n_clients, 24))
    return n_clients, n_shards, data.draw(st.integers(1, n_clients)), np.random.default_rng(data.draw(SEEDS))


def assert_consistent(code: Code) -> None:
    """The dense matrix, the sparse rows and the load say the same."""
    matrix = code.encoding_matrix
    assert matrix.shape == (code.n_clients, code.n_shards)
    for client in range(code.n_clients):
        shards = code.shards_of(client)
        assert (np.diff(shards) > 0).all()
        np.testing.assert_array_equal(np.flatnonzero(matrix[client]), shards)
        np.testing.assert_array_equal(matrix[client, shards], code.coefficients_of(client))
    assert code.load == pytest.approx((matrix != 0).sum() / code.n_shards)


@given(st.data())
def test_uncoded_has_one_holder_per_shard(data: st.DataObject) -> None:
    n_clients, n_shards, _, _ = draw(data)
    code = Uncoded(n_clients, n_shards)
    assert_consistent(code)
    assert (code.encoding_matrix.sum(axis=0) == 1).all()
    assert code.load == 1


@given(st.data())
@settings(deadline=None)
def test_cyclic_repetition_is_exact_for_every_set_of_survivors(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    s = data.draw(st.integers(0, n - 1))
    code = CyclicRepetition(n, s, rng=np.random.default_rng(data.draw(SEEDS)))
    assert_consistent(code)
    assert code.load == s + 1
    for survivors in itertools.combinations(range(n), n - s):
        rows = code.encoding_matrix[list(survivors)]
        weights, *_ = np.linalg.lstsq(rows.T, np.ones(n), rcond=None)
        # The random coefficients may be large; the residual is relative to their rounding.
        scale = max(1.0, float(np.abs(weights[:, None] * rows).max()))
        np.testing.assert_allclose(rows.T @ weights, 1.0, atol=1e-9 * scale)


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=12), st.integers(0, 12))
def test_the_papers_schemes_have_its_row_sums_and_columns_that_sum_to_one(p: list[float], more: int) -> None:
    n = len(p)
    for code in (CommonShard(p, n + more), Chain(p)):
        assert_consistent(code)
        Y = optimal_row_sums(p, code.n_shards)
        matrix = code.encoding_matrix
        np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-9)
        np.testing.assert_allclose(matrix.sum(axis=1), Y, atol=1e-9)
        assert Y.sum() == pytest.approx(code.n_shards)
        assert code.load < 2
    delta = np.array(p) / (1 - np.array(p))
    if (delta > 1e-300).all():  # below, the textbook form here overflows
        np.testing.assert_allclose(optimal_row_sums(p, n), n / delta / (1 / delta).sum(), rtol=1e-9)


def test_scheme_one_is_the_authors_matrix() -> None:
    """alpha_{i,0} = Y_i - 1 and alpha_{i,i+1} = 1, except that the last client has the common shard alone."""
    p = np.array([0.2, 0.6, 0.5, 0.8])
    Y = optimal_row_sums(p, 4)
    expected = np.zeros((4, 4))
    expected[:, 0] = np.append(Y[:3] - 1, Y[3])
    expected[[0, 1, 2], [1, 2, 3]] = 1
    np.testing.assert_allclose(CommonShard(p, 4).encoding_matrix, expected)


@given(st.data())
def test_stochastic_gradient_code_is_balanced(data: st.DataObject) -> None:
    n_clients, n_shards, load, rng = draw(data)
    code = StochasticGradientCode(n_clients, n_shards, load, rng=rng)
    assert_consistent(code)
    matrix = code.encoding_matrix
    assert ((matrix != 0).sum(axis=0) == load).all()
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0)
    per_client = (matrix != 0).sum(axis=1)
    assert per_client.max() - per_client.min() <= 1 + (n_shards * load % n_clients > 0)


def test_pairs_of_shards_share_holders_evenly() -> None:
    """Mean overlap of two shards is load (load n_shards / n_clients - 1) / (n_shards - 1) on balanced clients."""
    overlaps = []
    for seed in range(30):
        matrix = StochasticGradientCode(20, 20, 4, rng=np.random.default_rng(seed)).encoding_matrix != 0
        shared = matrix.T.astype(int) @ matrix
        overlaps.append(shared[~np.eye(20, dtype=bool)])
    values = np.concatenate(overlaps)
    assert values.mean() == pytest.approx(4 * 3 / 19, rel=1e-12)
    assert values.max() <= 4
    assert values.std() < 1.0


@given(st.data())
def test_the_authors_variant_loses_shards(data: st.DataObject) -> None:
    n_clients, n_shards, load, rng = draw(data)
    code = StochasticGradientCodeAuthors(n_clients, n_shards, load, rng=rng)
    assert_consistent(code)
    sums = code.encoding_matrix.sum(axis=0)
    assert (np.isclose(sums, 1) | (sums == 0)).all()


def test_a_fifth_of_the_shards_is_lost_at_load_two() -> None:
    code = StochasticGradientCodeAuthors(50, 5000, 2, rng=np.random.default_rng(0))
    lost = (code.encoding_matrix.sum(axis=0) == 0).mean()
    # z = 4 standard errors of a proportion of 1/5 over 5000 shards.
    assert lost == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 5000))


@given(st.data())
def test_bernoulli_code_keeps_every_shard_unless_told(data: st.DataObject) -> None:
    n_clients, n_shards, load, rng = draw(data)
    state = rng.bit_generator.state
    kept = BernoulliCode(n_clients, n_shards, load, rng=rng)
    rng.bit_generator.state = state
    published = BernoulliCode(n_clients, n_shards, load, rng=rng, keep_all=False)
    for code in (kept, published):
        assert_consistent(code)
        assert set(np.unique(code.encoding_matrix)) <= {0.0, 1.0}
    changed = kept.encoding_matrix != published.encoding_matrix
    assert (kept.encoding_matrix.sum(axis=0) >= 1).all()
    np.testing.assert_array_equal(changed.any(axis=0), published.encoding_matrix.sum(axis=0) == 0)


@given(st.data())
def test_erasure_head_forms_even_blocks_at_random(data: st.DataObject) -> None:
    n_clients, n_shards, load, rng = draw(data)
    code = ErasureHead(n_clients, n_shards, load, rng=rng)
    assert_consistent(code)
    members = np.bincount(code.blocks.of_client)
    assert members.min() >= load
    assert members.max() - members.min() <= 1
    again = ErasureHead(n_clients, n_shards, load, rng=rng)
    assert sorted(again.blocks.of_client) == sorted(code.blocks.of_client)


@given(st.data())
def test_work_lists_send_the_longest_prefix_of_every_segment(data: st.DataObject) -> None:
    n_clients, n_shards, _, rng = draw(data)
    lists = []
    for _ in range(n_clients):
        order = rng.permutation(n_shards).tolist()
        cut = int(rng.integers(0, n_shards + 1))
        lists.append([part for part in (order[:cut], order[cut:]) if part])
    code = WorkLists(lists, n_shards)
    assert code.load == n_clients
    for client in range(n_clients):
        done = code.shards_of(client)
        rows = code.encoding_matrix[code.rows_of(client)]
        for progress, sent in enumerate(code.progress_outcomes(client)):
            # What is sent adds up to what is done, each shard once, and no segment sends twice.
            expected = np.zeros(n_shards)
            expected[done[:progress]] = 1.0
            np.testing.assert_array_equal(rows[sent].sum(axis=0), expected)
            assert sent.sum() <= len(lists[client])


@given(st.data())
@settings(deadline=None)
def test_random_regular_graph_is_simple_and_regular(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 20))
    load = data.draw(st.integers(1, n - 1).filter(lambda load: n * load % 2 == 0))
    matrix = RandomRegularGraphCode(n, load, rng=np.random.default_rng(data.draw(SEEDS))).encoding_matrix
    assert set(np.unique(matrix)) <= {0.0, 1.0}
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (matrix.sum(axis=0) == load).all()
    assert np.trace(matrix) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: Uncoded(5, 4), "n_shards must be an integer of at least 5; got 4"),
        (lambda rng: CyclicRepetition(4, 4, rng=rng), "n_stragglers must be an integer from 0 to 3; got 4"),
        (lambda rng: CommonShard([0.5, 1.0], 2), r"straggle_prob must lie in \[0, 1\); got 1 for client 1"),
        (lambda rng: CommonShard([0.5, 0.5], 1), "n_shards must be an integer of at least 2; got 1"),
        (lambda rng: Chain([-0.5]), r"straggle_prob must lie in \[0, 1\); got -0.5 for client 0"),
        (lambda rng: StochasticGradientCode(3, 3, 4, rng=rng), "load must be an integer from 1 to 3; got 4"),
        (lambda rng: BernoulliCode(3, 3, 3.5, rng=rng), "load must be at most n_clients = 3; got 3.5"),
        (lambda rng: BernoulliCode(3, 3, 0.0, rng=rng), "load must be a finite number above 0; got 0.0"),
        (lambda rng: RandomRegularGraphCode(5, 3, rng=rng), r"n_clients \* load must be even; got 5 \* 3"),
        (lambda rng: RandomRegularGraphCode(4, 4, rng=rng), "load must be an integer from 1 to 3; got 4"),
        (lambda rng: MatrixCode([[1.0, 0.0]]), "every shard must be held by a client; got none for shard 1"),
        (lambda rng: MatrixCode([[np.nan]]), "encoding_matrix must be finite; got NaN or infinity"),
        (lambda rng: FractionalRepetition([], [0]), "number of clients must be an integer of at least 1; got 0"),
    ],
)
def test_impossible_codes_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make(np.random.default_rng(0))
