"""All figures of an experiment: what is drawn is what the tables say, whatever its names are."""

import logging
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from figure_making import masks, recorded
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from spine_tasks.collect.gathered import Gathered
from spine_tasks.errors import ConfigError
from spine_tasks.figures import everything
from spine_tasks.figures.confusion import box_tables, draw_confusion
from spine_tasks.figures.cost import draw_cost
from spine_tasks.figures.curves import TOGETHER, training_curves
from spine_tasks.figures.factors import draw_factors
from spine_tasks.figures.plots import box_plot, paired_differences
from spine_tasks.figures.style import LINES, LONG_NAME, MARKERS, drawn, look, marker, name_lines
from spine_tasks.metrics.box_scores import SET
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.summary import summary

HOSTILE = [
    r"_a=$x_1$ b=$\frac{1}$",
    "<b>&\"'</b>]]>",
    "ends\x00 red\x1b[31m",
    "größe=脊髓 שלום",
    "init=" + "very_long_name_" * 40,
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def figures(monkeypatch):
    return recorded(monkeypatch)


def make_cases(arms, label="cord"):
    rows = [
        {"cell": arm, "arm": arm, "seed": 0, "person": f"p{n}", "case": f"p{n}", "slice": None}
        | {"label": label, "metric": "HSD", "value": float(n * (place + 1))}
        for place, arm in enumerate(arms)
        for n in range(3)
    ]
    return pd.DataFrame(rows)


def make_histories(arms, seeds):
    rows = [
        {"arm": arm, "seed": seed, "fold": 0, "epoch": epoch, "best_epoch": 1}
        | {"loss": place + seed / 10 + epoch / 100}
        for place, arm in enumerate(arms)
        for seed in range(seeds)
        for epoch in range(3)
    ]
    return pd.DataFrame(rows)


def make_effects(label="cord"):
    effects = [("init", "pretrained", "scratch", 0.25), ("augment", "True", "False", -0.5)]
    rows = [
        {"label": label, "factor": factor, "level": level, "baseline_level": other, "n": 12}
        | {"mean_difference": mean, "low": mean - 0.1, "high": mean + 0.3}
        for factor, level, other, mean in effects
    ]
    return pd.DataFrame(rows)


def make_runs(arms, **columns):
    return pd.DataFrame({"arm": arms, "role": "arm", "seconds": 7200.0} | columns)


def box(file, arms, label="cord"):
    box_plot(make_cases(arms, label), "HSD", label, file)


def pairs(file, arms, label="cord"):
    cases = make_cases(arms, label)
    paired_differences(cases, comparisons(cases, arms[0]), "HSD", label, arms[0], file)


def curves(file, arms, label="loss"):
    training_curves(make_histories(arms, 1).assign(**{label: 1.0}), file, label)


def curves_apart(file, arms, label="loss"):
    training_curves(make_histories(arms, TOGETHER).assign(**{label: 1.0}), file, label)


def cost(file, arms, label="cord"):
    draw_cost(summary(make_cases(arms, label)), make_runs(arms), "HSD", arms, file)


def factors(file, arms, label="cord"):
    draw_factors(make_effects(label).assign(factor=arms[:2], level=arms[-1]), "HSD", file)


def confusion(file, arms, label="cord"):
    table = np.arange(4.0).reshape(2, 2)
    draw_confusion(dict.fromkeys(arms, table), [label, "b"], (label, "given", "boxes"), file)


DRAW = [box, pairs, curves, curves_apart, cost, factors, confusion]


@pytest.mark.parametrize("draw", DRAW)
def test_an_svg_is_the_same_twice_well_formed_and_its_text_is_text(draw, tmp_path):
    files = [tmp_path / "one" / "x.png", tmp_path / "two" / "x.png"]
    for file in files:
        draw(file, ["first", "second"])
    one, two = (file.with_suffix(".svg").read_bytes() for file in files)
    assert one == two
    assert files[0].read_bytes() == files[1].read_bytes()
    root = ElementTree.fromstring(one)
    words = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert any("first" in word for word in words)
    assert b"<dc:date>" not in one
    assert not list(root.iter(f"{SVG}image"))  # lines only


@pytest.mark.parametrize("draw", DRAW)
def test_hostile_names_are_shown_as_text(draw, figures, tmp_path, recwarn):
    file = tmp_path / "x.png"
    draw(file, HOSTILE, label="$l_1$ <i>")
    assert [str(one.message) for one in recwarn] == []
    root = ElementTree.parse(file.with_suffix(".svg")).getroot()
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert "$x_1$" in words
    assert "$l_1$ <i>" in words
    assert max(figures[0].get_size_inches()) < 40
    of_arms = [text.get_text() for text in figures[0].findobj(Text)]
    assert max(len(line) for text in of_arms for line in text.split("\n")) <= LONG_NAME


def test_a_long_name_keeps_both_its_ends():
    lines = "".join(name_lines("init=" + "x" * 300 + "_seed=7"))
    assert lines.startswith("init=")
    assert lines.endswith("_seed=7")
    assert len(lines) < 200


def test_neighbours_differ_without_colour_and_28_arms_with_it():
    looks = [(look(n)["color"], look(n)["linestyle"], marker(n)) for n in range(28)]
    assert len(set(looks)) == 28
    assert all(one[1:] != other[1:] for one, other in pairwise(looks))
    assert {one[1] for one in looks} == set(LINES)
    assert {one[2] for one in looks} == set(MARKERS)


def test_many_cells_have_a_row_an_arm_on_the_range_of_all(figures, tmp_path):
    arms = ["a", "b", "c"]
    training_curves(make_histories(arms, 6), tmp_path / "x.png", "loss")
    axes = figures[0].axes
    assert [one.get_ylabel() for one in axes] == [f"{arm}\nn = 6 cells" for arm in arms]
    for place, one in enumerate(axes):
        lines, dots = one.lines[::2], one.lines[1::2]
        assert [line.get_ydata()[0] for line in lines] == pytest.approx(
            [place + seed / 10 for seed in range(6)]
        )
        assert {float(dot.get_xdata()[0]) for dot in dots} == {1.0}
        [every] = one.collections
        corners = every.get_paths()[0].vertices
        assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((0, 2.52))


def points(axes):
    """x, y and the ends of the bar of each arm."""
    found = []
    for bar in (one for one in axes.containers if isinstance(one, ErrorbarContainer)):
        line, _, [ends] = bar.lines
        [x], [y] = line.get_data()
        found.append((float(x), float(y), *ends.get_segments()[0][:, 1].tolist()))
    return found


def test_cost_has_the_mean_hours_of_an_arms_runs_and_the_tables_interval(figures, tmp_path):
    table = summary(make_cases(["b", "a"]))
    runs = pd.concat(
        [
            make_runs(["b", "b"], gpu_hours=[1.0, 3.0]),
            make_runs(["a"], gpu_hours=[5.0]),
            make_runs(["a"], gpu_hours=[100.0], role="needed"),
        ]
    )
    draw_cost(table, runs, "HSD", ["b", "a"], tmp_path / "x.png")
    rows = table.set_index("arm")
    [axes] = figures[0].axes
    expected = [(hours, *rows.loc[arm, ["mean", "low", "high"]]) for arm, hours in
                (("b", 2.0), ("a", 5.0))]  # fmt: skip
    assert points(axes) == [pytest.approx(one) for one in expected]
    assert axes.get_xlabel().startswith("GPU-hours of a run")
    assert axes.get_ylabel() == "HSD of cord, mean (mm)"
    [legend] = figures[0].legends
    texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert [text.split()[0] for text in texts] == ["b", "a"]
    assert "n\xa0=\xa03\xa0persons, 2\xa0runs" in texts[0]


def test_cost_without_a_gpu_is_in_hours_and_names_arms_without_runs(figures, tmp_path):
    table = summary(make_cases(["a", "ensemble"]))
    draw_cost(table, make_runs(["a"], gpu_hours=0.0), "HSD", ["a", "ensemble"], tmp_path / "x.png")
    [axes] = figures[0].axes
    assert [x for x, *_ in points(axes)] == [2.0]  # hours of 7,200 seconds
    words = axes.get_xlabel().replace("\n", " ")
    assert words.startswith("hours of a run (no GPU was used)")
    assert "without ensemble" in words
    with pytest.raises(ConfigError, match="no arm has a HSD and a run"):
        draw_cost(table, make_runs(["other"]), "HSD", ["a", "ensemble"], tmp_path / "x.png")


def test_factors_are_dots_with_their_interval_on_the_line_of_zero(figures, tmp_path):
    both = pd.concat([make_effects(), make_effects("disc").assign(mean_difference=0.0)])
    draw_factors(both, "HSD", tmp_path / "x.png")
    cord, _disc = figures[0].axes
    zero, *bars = cord.lines
    assert set(zero.get_xdata()) == {0}
    assert [bar.get_xdata() for bar in bars] == [
        pytest.approx([0.15, 0.25, 0.55]),
        pytest.approx([-0.6, -0.5, -0.2]),
    ]
    names = [text.get_text().replace("\n", " ") for text in cord.get_yticklabels()]
    assert names == [
        "init: pretrained minus scratch n = 12 persons",
        "augment: True minus False n = 12 persons",
    ]
    assert cord.get_xlabel() == "difference in HSD of cord (mm)"


def test_boxes_found_as_other_things_are_summed_over_cells():
    counts = {("disc", "disc"): 3, ("disc", "background"): 1, ("background", "disc"): 2}
    rows = [
        {"arm": arm, "cell": f"{arm}{seed}", "case": SET, "label": label}
        | {"metric": f"found_as_{found}", "value": float(number + seed)}
        for arm in ("a", "b")
        for seed in range(2)
        for (label, found), number in counts.items()
    ]
    rows.append({"arm": "a", "case": SET, "label": "disc", "metric": "AP50", "value": 0.5})
    names, tables = box_tables(pd.DataFrame(rows))
    assert names == ["disc", "background"]
    assert list(tables) == ["a", "b"]
    np.testing.assert_array_equal(tables["a"], [[7, 3], [5, np.nan]])


def test_a_confusion_table_says_all_numbers_and_the_share_of_each_row(figures, tmp_path):
    table = np.array([[6.0, 2.0], [5.0, np.nan]])
    words = ("true", "found as", "boxes")
    draw_confusion({"a": table}, ["disc", "background"], words, tmp_path / "x.png")
    [axes] = figures[0].axes
    assert axes.get_title() == "a\nn = 8 boxes"  # reference boxes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0.5, 0.5): "6", (1.5, 0.5): "2", (0.5, 1.5): "5"}
    [mesh] = axes.collections
    shares = np.ma.filled(mesh.get_array(), np.nan).ravel()
    np.testing.assert_allclose(shares, [0.75, 0.25, np.nan, np.nan])


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """What a complete experiment of masks left."""
    experiment = masks(tmp_path_factory.mktemp("masks"), lambda arm, seed, number: number % 3)
    tables = [
        pd.read_csv(experiment.run(cell).scores).assign(
            cell=cell.id, arm=cell.arm_name, split=cell.split, fold=cell.fold, seed=cell.seed
        )
        for cell in experiment.cells
    ]
    histories = [
        pd.DataFrame(experiment.run(cell).history()).assign(
            arm=cell.arm_name, fold=cell.fold, seed=cell.seed
        )
        for cell in experiment.cells
    ]
    fields = {
        "experiment": experiment,
        "arms": experiment.cells,
        "cases": pd.concat(tables, ignore_index=True),
        "histories": pd.concat(histories),
        "runs": make_runs([cell.arm_name for cell in experiment.cells]),
        "baseline": "init=scratch augment=False",
    }
    names = Gathered.__dataclass_fields__
    return Gathered(**{name: fields.get(name) for name in names})


@pytest.fixture(scope="module")
def tables(gathered):
    cases = gathered.cases[gathered.cases["metric"].isin(["DSC", "HSD"])]
    effects = make_effects("gray_matter").assign(metric="DSC")
    return {
        "summary": summary(cases),
        "comparisons": comparisons(cases, gathered.baseline),
        "factors": effects,
    }


def test_all_figures_are_drawn_the_main_ones_first(gathered, tables, monkeypatch):
    monkeypatch.setattr(everything, "SHOWN", ("DSC", "HSD"))  # others take long, and are alike
    found = everything.draw(gathered, tables)
    names = [one.file.stem for one in found]
    assert names[:6] == [
        "box_gray_matter_DSC",
        "difference_gray_matter_DSC",
        "factors",
        "examples_gray_matter",
        "cost",
        "curves",
    ]
    assert {"box_gray_matter_HSD", "difference_gray_matter_HSD"} < set(names)
    assert all(one.file.read_bytes().startswith(b"\x89PNG") for one in found)
    assert [one.file.stem for one in found if one.svg is None] == ["examples_gray_matter"]
    assert all(one.svg.exists() for one in found if one.svg)
    assert len({one.title for one in found}) == len(found)


def test_a_figure_that_cannot_be_drawn_is_named_and_its_old_file_goes(
    gathered, tables, monkeypatch, caplog
):
    old = gathered.experiment.folder / "cost.png"
    for file in (old, old.with_suffix(".svg")):
        file.write_text("old")
    without = replace(gathered, runs=make_runs(["other"]))
    chosen = [one for one in everything.wanted(without, tables) if one.name in ("cost", "curves")]
    monkeypatch.setattr(everything, "wanted", lambda *_: chosen)
    caplog.set_level(logging.WARNING)
    assert [one.file.stem for one in everything.draw(without, tables)] == ["curves"]
    assert "cost.png is not drawn: ConfigError: cost.png: no arm has a DSC and a run" in caplog.text
    assert not old.exists()
    assert not old.with_suffix(".svg").exists()


def test_without_factors_nothing_is_said_of_them(gathered, tables):
    few = {name: table for name, table in tables.items() if name != "factors"}
    assert "factors" not in [one.name for one in everything.wanted(gathered, few)]


def test_labels_make_file_names_that_are_safe_and_differ(gathered, tables):
    labels = ["a/b", "A_b", "../up", "脊", "髓", "x" * 300]
    cases = pd.concat([make_cases(["one", "two"], label) for label in labels])
    other = replace(gathered, cases=cases.assign(metric="DSC"))
    names = [one.name for one in everything.wanted(other, tables)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(set(name) <= set(everything.SAFE) for name in names)
    assert max(map(len, names)) < 120
    assert "box_.._up_DSC" in names


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x.png"
    with pytest.raises(ValueError, match="half"), drawn(file, 2, 2):
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []
