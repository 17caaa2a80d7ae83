"""Where the answer is known: limits of probabilities, energies and sizes, with whole blocks and with partial work."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import Chain, Code, CyclicRepetition, FractionalRepetition, MatrixCode, WorkLists
from fedgc.decoders import DECODERS, CalibrationStatus, OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from tests.enumeration import exact_moments

PAIRS = FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 0, 1, 2])
FORMS: dict[str, Code] = {"whole blocks": PAIRS, "listed states": MatrixCode(PAIRS.sparse_matrix)}
probabilities = st.lists(st.floats(0.0, 0.99), min_size=6, max_size=6)


@pytest.mark.parametrize("form", FORMS)
@given(p=probabilities, energy=st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4))
@settings(deadline=None)
def test_incoherent_updates_are_weighed_by_inverse_probability(form: str, p: list[float], energy: list[float]) -> None:
    calibrated = OptimalUnbiasedDecoder().calibrate(FORMS[form], p, GramModel(energy, np.zeros(4)))
    missing = np.array([p[0] * p[3], p[0] * p[3], p[1] * p[4], p[2] * p[5]])
    coverage = calibrated.decode(np.ones(6, dtype=bool)).coverage
    np.testing.assert_allclose(coverage, 1 / (1 - missing), rtol=1e-12)
    expected = np.sum(np.array(energy) * missing / (1 - missing)) / np.sum(energy)
    assert calibrated.residual_error == pytest.approx(expected, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("form", FORMS)
@given(coherence=st.floats(0.0, 0.999999))
@settings(deadline=None)
def test_without_stragglers_everything_counts_once(form: str, coherence: float) -> None:
    calibrated = OptimalUnbiasedDecoder().calibrate(FORMS[form], np.zeros(6), GramModel.uniform(4, coherence))
    np.testing.assert_allclose(calibrated.decode(np.ones(6, dtype=bool)).coverage, 1.0, atol=1e-12)
    assert calibrated.residual_error == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_aligned_updates_are_divided_by_who_came(form: str) -> None:
    p = np.full(6, np.sqrt(0.3))
    calibrated = OptimalUnbiasedDecoder().calibrate(
        FORMS[form], p, GramModel([5e-10, 5e-10, 1e-9, 1e-9], [0.5, 0.5, 1, 1])
    )
    for count in (1, 2, 3):
        coverage = calibrated.decode(np.arange(6) < count).coverage
        blocks = coverage[[0, 2, 3]]
        np.testing.assert_allclose(blocks[:count], 3 / count / (1 - 0.3**3), rtol=1e-6)


def test_one_client_one_block_and_one_that_never_straggles() -> None:
    one = OptimalUnbiasedDecoder().calibrate(FractionalRepetition([0], [0]), [0.75], GramModel([1.0], [3.0]))
    assert one.decode([True]).coverage.tolist() == pytest.approx([4.0])
    assert one.residual_error == pytest.approx(3.0)
    block = OptimalUnbiasedDecoder().calibrate(
        FractionalRepetition([0, 0], [0, 0]), [0.5, 0.5], GramModel.uniform(2, 0.5)
    )
    np.testing.assert_allclose(block.decode([True, False]).coverage, 4 / 3, rtol=1e-14)
    sure = OptimalUnbiasedDecoder().calibrate(
        FractionalRepetition([0, 0, 1], [0, 1]), [0.0, 0.9, 0.5], GramModel.uniform(2, 0)
    )
    np.testing.assert_allclose(sure.decode([True, False, False]).coverage, [1.0, 0.0], atol=1e-14)


def test_shards_recovered_singly_are_weighed_one_by_one() -> None:
    """A list of one-shard segments: without coherence a shard counts 1 / P(somebody has come that far)."""
    code = WorkLists([[[0], [1], [2]], [[2], [1], [0]]], 3)
    first, second = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.3, 0.3, 0.2, 0.2])
    calibrated = OptimalUnbiasedDecoder().calibrate(
        code, ProgressArrivals(code, [first, second]), GramModel.uniform(3, 0)
    )
    missing = np.array(
        [first[:1].sum() * second[:3].sum(), first[:2].sum() * second[:2].sum(), first[:3].sum() * second[:1].sum()]
    )
    np.testing.assert_allclose(calibrated.decode(np.ones(6, dtype=bool)).coverage, 1 / (1 - missing), rtol=1e-13)


ILL_P = {
    "half": np.full(6, 0.5),
    "one minus 1e-9": np.full(6, 1 - 1e-9),
    "mixed": np.array([1 - 1e-9, 0.5, 0.0, 1 - 1e-6, 0.1, 1e-9]),
    "1e-12": np.full(6, 1e-12),
}
ILL_GRAMS = ("d over twelve orders", "coherence 1 - 1e-12", "both")


@pytest.mark.parametrize("name", [name for name, decoder in DECODERS.items() if decoder.unbiased])
@pytest.mark.parametrize("code_name", [*FORMS, "chain", "cyclic"])
@pytest.mark.parametrize("p_name", ILL_P)
@pytest.mark.parametrize("gram_name", ILL_GRAMS)
def test_ill_conditioned_input_keeps_the_accuracy_or_says_so(
    name: str, code_name: str, p_name: str, gram_name: str
) -> None:
    p, rng = ILL_P[p_name], np.random.default_rng(1)
    others = {"chain": lambda: Chain(p), "cyclic": lambda: CyclicRepetition(6, 1, rng=rng)}
    code = FORMS[code_name] if code_name in FORMS else others[code_name]()
    m = code.n_shards
    gram = {
        "d over twelve orders": GramModel(10.0 ** rng.uniform(-6, 6, m), rng.uniform(0.5, 2, m)),
        "coherence 1 - 1e-12": GramModel.uniform(m, 1 - 1e-12),
        "both": GramModel(10.0 ** rng.uniform(-12, 0, m), np.ones(m)),
    }[gram_name]
    if name == "inverse-probability" and code_name == "cyclic":
        pytest.skip("its columns may sum to next to nothing, and then the weights are as large as they must be")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrated = DECODERS[name]().calibrate(code, p, gram)
        moments = exact_moments(calibrated, p, gram)
    assert np.isfinite(moments.coverage).all()
    if calibrated.status is CalibrationStatus.EXACT:
        assert moments.bias < 1e-10
        assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-9, abs=1e-14)
    else:
        assert moments.bias < max(1e-10, 10 * calibrated.rounding)
