"""What a run learns about the updates: their coherence."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.coherence import CoherenceEstimate
from fedgc.gram import GramModel


def test_coherence_recovers_the_model_that_made_the_updates() -> None:
    rng = np.random.default_rng(2)
    n_blocks, dimension, shared, own = 12, 400, 0.6, 1.5
    size = rng.uniform(0.5, 1.5, n_blocks)
    estimate = CoherenceEstimate(forgetting=0.99)
    energies = []
    overlaps = []
    for _ in range(300):
        direction = rng.standard_normal(dimension)
        direction *= np.sqrt(shared) / np.linalg.norm(direction)
        updates = direction + rng.standard_normal((n_blocks, dimension)) * np.sqrt(own / dimension)
        norms = (updates**2).sum(axis=1)
        energies.append(norms.mean())
        overlaps.append(((updates.sum(axis=0) ** 2).sum() - norms.sum()) / (n_blocks * (n_blocks - 1)))
        estimate = estimate.update(norms, float((updates.sum(axis=0) ** 2).sum()))
    # Forgetting m averages about (1 + m) / (1 - m) rounds, here 199; z = 5.
    for value, series, truth in ((estimate.energy, energies, shared + own), (estimate.overlap, overlaps, shared)):
        assert value == pytest.approx(truth, abs=5 * np.std(series) / np.sqrt(199) + 1e-3)
    gram = estimate.gram(size)
    np.testing.assert_allclose(gram.coherent, np.sqrt(estimate.overlap / estimate.energy) * size)
    np.testing.assert_allclose(gram.incoherent + gram.coherent**2, size**2)


def test_coherence_survives_degenerate_rounds() -> None:
    estimate = CoherenceEstimate()
    assert estimate.update([], 0.0) == estimate
    assert estimate.update([0.0, 0.0], 0.0) == estimate
    assert estimate.update([np.inf], np.inf) == estimate
    single = estimate.update([4.0], 4.0)
    assert single.overlap / single.energy == estimate.overlap / estimate.energy
    opposed = estimate.update([1.0, 1.0], 0.0).gram([1.0, 1.0])
    assert (opposed.coherent == 0).all()
    identical = estimate.update([1.0, 1.0], 4.0).gram([1.0, 1.0])
    assert (identical.incoherent > 0).all()


def test_merging_shards_keeps_energies() -> None:
    gram = GramModel([1.0, 2.0, 3.0], [0.5, 1.0, 2.0])
    merged = gram.merge(np.array([0, 1, 0]), 2)
    v = np.array([0.3, 1.7])
    assert merged.inner(v, v) == pytest.approx(gram.inner(v[[0, 1, 0]], v[[0, 1, 0]]))
    assert gram.inner(v[[0, 1, 0]], np.ones(3)) == pytest.approx(v[[0, 1, 0]] @ gram.matrix @ np.ones(3))


@pytest.mark.parametrize(("d", "r"), [([0.0], [1.0]), ([1.0], [-1.0]), ([np.nan], [0.0]), ([1.0, 1.0], [0.0])])
def test_impossible_gram_models_are_refused(d: list[float], r: list[float]) -> None:
    with pytest.raises(ValueError, match=r"coherent must"):
        GramModel(d, r)
