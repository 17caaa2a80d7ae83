"""Calibration and decoding from ten thousand blocks to a million: `pytest experiments/benchmarks/bench_decoding.py`."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import FractionalRepetition, WorkLists
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.gram import GramModel


def pairs(n_blocks: int) -> tuple[FractionalRepetition, np.ndarray, GramModel]:
    """Blocks of one shard and two members each, with unequal chances."""
    rng = np.random.default_rng(0)
    code = FractionalRepetition(np.arange(2 * n_blocks) % n_blocks, np.arange(n_blocks))
    return code, rng.uniform(0.05, 0.95, 2 * n_blocks), GramModel.uniform(n_blocks, 0.5)


@pytest.mark.parametrize("n_blocks", [10**4, 10**5, 10**6])
def test_calibrate_whole_blocks(benchmark: BenchmarkFixture, n_blocks: int) -> None:
    """Two members per block, each all or nothing."""
    code, p, gram = pairs(n_blocks)
    rounds = 3 if n_blocks > 10**5 else 10
    calibrated = benchmark.pedantic(OptimalUnbiasedDecoder().calibrate, (code, p, gram), rounds=rounds, warmup_rounds=1)
    assert calibrated.rounding < 1e-10
    # The process's peak in kilobytes, sizes in growing order: nothing larger came before.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 10**6


@pytest.mark.parametrize("n_blocks", [10**4, 10**5, 10**6])
def test_decode_whole_blocks(benchmark: BenchmarkFixture, n_blocks: int) -> None:
    """The weights of one round."""
    code, p, gram = pairs(n_blocks)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, gram)
    arrived = np.random.default_rng(1).random(code.n_clients) >= p
    benchmark.pedantic(calibrated.decode, (arrived,), rounds=50, warmup_rounds=3)


@pytest.mark.parametrize("what", ["calibrate", "decode"])
@pytest.mark.parametrize("n_blocks", [10**2, 10**3, 10**4])
def test_work_lists(benchmark: BenchmarkFixture, n_blocks: int, what: str) -> None:
    """Pairs that work four shards from both ends: 25 states per block."""
    rng = np.random.default_rng(0)
    lists = [
        [4 * block + shard for shard in order] for block in range(n_blocks) for order in ([0, 1, 2, 3], [3, 2, 1, 0])
    ]
    code = WorkLists(lists, 4 * n_blocks)
    arrivals = ProgressArrivals(code, list(rng.dirichlet(np.ones(5), 2 * n_blocks)))
    gram = GramModel.uniform(4 * n_blocks, 0.5)
    if what == "calibrate":
        benchmark.pedantic(OptimalUnbiasedDecoder().calibrate, (code, arrivals, gram), rounds=3)
        return
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    arrived = arrivals.draw(1, rng)[0]
    benchmark.pedantic(calibrated.decode, (arrived,), rounds=5, warmup_rounds=1)
