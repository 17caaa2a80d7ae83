"""Rounding in a plan: its noise, by enumeration, and the seconds that fewer bytes save."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.arrivals import IndependentArrivals
from fedgc.codes import Code, CyclicRepetition, FractionalRepetition
from fedgc.decoders import DECODERS, OptimalUnbiasedDecoder
from fedgc.decoders.optimal_quantised import noisy_gram
from fedgc.errors import ConfigError
from fedgc.fleets import Fleet, build_fleet
from fedgc.forecast import forecast_round
from fedgc.gram import GramModel
from fedgc.planning import SentSums, candidates, plan_fleet, sent_sums
from fedgc.planning.rounding import noise_apart, with_noise
from fedgc.quantisers import BucketedNorm, GlobalNorm
from tests.test_plan_command import fleet_file, plan

__all__ = ["fleet_file"]

PROB = np.array([0.1, 0.4, 0.3, 0.2])
GRAM = GramModel([1.0, 2.0, 0.5, 0.8], [0.3, 0.8, 0.4, 0.6])
OMEGA = 0.37


def enumerated(code: Code, name: str, gram: GramModel, omega: float) -> float:
    """Return the residual error with rounding in it, over all sets of arrivals; equal rows are rounded alike."""
    noisy = noisy_gram(code, gram, omega)
    calibrated = DECODERS[name]().calibrate(code, IndependentArrivals(PROB), noisy or gram)
    rows = calibrated.code.sparse_matrix.toarray()  # some decoders scale them
    error, ones = 0.0, np.ones(code.n_shards)
    for came in itertools.product((False, True), repeat=code.n_clients):
        weight = np.where(came, 1.0 - PROB, PROB).prod()
        decoding = calibrated.decode(np.array(came))
        off = decoding.coverage - 1.0
        noise = 0.0
        for row in np.unique(rows, axis=0):
            total = decoding.decoding_weights[(rows == row).all(axis=1)].sum()
            noise += omega * gram.inner(row, row) * total**2
        error += weight * (gram.inner(off, off) + noise)
    return float(error / gram.inner(ones, ones))


@pytest.mark.parametrize("name", ["optimal-unbiased", "fixed", "inverse-probability"])
def test_of_copies_that_are_rounded_alike_the_noise_is_energy(name: str) -> None:
    code = FractionalRepetition([0, 0, 1, 1], [0, 1, 1, 0])
    noisy = noisy_gram(code, GRAM, OMEGA)
    assert noisy is not None
    calibrated = DECODERS[name]().calibrate(code, IndependentArrivals(PROB), noisy)
    assert calibrated.residual_error is not None
    predicted = with_noise(calibrated.residual_error, GRAM, noisy)
    assert predicted == pytest.approx(enumerated(code, name, GRAM, OMEGA), rel=1e-12)
    if name == "optimal-unbiased":
        known = OptimalUnbiasedDecoder(variance_factor=OMEGA, shared_rounding=True)
        assert predicted == pytest.approx(known.calibrate(code, PROB, GRAM).residual_error, rel=1e-12)


@pytest.mark.parametrize("name", ["fixed", "fixed-general", "inverse-probability"])
def test_sums_that_overlap_are_rounded_apart(name: str) -> None:
    code = CyclicRepetition(4, 2, rng=np.random.default_rng(1))
    assert noisy_gram(code, GRAM, OMEGA) is None
    calibrated = DECODERS[name]().calibrate(code, IndependentArrivals(PROB), GRAM)
    assert calibrated.residual_error is not None
    predicted = calibrated.residual_error + noise_apart(calibrated, 1.0 - PROB, GRAM, OMEGA)
    assert predicted == pytest.approx(enumerated(code, name, GRAM, OMEGA), rel=1e-12)


def small(**settings: Any) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": 4, "sigma": 0.2, "dropout": 0.3, **settings}, seed=1)


@pytest.mark.parametrize("coherence", [0.0, 0.4])
def test_what_a_plan_says_of_its_blocks_is_what_the_decoder_that_knows_predicts(coherence: float) -> None:
    fleet, deadline, four = small(), 5.0, sent_sums(4)
    found = plan_fleet(fleet, n_shards=8, redundancies=(2,), deadlines=[deadline], coherence=coherence, sums=[four])
    said = {(c.schedule, c.code, c.decoder): c.residual_error for c in found.choices}
    assert {choice.bits for choice in found.choices} == {4}
    gram = GramModel.uniform(8, coherence)
    tried = 0
    for one in candidates(fleet, deadline, n_shards=8, redundancies=[2], schemes=False):
        if one.decoder_name == "optimal-unbiased":
            knows = OptimalUnbiasedDecoder(variance_factor=four.variance_factor, shared_rounding=True)
            seen, _ = forecast_round(fleet, one.code, knows, gram, deadline, clients=one.clients)
            assert said[one.schedule, one.name, one.decoder_name] == pytest.approx(seen.residual_error, rel=1e-9)
            tried += 1
    assert tried == 2
    assert {"cyclic-repetition", "sgc"} & {code for _, code, _ in said}  # overlapping rows, too


def test_sums_that_are_sent_as_they_are_change_nothing() -> None:
    options: dict[str, Any] = {"n_shards": 8, "redundancies": (1, 2), "deadlines": [4.0]}
    assert plan_fleet(small(), sums=[sent_sums(32)], **options) == plan_fleet(small(), **options)


def test_the_noise_falls_by_a_quarter_with_every_bit() -> None:
    options: dict[str, Any] = {"n_shards": 8, "redundancies": (1,), "deadlines": [4.0], "schemes": False}
    errors = [
        plan_fleet(small(dropout=0.0), sums=[sent_sums(b)], **options).choices[0].residual_error for b in (4, 5, 6, 32)
    ]
    noise = np.array(errors[:3]) - errors[3]
    assert (noise > 0.0).all()
    np.testing.assert_allclose(noise[:-1] / noise[1:], 4.0, rtol=0.2)


def test_factors_are_measured_by_the_quantiser_on_what_is_given() -> None:
    sample = np.random.default_rng(2).standard_t(2, size=(50, 40))
    for kind in (BucketedNorm, GlobalNorm):
        measured = sent_sums(3, quantiser=kind.name, sample=sample, entries=2000)
        assert measured.variance_factor == kind(3).variance_factor(sample.ravel())
        assert measured.n_bytes == kind(3).n_bytes(2000)
    assert sent_sums(32, entries=10).n_bytes == 40


@pytest.mark.parametrize("bits", [4, 12])
def test_factors_of_models_that_are_too_long_to_round_are_theirs(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a global norm a longer vector has a coarser grid, also where only a part of it is looked at."""
    exact = [sent_sums(bits, quantiser="global-norm", entries=10**n).variance_factor for n in (4, 6)]
    assert exact[1] > 8.0 * exact[0]
    monkeypatch.setattr("fedgc.quantisers.base._LOOKED_AT", 20_000)
    measured = sent_sums(bits, quantiser="global-norm", entries=10**6).variance_factor
    assert measured == pytest.approx(exact[1], rel=0.03)
    part = np.random.default_rng(5).standard_normal(20_000)
    for kind in (BucketedNorm, GlobalNorm):
        of_all = sent_sums(bits, quantiser=kind.name, entries=10**6).variance_factor
        told = sent_sums(bits, quantiser=kind.name, entries=10**6, sample=part).variance_factor
        assert told == pytest.approx(of_all, rel=0.05)


def test_sending_takes_the_seconds_of_a_sum_on_whole_blocks_and_of_all_of_a_list() -> None:
    options: dict[str, Any] = {"n_shards": 8, "redundancies": (2,), "deadlines": [9.0], "schemes": False}
    found = plan_fleet(small(), sums=[SentSums(32, 0.0, 4, seconds=0.5)], **options)
    for schedule, overhead in (("full", 0.5), ("work-list", 2.0)):  # of four shards each
        slower = plan_fleet(small(overhead=overhead), **options)
        times = [[c.round_time for c in one.choices if c.schedule == schedule] for one in (found, slower)]
        assert times[0] == times[1]
        errors = [[c.residual_error for c in one.choices if c.schedule == schedule] for one in (found, slower)]
        assert errors[0] == errors[1]


@pytest.mark.parametrize(("mbps", "bits"), [(1e5, 32), (8.0, 8), (0.05, 4)])
def test_the_slower_the_link_the_fewer_the_bits(mbps: float, bits: int) -> None:
    sums = [sent_sums(b, upload_mbps=mbps) for b in (4, 8, 32)]
    found = plan_fleet(small(), n_shards=8, redundancies=(1,), schemes=False, sums=sums)
    assert found.recommended.bits == bits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 17}, "bits must be an integer from 1 to 16, or 32 for none rounded; got 17"),
        ({"bits": 0}, "bits must be an integer from 1 to 16, or 32 for none rounded; got 0"),
        (
            {"bits": 8, "quantiser": "x"},
            "quantiser must be one of bucketed-norm, global-norm, rotated-norm; got 'x'",
        ),
        ({"bits": 8, "entries": 0}, "entries must be an integer from 1 to 1000000000; got 0"),
        ({"bits": 8, "upload_mbps": 0.0}, "upload_mbps must be a finite number above 0; got 0.0"),
        ({"bits": 8, "sample": [0.0, 0.0]}, "sample must hold finite numbers, not all 0; got 2 entries"),
        ({"bits": 8, "sample": [np.nan]}, "sample must hold finite numbers, not all 0; got 1 entries"),
    ],
)
def test_what_cannot_be_sent_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        sent_sums(**options)
    assert str(told.value) == message


SMALL = ("--shards", 10, "--redundancy", 1, "--redundancy", 2, "--deadline", 3)


def test_bits_on_the_command_line(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = fleet_file.parent / "update.npy"
    np.save(sample, np.random.default_rng(0).standard_normal((30, 20)))
    assert plan(monkeypatch, fleet_file, *SMALL, "--bits", 2, "--bits", 8, "--sample", sample) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("decoder" in line and " bits" in line for line in lines)
    assert "sums are best rounded to 8 bits" in lines
    picture = fleet_file.parent / "plan.png"
    assert plan(monkeypatch, fleet_file, *SMALL, "--upload-mbps", 4, "--plot", picture, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {line["bits"] for line in found["choices"]} == {4, 8, 16, 32}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bits", 17), "fedgc: bits must be an integer from 1 to 16, or 32 for none rounded; got 17"),
        (("--entries", 8), "fedgc: --entries must be left out without --bits or --upload-mbps; got 8"),
        (("--bits", 8, "--sample", "none.npy"), "fedgc: --sample must be a .npy file of numbers; got 'none.npy' ("),
    ],
)
def test_bad_bits_on_the_command_line(
    arguments: tuple[Any, ...],
    message: str,
    fleet_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert plan(monkeypatch, fleet_file, *arguments) != 0
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1


def test_a_recorded_trace_has_the_sending_in_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("client,round,seconds\n0,0,2.0\n1,0,3.0\n0,1,2.5\n1,1,missed\n")
    fleet = build_fleet({"model": "trace", "trace": str(trace)}, seed=1)
    with pytest.raises(ConfigError, match="upload_mbps must be left out for a recorded trace"):
        plan_fleet(fleet, n_shards=4, redundancies=(1,), sums=[sent_sums(8, upload_mbps=1.0)])
    rounded = plan_fleet(fleet, n_shards=4, redundancies=(1,), deadlines=[9.0], sums=[sent_sums(2)])
    plain = plan_fleet(fleet, n_shards=4, redundancies=(1,), deadlines=[9.0])
    assert rounded.recommended.residual_error > plain.recommended.residual_error
