"""Example cases: which they are, and that the pictures show them as they were predicted."""

import numpy as np
import pandas as pd
import pytest
from box_making import case as box_case
from figure_making import masks, recorded
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from spine_tasks.cell import Cell
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.errors import ConfigError
from spine_tasks.experiment import Experiment
from spine_tasks.figures import example_boxes, example_grades
from spine_tasks.figures.example_masks import FOUND, draw_mask_examples
from spine_tasks.figures.examples import best_by_validation, examples
from spine_tasks.figures.slices import MANUAL
from spine_tasks.metrics.grade_scores import Places


def cell(arm, seed=0, fold=0):
    return Cell(
        **{"job": "drill", "config": None, "split": "s", "split_sha256": ""},
        **{"fold": fold, "seed": seed, "arm": {"arm": arm}},
    )


class Named(Cell):
    """A cell whose id is what the scores say."""

    @property
    def id(self):
        return f"{self.arm_name}-{self.fold}-{self.seed}"


def cells(*keys):
    return [Named(**vars(cell(*key))) for key in keys]


def scores(values, metric="DSC", label="cord"):
    """`values`: (arm, seed, fold) -> scores of the cases a, b, c, ..."""
    rows = [
        {"cell": f"{arm}-{fold}-{seed}", "arm": arm, "seed": seed, "fold": fold}
        | {"case": chr(ord("a") + n), "label": label, "metric": metric, "value": value}
        for (arm, seed, fold), own in values.items()
        for n, value in enumerate(own)
    ]
    return pd.DataFrame(rows)


TWO = {
    ("base", 0, 0): [0.5, 0.9, 0.1, 0.7],  # means of seeds: .6, .8, .2, .5
    ("base", 1, 0): [0.7, 0.7, 0.3, 0.3],
    ("other", 0, 0): [0.1, 0.2, 0.9, 0.4],
}


def test_worst_median_and_best_are_by_the_mean_of_the_first_arms_seeds():
    found = examples(scores(TWO), cells(*TWO), ["base", "other"], "DSC", "cord")
    assert [one.case for one in found] == ["c", "d", "b"]
    assert [one.place.split()[0] for one in found] == ["worst", "median", "best"]
    assert found[0].place == "worst of 4 cases"
    # What is shown of it is the least seed's own score, of the same case in every arm.
    assert [one.scores for one in found] == [
        {"base": 0.1, "other": 0.9},
        {"base": 0.7, "other": 0.4},
        {"base": 0.9, "other": 0.2},
    ]
    assert {one.cells["base"].seed for one in found} == {0}


def test_the_worst_has_the_greatest_value_where_less_is_better():
    found = examples(scores(TWO, "HSD"), cells(*TWO), ["base"], "HSD", "cord")
    assert [one.case for one in found] == ["b", "a", "c"]


def test_cases_without_a_value_are_none_of_them_but_counted():
    values = {("base", 0, 0): [np.nan, 0.9, 0.1, np.nan, 0.5]}
    found = examples(scores(values), cells(*values), ["base"], "DSC", "cord")
    assert [one.case for one in found] == ["c", "e", "b"]
    assert found[0].place == "worst of 3 cases, 2 without a DSC"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], {"the only one of 1 cases": "a"}),
        ([0.5, 0.2], {"worst of 2 cases": "b", "best of 2 cases": "a"}),
        ([0.5] * 3, {"worst of 3 cases": "a", "median of 3 cases": "b", "best of 3 cases": "c"}),
    ],
)
def test_few_cases_and_equal_ones(values, expected):
    table = scores({("base", 0, 0): values}).sample(frac=1, random_state=1)
    found = examples(table, cells(("base",)), ["base"], "DSC", "cord")
    assert {one.place: one.case for one in found} == expected


def test_an_arm_that_did_not_test_a_case_has_no_cell_for_it():
    values = {("base", 0, 0): [0.1, 0.9], ("other", 0, 0): [0.5]}
    found = examples(scores(values), cells(*values), ["base", "other"], "DSC", "cord")
    assert [sorted(one.cells) for one in found] == [["base", "other"], ["base"]]


def test_no_defined_score_is_said():
    with pytest.raises(ConfigError, match="base: no case has a DSC of cord"):
        examples(scores({("base", 0, 0): [np.nan]}), cells(("base",)), ["base"], "DSC", "cord")


def test_the_best_by_validation_is_that_of_the_epochs_kept():
    rows = [
        ("late", 0, 0.9, 1),  # a peak, but other weights were kept
        ("late", 1, 0.2, 1),
        ("good", 0, 0.1, 1),
        ("good", 1, 0.5, 1),
    ]
    table = pd.DataFrame(rows, columns=["arm", "epoch", "val", "best_epoch"]).assign(seed=0, fold=0)
    assert best_by_validation(table, "val", ["late", "good"]) == ["good"]
    assert best_by_validation(table, "val", ["late"]) == ["late"]
    assert best_by_validation(table, "", ["late"]) == []
    assert best_by_validation(table.iloc[:0], "val", ["late"]) == []


BASE, MOVED = "init=scratch augment=False", "init=pretrained augment=True"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    def off(arm, seed, number):
        return None if arm == MOVED and number == 4 else number % 5 + (arm == MOVED)

    return masks(tmp_path_factory.mktemp("masks"), off)


def table_of(experiment):
    tables = [
        pd.read_csv(experiment.run(one).scores).assign(cell=one.id, arm=one.arm_name)
        for one in experiment.cells
    ]
    return pd.concat(tables, ignore_index=True)


def extents(axes):
    """Colour -> least and greatest x and y in mm."""
    found = {}
    for contour in axes.collections:
        corners = np.concatenate([path.vertices for path in contour.get_paths()])
        found[tuple(contour.get_edgecolor()[0])] = (*corners.min(axis=0), *corners.max(axis=0))
    return found


def test_masks_are_shown_where_they_are_and_with_their_own_score(experiment, monkeypatch, tmp_path):
    figures = recorded(monkeypatch)
    table = table_of(experiment)
    arms = [BASE, MOVED]
    found = examples(table, experiment.cells, arms, "DSC", "gray_matter")
    file = tmp_path / "examples.png"
    draw_mask_examples(experiment, found, arms, "DSC", file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert not file.with_suffix(".svg").exists()
    panels = np.reshape(figures[0].axes, (3, 3))
    offsets = []
    for one, (bare, base, moved) in zip(found, panels, strict=True):
        assert extents(bare) == {}
        assert bare.get_title().split("\n") == [one.place, one.case]
        assert base.get_title().endswith(f"DSC {one.scores[BASE]:.3f}")
        assert moved.get_title().endswith(f"DSC {one.scores[MOVED]:.3f}")
        manual, mask = (extents(base)[to_rgba(colour)] for colour in (MANUAL, FOUND))
        # The first axis is to the patient's right, so that more of it is to the picture's left.
        offsets.append(abs(mask[0] - manual[0]) / 0.5)
        assert mask[1] == pytest.approx(manual[1])
    assert offsets == [4, 2, 0]  # voxels of half a millimetre: worst, median and best
    assert set(extents(panels[0][2])) == {to_rgba(MANUAL)}  # of an empty mask
    assert panels[0][1].get_title().startswith("init=scratch\naugment=False\n")


def test_found_boxes_from_the_threshold_on_are_drawn(monkeypatch, tmp_path):
    drawn, figures = [], recorded(monkeypatch)
    tested = [box_case("a", (0, 0, 0, 9, 9)), box_case("b", (1, 0, 0, 9, 9))]
    sure = example_boxes.Detections(
        np.array([[0, 0, 9, 9], [1, 1, 9, 9], [2, 2, 9, 9.0]]),
        np.array([0, 0, 1]),
        np.array([0.8, 0.4, 0.55]),
    )
    data = type("Data", (), {"categories": ("healthy", "sick"), "category_ids": (1, 2)})

    def draw(picture, case, found, categories):
        drawn.append((case.id, found.scores.tolist(), tuple(categories)))
        return np.zeros((20, 10, 3), np.uint8)

    monkeypatch.setattr(example_boxes, "box_cases_of", lambda *_: (tested, data))
    monkeypatch.setattr(example_boxes, "load_boxes", lambda *_: [sure, sure])
    monkeypatch.setattr(example_boxes, "read_picture", lambda _: np.zeros((20, 10), np.float32))
    monkeypatch.setattr(example_boxes, "draw_boxes", draw)
    values = {("base", 0, 0): [0.9, 0.1], ("other", 0, 0): [0.5]}
    of_images = scores(values, "F1", "all")
    found = examples(of_images, cells(*values), ["base", "other"], "F1", "all")
    chosen = scores({("base", 0, 0): [0.4], ("other", 0, 0): [0.6]}, "threshold", "healthy")
    unknown = scores({("base", 0, 0): [np.nan]}, "threshold", "sick")  # .5 then
    place = Experiment("e", tmp_path, None, [], [])
    thresholds = pd.concat([of_images, chosen, unknown])
    example_boxes.draw_box_examples(
        place, found, ["base", "other"], thresholds, "F1", tmp_path / "x.png"
    )
    categories = ("healthy", "sick")
    assert drawn == [
        ("b", [0.8, 0.4, 0.55], categories),
        ("a", [0.8, 0.4, 0.55], categories),
        ("a", [0.8, 0.55], categories),
    ]
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["base\nF1 0.100", "other\ndid not test it", "F1 0.900", "F1 0.500"]
    words = [text.get_text() for text in figures[0].findobj(Text)]
    assert {"worst of 2 cases: b", "best of 2 cases: a"} <= {w.replace("\n", " ") for w in words}


def test_a_graded_place_is_in_the_middle_with_its_true_and_given_grades(monkeypatch, tmp_path):
    figures = recorded(monkeypatch)
    one = GradeCase("a", "s", "e", "L4/L5", (tmp_path / "0.png",), 0, 60.0, 40.0, 20.0, 10.0)
    places = Places([one], np.array([[0.2, 0.7, 0.1]]), np.array([2]))
    data = type("Data", (), {"conditions": {"$c$": ("mild", "moderate", "severe")}})
    picture = np.arange(100 * 120, dtype=np.float32).reshape(100, 120)
    monkeypatch.setattr(example_grades, "graded_places", lambda *_: ({"$c$": places}, data))
    monkeypatch.setattr(example_grades, "read_picture", lambda _: picture)
    values = {("base", 0, 0): [1.2]}
    table = scores(values, "log_loss_place", "$c$")
    found = examples(table, cells(*values), ["base", "other"], "log_loss_place", "$c$")
    example_grades.draw_grade_examples(None, found, ["base", "other"], "$c$", tmp_path / "x.png")
    [axes] = figures[0].axes
    assert axes.get_title().split("\n") == [
        "the only one of 1 cases",
        "a",
        "true: severe",
        "base: moderate (0.70)",
        "other: did not test it",
    ]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left + right) / 2 == pytest.approx(60, abs=0.5)
    assert (bottom + top) / 2 == pytest.approx(40, abs=0.5)
    [frame] = axes.patches
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (50, 35, 20, 10)
