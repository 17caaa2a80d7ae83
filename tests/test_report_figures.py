"""Figures of reports with many strategies and conditions: what is in colour, and that all of it can be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedgc.experiment.target import Target
from fedgc.report.curves import curve_figure
from fedgc.report.figures import calibration_figure, way_figure
from fedgc.report.read import Run
from fedgc.report.shown import MOST, shown
from fedgc.report.style import GREY, PAGE
from fedgc.report.tables import Entry, mean_and_half_width

TARGET = Target("loss", 0.1)


def entry_of(strategy: str, condition: str, rounds: Sequence[float], end: float = 0.1) -> Entry:
    """Return what a strategy took with each seed; of seeds that never got there the loss ends above the target."""
    runs = []
    for seed, reached in enumerate(rounds):
        never = not np.isfinite(reached)
        clock = np.linspace(0.0, 1000.0 if never else reached, 5)
        loss = np.geomspace(2.0, 10.0 * end if never else end, 5)
        errors = np.full((3, 5), [[0.5], [0.6 + 0.01 * seed], [0.4]])
        nothing = np.full(5, np.nan)
        runs.append(Run(strategy, {}, {}, seed, clock, clock, 1.0 - loss / 2.5, loss, *errors, nothing, nothing))
    values = np.array(rounds, dtype=np.float64)
    return Entry(strategy, {"preset": condition}, {}, 1, tuple(runs), values, *mean_and_half_width(values))


def many(strategies: int, conditions: int) -> list[Entry]:
    """Return entries of which a later strategy takes longer; the last ones fail with one of three seeds."""
    found = []
    for condition in range(conditions):
        for index in range(strategies):
            rounds = [50.0 * (index + 1), 60.0 * (index + 1)]
            rounds += [np.inf if index > strategies - 4 else 55.0 * (index + 1)]
            found.append(entry_of(f"the strategy that is number {index}", f"condition {condition}", rounds))
    return found


def test_few_strategies_are_all_in_colour() -> None:
    assert shown(many(MOST, 2), None) == [f"the strategy that is number {index}" for index in range(MOST)]


def test_the_reference_the_soonest_of_each_condition_and_the_soonest_over_all_are_in_colour() -> None:
    found = [
        *(entry_of(f"s{index}", "a", [10.0 + index]) for index in range(12)),
        # Under the other condition one is soonest that is among the last under the first.
        entry_of("s11", "b", [1.0]),
        *(entry_of(f"s{index}", "b", [10.0 + index]) for index in range(11)),
    ]
    assert shown(found, "s10") == ["s0", "s1", "s2", "s3", "s4", "s5", "s10", "s11"]
    assert shown(found) == ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s11"]


def test_who_reaches_the_target_with_more_seeds_comes_first_and_then_who_ends_lower() -> None:
    never = [entry_of(f"never {index}", "a", [np.inf, np.inf], end=0.2 - 0.01 * index) for index in range(8)]
    found = [*never, entry_of("once", "a", [900.0, np.inf]), entry_of("always", "a", [990.0, 999.0])]
    assert shown(found) == [*(f"never {index}" for index in range(2, 8)), "once", "always"]


def lines_of(axes: Axes) -> dict[str, list[str]]:
    """Return the colours of a panel's lines, those that are long enough to be curves."""
    colours = [to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) > 2]
    grey = [colour for colour in colours if colour == to_hex(GREY)]
    return {"grey": grey, "coloured": [colour for colour in colours if colour != to_hex(GREY)]}


@pytest.fixture(scope="module")
def wide() -> list[Entry]:
    return many(22, 8)


def test_others_are_grey_with_one_entry_of_the_legend(wide: list[Entry]) -> None:
    figure = curve_figure(wide, "loss", "rounds", TARGET, "the strategy that is number 20")
    panels = [lines_of(axes) for axes in figure.axes]
    assert len(panels) == 8
    for panel in panels:
        assert len(panel["grey"]) == 22 - MOST and len(set(panel["coloured"])) == MOST
        assert panel["coloured"] == panels[0]["coloured"]  # entries are in one order, and so are colours
    (legend,) = figure.legends
    first = [f"the strategy that is number {index}" for index in range(MOST - 1)]
    assert [text.get_text() for text in legend.get_texts()] == [*first, "the strategy that is number 20", "others (14)"]


def figures_of(found: list[Entry]) -> dict[str, Figure]:
    calibration = calibration_figure(found, found[0].strategy)
    assert calibration is not None
    return {
        "loss": curve_figure(found, "loss", "seconds", TARGET),
        "accuracy": curve_figure(found, "accuracy", "rounds", Target("accuracy", 0.95)),
        "way": way_figure(found, TARGET, "seconds"),
        "calibration": calibration,
    }


@pytest.mark.parametrize(("strategies", "conditions"), [(22, 8), (10, 4), (3, 1)])
def test_figures_fit_a_page_with_letters_of_seven_points_and_nothing_on_top_of_them(
    strategies: int, conditions: int
) -> None:
    for name, figure in figures_of(many(strategies, conditions)).items():
        figure.draw_without_rendering()
        assert figure.get_figwidth() <= PAGE
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert texts and min(text.get_fontsize() for text in texts) >= 7.0, name
        assert all(axes.get_xlabel() or figure.get_supxlabel() for axes in figure.axes[-1:]), name
        bottom = min(axes.get_tightbbox().y0 for axes in figure.axes)
        assert all(legend.get_window_extent().y1 <= bottom + 1.0 for legend in figure.legends), name
        for axes in figure.axes:
            for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
                boxes = [text.get_window_extent() for text in labels if text.get_text() and text.get_visible()]
                assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes)), name
            for text in axes.texts:
                assert text.get_window_extent().x1 <= figure.bbox.x1 + 1.0, name


def test_all_panels_have_one_kind_of_scale() -> None:
    # Under the first condition the last strategy takes thirty times as long as the first, under the other all do alike.
    found = [entry_of(f"s{index}", "a", [10.0 * (index + 1)] * 2) for index in range(30)]
    found += [entry_of(f"s{index}", "b", [100.0, 120.0]) for index in range(30)]
    assert {axes.get_xscale() for axes in way_figure(found, TARGET, "rounds").axes} == {"log"}
    near = [entry_of("s0", "a", [10.0]), entry_of("s0", "b", [100.0])]
    assert {axes.get_xscale() for axes in way_figure(near, TARGET, "rounds").axes} == {"linear"}
    shallow = [*near, entry_of("s0", "c", [10.0], end=1.5)]
    assert {axes.get_yscale() for axes in curve_figure(shallow, "loss", "rounds", TARGET).axes} == {"log"}


def test_axes_end_with_the_lines_in_colour() -> None:
    found = [entry_of(f"s{index}", "a", [100.0 + index]) for index in range(MOST)]
    found += [entry_of("late", "a", [900.0])]
    (axes,) = curve_figure(found, "loss", "rounds", TARGET).axes
    assert 100.0 + MOST - 1 <= axes.get_xlim()[1] < 115.0


def test_a_strategy_has_the_same_look_in_curves_and_in_the_calibration(wide: list[Entry]) -> None:
    def looks(figure: Figure) -> dict[str, tuple[str, str]]:
        (legend,) = figure.legends
        return {
            text.get_text(): (to_hex(handle.get_color()), str(handle.get_marker()))  # type: ignore[attr-defined]
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }

    curves = looks(curve_figure(wide, "loss", "rounds", TARGET))
    points = calibration_figure(wide)
    assert points is not None
    marks = looks(points)
    assert len(marks) == 22 and len(set(marks.values())) == 22
    assert all(marks[label] == look for label, look in curves.items() if label in marks)
    # Without predictions of those in colour the others take what they would have.
    coloured = set(shown(wide))
    bare = [entry for entry in wide if entry.condition["preset"] == "condition 0"]
    known = [one for one in bare if one.strategy not in coloured][:3]
    for entry in bare:
        if entry not in known:
            for run in entry.runs:
                run.predicted[:] = np.nan
    few = calibration_figure(bare)
    assert few is not None
    assert list(looks(few).values()) == list(curves.values())[:3]
