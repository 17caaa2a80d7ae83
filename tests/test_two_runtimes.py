"""One app, two runtimes: virtual time in one process, and Flower's SuperLink with Ray, come to the same models."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.simulation import run_virtual
from tests.apps import steady
from tests.flower_runtime import flower_run_beside, needs_proc

pytestmark = pytest.mark.alone

APP = Path(__file__).parent / "scripted_app"


Models = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    """The app's modules, as Flower imports them from its folder."""
    names = ("script", "task", "client_app", "server_app")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(APP))
        yield dict(zip(names, (importlib.import_module(f"scripted_app.{name}") for name in names), strict=True))
    for name in [name for name in sys.modules if name.split(".")[0] == "scripted_app"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def in_virtual_time(app: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Models]:
    """Return what gives the models of a run in virtual time, with the clients numbered so much further on."""

    @cache
    def run(rotate: int) -> Models:
        fleet, out = steady(app["script"].N_CLIENTS, median=0.1), tmp_path_factory.mktemp("virtual") / "out.npz"
        run = run_virtual(
            app["server_app"].app, app["client_app"].app, fleet, run_config={"out": str(out), "rotate": rotate}
        )
        assert {event.detail for event in run.trace if event.kind == "failed"} == {"RuntimeError: it is written"}
        return dict(np.load(out))

    return run


@needs_proc
def test_the_same_models_in_both_runtimes(
    app: dict[str, Any], in_virtual_time: Callable[[int], Models], tmp_path: Path
) -> None:
    """After every round, to 1e-5. Node ids differ: clients are told apart by their order in these, not by partition."""
    (tmp_path / "flower").mkdir()
    out = tmp_path / "flower.npz"
    with flower_run_beside(
        APP,
        *("--federation-config", "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=2"),
        *("--run-config", f"out='{out}'"),
        folder=tmp_path / "flower",
        result=out,
    ):
        virtual = in_virtual_time(0)
        in_virtual_time(1)  # while Flower starts, for the test below
    flower = dict(np.load(out))
    assert flower.keys() == virtual.keys()
    for name, value in virtual.items():
        np.testing.assert_allclose(flower[name], value, atol=1e-5, err_msg=name)
    script = app["script"]
    assert len(set(app["task"].shard_examples())) == script.N_SHARDS
    for case, fates in script.FATES.items():
        expected = [sum(fate not in (script.FAILS, script.LATE, 0) for fate in fates_now) for fates_now in fates]
        assert flower[f"{case}/came"].tolist() == expected
        accuracy = flower[f"{case}/accuracy"]
        assert accuracy[-1] > accuracy[0] + 0.2, accuracy


def test_it_matters_who_comes(app: dict[str, Any], in_virtual_time: Callable[[int], Models]) -> None:
    """Were the clients numbered otherwise in one of the runtimes, the comparison above would fail."""
    here, there = in_virtual_time(0), in_virtual_time(1)
    for case, fates in app["script"].FATES.items():
        last = [name for name in here if name.startswith(f"{case}/{len(fates)}/")]
        assert max(float(np.abs(here[name] - there[name]).max()) for name in last) > 1e-3, case
    names = [f"{case}/1/weight" for case in app["script"].FATES]
    assert all((here[one] != here[other]).any() for one, other in itertools.combinations(names, 2))
