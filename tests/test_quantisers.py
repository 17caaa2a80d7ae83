"""Quantisers: unbiased, of the variance that they say, and the same at both ends of the wire."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from fedgc.protocol import rounding_seed
from fedgc.quantisers import QUANTISERS, BucketedNorm, GlobalNorm, Quantiser, RotatedNorm
from fedgc.quantisers.packed_sum import PackedSum, pack_arrays
from fedgc.quantisers.packing import pack_bits, packed_size, unpack_bits

BITS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16)


def every(bits: int) -> list[Quantiser]:
    return [GlobalNorm(bits), BucketedNorm(bits, bucket=3), RotatedNorm(bits, bucket=3)]


def outcomes(quantiser: Quantiser, vector: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of every way in which a vector can be rounded, and what is read of it on the wire."""
    how = quantiser.rounding(vector, seed)
    probability, read = [], []
    for up in product((0, 1), repeat=vector.size):
        probability.append(np.prod(np.where(up, how.chance, 1.0 - how.chance)))
        data = quantiser.pack(how.scale, how.down + how.step * np.array(up, dtype=np.int32))
        read.append(quantiser.dequantise(data, vector.size, seed))
    return np.array(probability), np.array(read)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("which", range(3))
def test_mean_and_variance_over_all_roundings_are_what_they_are_said_to_be(bits: int, which: int) -> None:
    quantiser = every(bits)[which]
    for seed, vector in enumerate(
        [np.random.default_rng(bits).standard_normal(7), np.array([0.0, 0.0, 0.0, 1e-3, -5.0]), np.array([-2.0])]
    ):
        probability, read = outcomes(quantiser, vector, seed)
        size = float(np.abs(vector).max())
        # A level that lies on the entry has a probability of rounding's order to be left, as many times as there are
        # entries; all else is exact.
        assert np.abs(probability @ read - vector).max() <= 1e-12 * size
        variance = float(probability @ ((read - vector) ** 2).sum(axis=1))
        assert quantiser.variance(vector, seed) == pytest.approx(variance, rel=1e-9, abs=1e-12 * size**2)
        assert quantiser.variance_factor(vector, seed) * (vector @ vector) == pytest.approx(
            variance, rel=1e-9, abs=1e-12 * size**2
        )


@pytest.mark.parametrize("name", QUANTISERS)
@pytest.mark.parametrize("bits", BITS)
def test_drawn_roundings_have_that_mean_and_variance(name: str, bits: int) -> None:
    quantiser, rng = QUANTISERS[name](bits), np.random.default_rng(3)
    vector = rng.standard_normal(600)
    drawn = np.array([quantiser.dequantise(quantiser.quantise(vector, rng, seed=7), 600, seed=7) for _ in range(200)])
    variance = quantiser.variance(vector, seed=7)
    assert ((drawn - vector) ** 2).sum(axis=1).mean() == pytest.approx(variance, rel=0.05)
    assert ((drawn.mean(axis=0) - vector) ** 2).sum() == pytest.approx(variance / 200, rel=0.3)


@pytest.mark.parametrize(("bits", "n_seeds"), [(1, 4000), (2, 1000), (4, 1000)])
@pytest.mark.parametrize("name", QUANTISERS)
def test_over_the_seeds_of_the_wire_the_mean_of_what_is_read_is_what_was_packed(
    name: str, bits: int, n_seeds: int
) -> None:
    """A rotation is drawn from the seed as well as the rounding, and the two must not know of each other.

    There are as many entries as bits in a random word, of which each is a sign or a digit of what rounds an entry.
    """
    quantiser, whole = QUANTISERS[name](bits), np.random.default_rng(2).standard_normal(64)
    update = {"b": whole[:8], "w": whole[8:].reshape(8, 7)}
    read = np.zeros((n_seeds, whole.size))
    for server_round in range(n_seeds):
        seed = rounding_seed(1, server_round, [0])
        data, _ = pack_arrays(update, ["b", "w"], quantiser, seed)
        total = PackedSum(data, update, {}, quantiser, seed=seed, scale=1.0)
        read[server_round] = np.concatenate([total["b"], total["w"].ravel()])
    off, deviation = np.abs(read.mean(axis=0) - whole), read.std(axis=0) / np.sqrt(n_seeds)
    # Of so many normal numbers the largest exceeds this with a probability of at most 1e-6, by Gauss's tail bound. An
    # entry that is its bucket's scale is not rounded, but for the scale's own last digit.
    assert (off <= np.sqrt(2.0 * np.log(2 * whole.size / 1e-6)) * deviation + 1e-6).all()


def test_the_global_norm_is_the_papers_sign_and_magnitude_rounding() -> None:
    """``s sign(x) level / M`` with the level stochastically rounded from ``M |x| / s``."""
    vector, bits = np.random.default_rng(5).standard_normal(9), 4
    how, most = GlobalNorm(bits).rounding(vector), 2 ** (bits - 1) - 1
    share = most * np.abs(vector) / np.linalg.norm(vector)
    assert how.scale[0] == pytest.approx(np.linalg.norm(vector), rel=1e-6)
    low, up = np.floor(share), share - np.floor(share)
    positive = vector > 0
    np.testing.assert_array_equal(how.down, np.where(positive, low, -low - 1))
    np.testing.assert_allclose(how.chance, np.where(positive, up, 1 - up), atol=1e-5)


def test_the_variance_factor_of_the_global_norm_grows_with_the_vector_and_that_of_buckets_does_not() -> None:
    """At 7 bits on two million entries it is 17, not 0.0045."""
    vector = np.random.default_rng(1).standard_normal(2_000_000)
    assert GlobalNorm(7).variance_factor(vector) == pytest.approx(np.sqrt(4e6 / np.pi) / 63 - 1, rel=0.01)
    assert BucketedNorm(7).variance_factor(vector) < 5e-4


def test_a_rotation_pays_where_entries_stand_out() -> None:
    rng = np.random.default_rng(2)
    heavy = rng.standard_t(1.5, 8192)
    assert RotatedNorm(4).variance_factor(heavy, 1) < 0.5 * BucketedNorm(4).variance_factor(heavy)
    for size in (1, 2, 3, 5, 4095, 4096, 4097, 10000):
        vector = rng.standard_normal(size)
        turned = RotatedNorm(8)._turned(vector.copy(), 9)
        assert turned @ turned == pytest.approx(vector @ vector, rel=1e-12)
        np.testing.assert_allclose(RotatedNorm(8)._turned_back(turned, 9, 0), vector, atol=1e-12)


SHAPES = {"bn.weight": (5,), "c.weight": (67, 61), "d": (), "e": (0, 2), "f.weight": (129, 33), "g.bias": (3,)}


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("name", QUANTISERS)
def test_all_arrays_of_a_sum_are_one_vector(name: str, bits: int) -> None:
    """One header, the norm of all, and buckets and rotations that run on from one array to the next."""
    quantiser, rng = QUANTISERS[name](bits), np.random.default_rng(4)
    update = {key: rng.standard_normal(shape) * rng.uniform(0.1, 3.0) for key, shape in SHAPES.items()}
    whole = np.concatenate([value.ravel() for value in update.values()])
    data, factor = pack_arrays(update, list(update), quantiser, 7)
    assert data.tobytes() == quantiser.quantise(whole, np.random.default_rng([7]), 7)
    assert data.size == quantiser.n_bytes(whole.size)
    assert factor == pytest.approx(quantiser.variance_factor(whole, 7), rel=1e-9)
    read = PackedSum(data, update, {}, quantiser, seed=7, scale=2.0)
    assert {key: value.shape for key, value in read.items()} == SHAPES
    np.testing.assert_array_equal(
        np.concatenate([value.ravel() for value in read.values()]),
        2.0 * quantiser.dequantise(data.tobytes(), whole.size, 7),
    )


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 16])
@pytest.mark.parametrize("quantiser", [GlobalNorm, BucketedNorm, RotatedNorm])
def test_a_part_is_read_without_the_rest(quantiser: type[Quantiser], bits: int) -> None:
    rng = np.random.default_rng(bits)
    for size in (1, 63, 4095, 4096, 4097, 11000):
        data = quantiser(bits).quantise(rng.standard_normal(size), rng, seed=5)
        whole = quantiser(bits).dequantise(data, size, seed=5)
        for start, stop in [(0, 0), (size, size), *np.sort(rng.integers(0, size + 1, (20, 2))).tolist()]:
            part = quantiser(bits).dequantise_part(data, size, start, stop, seed=5)
            np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("name", QUANTISERS)
def test_a_long_vector_is_rounded_piece_by_piece_as_if_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vector, quantiser = np.random.default_rng(6).standard_normal(20_000), QUANTISERS[name](3)
    at_once = quantiser.quantised(vector, np.random.default_rng(1), seed=2)
    monkeypatch.setattr("fedgc.quantisers.base._AT_ONCE", 1000)
    data, variance = quantiser.quantised(vector, np.random.default_rng(1), seed=2)
    assert data == at_once[0]
    assert variance == pytest.approx(at_once[1], rel=1e-12)


@pytest.mark.parametrize("bits", [1, 4, 7, 12])
@pytest.mark.parametrize("name", QUANTISERS)
def test_a_sample_says_what_rounding_the_whole_costs(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of all entries is that of the whole, however few are looked at."""
    monkeypatch.setattr("fedgc.quantisers.base._LOOKED_AT", 100_000)
    whole, quantiser = np.random.default_rng(7).standard_normal(500_000), QUANTISERS[name](bits)
    from_a_sample = quantiser.variance_factor(whole[:100_000], 1, entries=whole.size)
    assert from_a_sample == pytest.approx(quantiser.variance_factor(whole, 1), rel=0.05)
    assert quantiser.usual_variance_factor(whole.size) == pytest.approx(quantiser.variance_factor(whole, 1), rel=0.05)


def test_a_whole_smaller_than_its_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^entries must be an integer of at least 3; got 2$"):
        GlobalNorm(4).variance_factor([1.0, 2.0, 3.0], entries=2)


@pytest.mark.parametrize("bits", range(1, 17))
def test_packed_numbers_are_read_back_to_the_bit(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in (0, 1, 7, 8, 9, 70000):
        codes = rng.integers(0, 2**bits, count).astype(np.uint16)
        data = pack_bits(codes, bits)
        assert len(data) == packed_size(count, bits) == -(-count * bits // 8)
        np.testing.assert_array_equal(unpack_bits(data, count, bits), codes)


@pytest.mark.parametrize(("bits", "fewer"), [(8, 3.5), (4, 7.0)])
@pytest.mark.parametrize("name", QUANTISERS)
def test_so_many_times_fewer_bytes_than_single_precision(name: str, bits: int, fewer: float) -> None:
    assert 4 * 100_000 / QUANTISERS[name](bits).n_bytes(100_000) > fewer


def test_no_bits_send_nothing_and_their_variance_is_infinite() -> None:
    for name in QUANTISERS:
        quantiser = QUANTISERS[name](0)
        assert quantiser.quantise([1.0, 2.0], np.random.default_rng(1)) == b""
        assert quantiser.variance([1.0, 2.0]) == quantiser.variance_factor([1.0, 2.0]) == np.inf
        assert quantiser.dequantise(b"", 2).tolist() == [0.0, 0.0]
        assert quantiser.n_bytes(2) == 0


@pytest.mark.parametrize("name", QUANTISERS)
def test_vectors_of_nothing_and_of_zeros(name: str) -> None:
    quantiser, rng = QUANTISERS[name](3), np.random.default_rng(1)
    assert quantiser.dequantise(quantiser.quantise([], rng), 0).size == 0
    assert quantiser.dequantise(quantiser.quantise(np.zeros(4), rng), 4).tolist() == [0.0] * 4
    assert quantiser.variance_factor(np.zeros(4)) == 0.0


@pytest.mark.parametrize("bits", [-1, 17, 2.5, True])
def test_bits_outside_of_0_to_16_are_an_error(bits: object) -> None:
    with pytest.raises(ValueError, match=r"^bits must be an integer from 0 to 16; got "):
        BucketedNorm(bits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vector", "what"),
    [([1.0, np.nan], "NaN"), ([[1.0]], r"shape \(1, 1\)"), ([1e300], "single precision; got 1e\\+300")],
)
def test_a_vector_that_cannot_be_rounded_is_an_error(vector: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        BucketedNorm(4).quantise(vector, np.random.default_rng(1))  # type: ignore[arg-type]


def test_bytes_that_are_no_packed_vector_are_an_error() -> None:
    quantiser = BucketedNorm(4, bucket=4)
    good = quantiser.quantise(np.arange(9.0), np.random.default_rng(1))

    def refused(data: bytes, why: str, size: int = 9) -> None:
        with pytest.raises(ValueError, match=re.escape(why)) as error:
            quantiser.dequantise(data, size)
        assert "\n" not in str(error.value)

    refused(b"", "9 entries of 4 bits must take 33 bytes; got 0")
    refused(good[:-1], "got 32")
    refused(good + b"\0", "got 34")
    refused(good, "must take", size=8)
    refused(b"x" + good[1:], "must begin with")
    refused(good[:8] + (2**63).to_bytes(8, "little") + good[16:], "9223372036854775808")
    refused(GlobalNorm(4).quantise(np.arange(25.0), np.random.default_rng(1)), "must begin with", size=9)
    for scale in (np.nan, np.inf, -1.0):
        bad = good[:20] + np.array(scale, "<f4").tobytes() + good[24:]
        refused(bad, f"the scale of bucket 1 must be finite and at least 0; got {scale}")
    refused(good[:-1] + bytes([good[-1] | 0x80]), "the bits beyond the last of 9 numbers must be zero")


def test_whatever_the_bytes_no_other_error_and_no_number_beyond_the_scale() -> None:
    rng = np.random.default_rng(8)
    for name in QUANTISERS:
        quantiser = QUANTISERS[name](5)
        good = quantiser.quantise(rng.standard_normal(40), rng)
        for _ in range(300):
            data = bytearray(good)
            data[rng.integers(len(data))] = rng.integers(256)
            try:
                read = quantiser.dequantise(bytes(data), 40)
            except ValueError:
                continue
            assert np.isfinite(read).all()
