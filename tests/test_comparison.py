"""Schemes side by side, and the command that prints them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from fedgc.cli import app
from fedgc.comparison import compare, draw_comparison, select_schemes
from fedgc.errors import ConfigError
from fedgc.fleets import presets
from fedgc.schemes import PAPER_SCHEMES, SCHEMES

CELLS = [(tau, coherence) for tau in (1.1, 1.5) for coherence in (0.0, 0.5, 0.9)]


@pytest.mark.parametrize(("tau", "coherence"), CELLS)
def test_balanced_blocks_decoded_optimally_beat_the_paper_fivefold(tau: float, coherence: float) -> None:
    """The median over 100 draws of p, all of it in closed form."""
    schemes = select_schemes(["fractional-repetition"])
    lines = compare("paper", clients=100, deadline=tau, coherence=coherence, load=2, draws=100, schemes=schemes)
    by_decoder = {line.decoder: line for line in lines if line.scheme == "fractional-repetition"}
    ours = by_decoder["optimal-unbiased"]
    assert ours.ratio_to_paper >= 5.0
    assert ours.residual_error <= by_decoder["fixed"].residual_error
    assert (ours.load, ours.standard_error) == (2.0, 0.0)
    assert ours.bias < 1e-12


def test_all_schemes_have_equal_load_but_uncoded() -> None:
    lines = compare("paper", clients=20, deadline=1.5, coherence=0.5, draws=30, arrival_draws=20)
    assert [(line.scheme, line.decoder) for line in lines] == [(scheme.name, scheme.decoder) for scheme in SCHEMES]
    for line in lines:
        # The base paper's schemes lack one copy; the Bernoulli code has two on average and a copy for lost shards.
        limits = {"uncoded": (1, 1), "bernoulli": (1.8, 2.5)}.get(line.scheme, (1.95, 2.0))
        assert limits[0] <= line.load <= limits[1], line
        assert line.residual_error > 0
        assert (line.standard_error > 0) == (line.decoder == "least-squares")
    unbiased = {"inverse-probability", "fixed", "optimal-unbiased"}
    assert all((line.bias < 1e-9) == (line.decoder in unbiased) for line in lines)
    paper = [line for line in lines if line.scheme in PAPER_SCHEMES]
    assert max(line.ratio_to_paper for line in paper) <= 1.0


def test_the_command_prints_json_and_a_table() -> None:
    options = ["analyze", "--clients", "10", "--draws", "3", "--tau", "1.5", "--coherence", "0.5", "--seed", "4"]
    printed = CliRunner().invoke(app, [*options, "--json"])
    lines = json.loads(printed.stdout)
    assert len(lines) == len(SCHEMES)
    keys = {"scheme", "decoder", "load", "residual_error", "bias", "standard_error", "ratio_to_paper"}
    assert all(set(line) == keys and np.isfinite(line["residual_error"]) for line in lines)
    assert json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout) == lines
    table = CliRunner().invoke(app, [*options, "--scheme", "sgc"]).stdout
    assert re.search(r"sgc +inverse-probability +2.00", table)
    assert "uncoded" not in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coherence": 1.0}, r"coherence must lie in \[0, 1\); got 1.0"),
        ({"load": 11}, "load must be an integer from 1 to clients = 10; got 11"),
        ({"draws": 0}, "draws must be an integer of at least 1; got 0"),
        ({"draws": 10**30}, f"draws must be an integer from 1 to 10000000; got {10**30}"),
        ({"clients": 0}, "clients must be an integer of at least 1; got 0"),
        ({"clients": 10**30}, f"clients must be an integer from 1 to 10000000; got {10**30}"),
        ({"deadline": 0.5}, "deadline must be long enough for every client to make it at times; got 0.5"),
        ({"deadline": -1.0}, "deadline must be a finite number above 0; got -1.0"),
    ],
)
def test_impossible_comparisons_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare("paper", **{"clients": 10, "deadline": 1.5, "coherence": 0.5, "draws": 1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tau", "nan"], "--tau must be a finite number above 0; got nan"),
        (["--tau", "1.5", "--tau", "-2"], "--tau must be a finite number above 0; got -2.0"),
        (["--tau", "0.5"], "--tau must be long enough for every client to make it at times; got 0.5"),
        (
            ["--tau", "0.5", "--plot", "x.png"],
            "--tau must be long enough for every client to make it at times; got 0.5",
        ),
        (["--coherence", "inf"], "coherence must lie in [0, 1); got inf"),
        (["--fleet", "tablets"], f"--fleet must be one of {', '.join(sorted(presets()))}; got 'tablets'"),
    ],
)
def test_the_command_calls_what_is_wrong_as_its_options_do(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["analyze", "--clients", "4", "--draws", "1", *options])
    assert isinstance(done.exception, ConfigError)
    assert (str(done.exception), done.stdout) == (message, "")


def test_schemes_that_never_err_are_as_good_as_each_other() -> None:
    lines = compare("paper", clients=4, deadline=1e300, coherence=0.5, draws=1)
    assert all((line.residual_error, line.ratio_to_paper) == (0.0, 1.0) for line in lines if line.scheme == "uncoded")
    assert not any(np.isnan(line.ratio_to_paper) for line in lines)


def test_unknown_fleets_and_schemes_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"fleet.preset must be one of accelerators, .*, uneven; got 'x'"):
        compare("x", clients=4, deadline=1.5, coherence=0.5, draws=1)
    with pytest.raises(ConfigError, match=r"scheme must be one of uncoded, scheme-I, .*; got 'y'"):
        select_schemes(["y"])
    with pytest.raises(ConfigError, match=r"--plot must be a .png, .svg or .pdf file"):
        draw_comparison(tmp_path / "x.gif", lambda rho: [], "title")


def test_the_plot_is_drawn(tmp_path) -> None:  # type: ignore[no-untyped-def]
    schemes = select_schemes(["fractional-repetition"])
    options = {"clients": 10, "deadline": 1.5, "draws": 2, "schemes": schemes}
    draw_comparison(tmp_path / "x.png", lambda rho: compare("paper", coherence=rho, **options), "title")  # type: ignore[arg-type]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_several_cells_come_from_one_command() -> None:
    options = ["analyze", "--clients", "6", "--draws", "2", "--scheme", "sgc", "--tau", "1.1", "--tau", "1.5"]
    printed = CliRunner().invoke(app, [*options, "--coherence", "0", "--coherence", "0.5", "--json"])
    cells = {(line["tau"], line["coherence"]) for line in json.loads(printed.stdout)}
    assert cells == {(1.1, 0.0), (1.1, 0.5), (1.5, 0.0), (1.5, 0.5)}
    assert CliRunner().invoke(app, options).stdout.count("deadline 1.") == 2
