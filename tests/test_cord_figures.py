"""Figures of cord models: what is home, whose mask is shown, and which side is which."""

from argparse import Namespace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from cord_making import BLOCK, CENTRE, WIDEST, planned_cords, run_cords
from figure_making import recorded
from matplotlib.colors import to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from spine_tasks.collect.command import collect
from spine_tasks.collect.generalization import Trained, matrix
from spine_tasks.experiment import opened
from spine_tasks.figures.cord_pictures import draw_cord, shown_pairs
from spine_tasks.figures.cords import draw_matrix
from spine_tasks.figures.slices import MANUAL
from spine_tasks.figures.style import COLOURS
from spine_tasks.stats import comparisons as comparing
from spine_tasks.stats import summary as summing
from spine_tasks.stats.summary import summary

TRAINED = {
    "general": Trained(frozenset("ab"), frozenset()),
    "onlyB": Trained(frozenset("b"), frozenset()),
}
SETS = ["c T2w", "a T1w", "b T2w"]


@pytest.fixture
def drawn(monkeypatch):
    return recorded(monkeypatch)


def made_up():
    """Two models on three test sets; `b T2w` has one person, `c T2w` a person of two cases."""
    people = {"a T1w": {"a1": [0.9], "a2": [0.7]}, "b T2w": {"b1": [0.8]}}
    people["c T2w"] = {"c1": [0.2, 0.4], "c2": [0.5]}
    rows = [
        {"cell": model, "arm": model, "seed": 0, "person": person, "slice": None}
        | {"case": f"{person}_{n}", "label": test_set, "metric": "DSC", "value": value + gain}
        for model, gain in (("general", 0.1), ("onlyB", 0.0))
        for test_set in SETS
        for person, values in people[test_set].items()
        for n, value in enumerate(values)
    ]
    cases = pd.DataFrame(rows)
    return cases, matrix(summary(cases), TRAINED, SETS)


def means(axes):
    """x, y, sd (None: no bar) and face colour of each mean."""
    found = []
    for bar in (one for one in axes.containers if isinstance(one, ErrorbarContainer)):
        line, _, bars = bar.lines
        [x], [y] = line.get_data()
        sd = np.ptp(bars[0].get_segments()[0][:, 1]) / 2 if bars else None
        found.append((x, y, sd, to_rgba(line.get_markerfacecolor())))
    return found


def test_a_mean_stands_at_its_test_set_with_the_sd_of_persons(drawn, tmp_path):
    draw_matrix(*made_up(), tmp_path / "matrix.png")
    [axes] = drawn[0].axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    # What is nobody's home is last, although its persons come first.
    assert names == ["a\nT1w\nn = 2", "b\nT2w\nn = 1", "c\nT2w\nn = 2"]
    found = {(round(x), round(y, 3)): sd for x, y, sd, _ in means(axes)}
    assert found == {
        (0, 0.9): pytest.approx(np.std([0.9, 0.7], ddof=1)),
        (0, 0.8): pytest.approx(np.std([0.9, 0.7], ddof=1)),
        (1, 0.9): None,
        (1, 0.8): None,
        (2, 0.5): pytest.approx(np.std([0.3, 0.5], ddof=1)),
        (2, 0.4): pytest.approx(np.std([0.3, 0.5], ddof=1)),
    }
    persons = [sorted(dots.get_offsets()[:, 1].round(3).tolist()) for dots in axes.collections
               if len(dots.get_offsets()) == 5]  # fmt: skip
    assert persons == [[0.4, 0.6, 0.8, 0.9, 1.0], [0.3, 0.5, 0.7, 0.8, 0.9]]


def test_a_dot_is_full_at_home_and_open_elsewhere_in_the_models_colour(drawn, tmp_path):
    draw_matrix(*made_up(), tmp_path / "matrix.png")
    faces = {(round(x), round(y, 1)): face for x, y, _, face in means(drawn[0].axes[0])}
    general, only_b, white = (to_rgba(one) for one in (*COLOURS[:2], "white"))
    assert faces == {
        **{(0, 0.9): general, (0, 0.8): white},
        **{(1, 0.9): general, (1, 0.8): only_b},
        **{(2, 0.5): white, (2, 0.4): white},
    }


def test_points_of_a_test_set_stay_in_it_and_models_apart(drawn, tmp_path):
    cases, _ = made_up()
    names = [f"model{n}" for n in range(9)]  # more than there are colours
    many = pd.concat([cases[cases["arm"] == "onlyB"].assign(arm=n, cell=n) for n in names])
    trained = dict.fromkeys(names, TRAINED["onlyB"])
    draw_matrix(many, matrix(summary(many), trained, SETS), tmp_path / "matrix.png")
    [axes] = drawn[0].axes
    places = sorted(x for x, *_ in means(axes))
    assert all(abs(x - round(x)) < 0.5 for x in places)
    assert min(other - one for one, other in pairwise(places)) > 0.05
    keys = drawn[0].legends[0].get_lines()[:9]
    assert len({(key.get_color(), key.get_marker()) for key in keys}) == 9


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    made = planned_cords(tmp_path_factory.mktemp("cords"))
    return run_cords(made, {"general": 0, "onlyA": 2, "onlyB": None})


def scores(experiment):
    tables = [
        pd.read_csv(experiment.run(cell).scores).assign(cell=cell.id) for cell in experiment.cells
    ]
    return pd.concat(tables, ignore_index=True)


def draw_all(experiment, cells):
    for test_set, pair in shown_pairs(experiment, cells).items():
        file = experiment.folder / f"cord_{test_set.replace(' ', '_').replace('-', '_')}.png"
        draw_cord(experiment, cells, scores(experiment), pair, file)


@pytest.fixture
def pictures(experiment, drawn, tmp_path):
    """The figure of each test set by its file's name."""
    copied = opened(experiment.name, experiment.folder.parent)
    draw_all(copied, copied.cells)
    files = ["cord_a_T1w.png", "cord_a_T2w.png", "cord_b_acq_sag_T2w.png", "cord_c_T2w.png"]
    assert sorted(file.name for file in experiment.folder.glob("cord_*.png")) == files
    return dict(zip(files, drawn, strict=True))


def shown(axes):
    """(X, Y) values of the picture, from its left and its bottom."""
    [picture] = axes.images
    assert picture.origin == "lower"
    return np.asarray(picture.get_array()).T


def outlines(axes):
    """Colour -> least and greatest x and y in mm."""
    found = {}
    for contour in axes.collections:
        corners = np.concatenate([path.vertices for path in contour.get_paths()])
        found[tuple(contour.get_edgecolor()[0])] = (*corners.min(axis=0), *corners.max(axis=0))
    return found


@pytest.mark.parametrize("name", ["cord_a_T1w.png", "cord_b_acq_sag_T2w.png"])
def test_right_of_the_patient_is_left_and_anterior_is_up_however_it_is_stored(pictures, name):
    axes = pictures[name].axes[0]
    values = shown(axes)
    bright = np.argwhere(values > 1000)
    assert bright.mean(axis=0).tolist() == list(BLOCK)
    # Where that is in the picture: 1 mm across, 0.5 mm along, from its lower left.
    block, cord = (axes.transData.transform(((x + 0.5), (y + 0.5) * 0.5))
                   for x, y in (BLOCK, CENTRE))  # fmt: skip
    assert block[0] < cord[0]
    assert block[1] > cord[1]
    assert axes.images[0].get_extent() == [0, 30, 0, 30]


def test_the_slice_is_that_of_the_largest_mask_of_the_first_test_case_of_the_first_fold(pictures):
    third = {"cord_a_T1w.png", "cord_a_T2w.png", "cord_b_acq_sag_T2w.png"}
    for name, figure in pictures.items():
        for axes in figure.axes:
            assert shown(axes)[0, 0] == 100 * WIDEST + (3 if name in third else 1), name


def test_the_square_has_40_mm_around_the_cord(pictures):
    for figure in pictures.values():
        for axes in figure.axes:
            assert axes.get_xlim() == pytest.approx((15.5 - 20, 15.5 + 20))
            assert axes.get_ylim() == pytest.approx((12.75 - 20, 12.75 + 20))
            assert axes.get_aspect() == 1


def test_each_panel_has_the_manual_outline_and_its_models_alone(pictures):
    bare, *panels = pictures["cord_a_T1w.png"].axes
    assert outlines(bare) == {}
    manual = (11, 10.5, 20, 15)  # pixels 11 to 19 and 21 to 29, at their edges
    of_models = [manual, (13, 10.5, 22, 15), None]  # exact; 2 mm to the left; empty
    for axes, colour, expected in zip(panels, COLOURS, of_models, strict=False):
        found = outlines(axes)
        assert found.pop(to_rgba(MANUAL)) == pytest.approx(manual)
        assert found.pop(to_rgba(colour), None) == (expected and pytest.approx(expected))
        assert found == {}


def test_a_title_has_model_and_dice_of_the_case_and_nothing_names_a_person(pictures, experiment):
    table = scores(experiment).query("case == 'a_sub-secret3_T1w' and metric == 'DSC'")
    [cell] = [
        cell
        for cell in experiment.cells
        if (cell.arm_name, cell.fold, cell.seed) == ("onlyA", 0, 0)
    ]
    [dice] = table.loc[table["cell"] == cell.id, "value"]
    titles = [axes.get_title() for axes in pictures["cord_a_T1w.png"].axes]
    assert titles == ["a T1w", "general\nDSC 1.000", f"onlyA\nDSC {dice:.3f}", "onlyB\nDSC 0.000"]
    assert 0 < dice < 1
    for name, figure in pictures.items():
        words = " ".join(text.get_text() for text in figure.findobj(Text))
        assert "secret" not in words
        assert b"secret" not in (experiment.folder / name).read_bytes()


def test_a_model_without_a_cell_of_the_first_fold_has_no_panel_and_colours_stay(experiment, drawn):
    general = [cell for cell in experiment.cells if cell.arm_name == "general" and cell.fold == 1]
    others = [cell for cell in experiment.cells if cell.arm_name != "general"]
    draw_all(experiment, [*general, *others])
    panels = drawn[0].axes
    assert [axes.get_title().split("\n")[0] for axes in panels] == ["a T1w", "onlyA", "onlyB"]
    assert set(outlines(panels[1])) == {to_rgba(MANUAL), to_rgba(COLOURS[1])}


def test_collect_writes_tables_and_figures_and_prints_the_matrix(experiment, monkeypatch, capsys):
    # Intervals of all other metrics and their figures take long, and are tested elsewhere.
    monkeypatch.setattr(summing, "interval", lambda values: (np.nan, np.nan, ""))
    monkeypatch.setattr(comparing, "interval", lambda values: (np.nan, np.nan, ""))
    results = experiment.folder.parent
    asked = {"grid": "cords", "results": results, "partial": False, "mixed": False}
    collect(Namespace(**asked, ensemble=None, explain=None, by=None, raters=None))
    table = pd.read_csv(experiment.folder / "matrix.csv")
    own = table.set_index(["model", "test_set", "metric"])
    assert own.loc["general", "a T2w", "DSC"]["n"] == 3  # persons 1, 3 and 4; two seeds each
    assert own.loc["general", "c T2w", "DSC"]["home"] == "no"
    assert own.loc["onlyA", "c T2w", "DSC"]["seen_contrast"] == "yes"
    assert own.loc["onlyB", "a T1w", "MSD"]["n_undefined"] == 3  # of empty masks
    compared = pd.read_csv(experiment.folder / "generalization.csv")
    assert set(compared["comparison"]) == {"general - model", "home - unseen"}
    assert (experiment.folder / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert "of each model on each test set" in capsys.readouterr().out
    # Their validation parts differ, so that no mark is common to them.
    assert not (experiment.folder / "convergence.csv").exists()
    runs = pd.read_csv(experiment.folder / "runs.csv")
    assert set(runs["role"]) == {"arm", "needed"}  # the needed ones have no history
