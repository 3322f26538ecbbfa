import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_making import recorded
from matplotlib.colors import to_rgba

from spine_tasks.errors import ConfigError
from spine_tasks.figures.curves import training_curves
from spine_tasks.figures.plots import box_plot, paired_differences
from spine_tasks.figures.style import COLOURS
from spine_tasks.stats.comparisons import comparisons

VALUES = {  # of persons p0 ... p4, per arm; not in alphabetical order
    "init=scratch": [1.0, 1.5, 2.0, 2.5, 3.0],
    "init=other": [0.8, 1.1, 2.1, np.nan, 2.0],
    "init=best": [0.5, 0.4, 1.6, 1.5, 2.2],
}
BASELINE = "init=scratch"


def make_cases(values=VALUES, metric="HSD", seeds=2):
    rows = [
        {"cell": f"{arm}-{seed}", "arm": arm, "split": "s", "fold": 0, "seed": seed}
        | {"person": f"p{p}", "subject": f"p{p}", "case": f"p{p}", "slice": None}
        | {"label": "cord", "metric": metric, "value": value + 0.1 * seed}
        for arm, persons in values.items()
        for p, value in enumerate(persons)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def make_histories():
    rows = [
        {"arm": arm, "seed": seed, "fold": 0, "epoch": epoch}
        | {"best_epoch": min(epoch, 3)}  # so far, as a history grows
        | {"val_dice": 0.9 - 0.1 * (epoch - 3) ** 2, "loss": 1 / epoch}
        for arm in VALUES
        for seed in range(2)
        for epoch in range(1, 5)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def drawn(monkeypatch):
    return recorded(monkeypatch)


def ticks(labels):
    return [label.get_text() for label in labels]


def points(axes, along):
    """The persons' coordinates of each arm, sorted."""
    return [np.sort(dots.get_offsets()[:, along].data) for dots in axes.collections]


def draw_pairs(cases, file, metric="HSD", baseline=BASELINE):
    table = comparisons(cases, BASELINE)
    paired_differences(cases, table, metric, "cord", baseline, file)


DRAW = {
    "box": lambda file: box_plot(make_cases(), "HSD", "cord", file),
    "paired": lambda file: draw_pairs(make_cases(), file),
    "curves": lambda file: training_curves(make_histories(), file, ["val_dice", "loss"]),
}


@pytest.mark.parametrize("kind", DRAW)
def test_a_picture_is_a_png_with_every_arms_colour_and_a_white_ground(kind, tmp_path):
    file = tmp_path / "figures" / f"{kind}.png"
    DRAW[kind](file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(file)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert 0.5 < (pixels == 1).all(axis=-1).mean() < 0.99
    for colour in COLOURS[1:3]:  # of the arms besides the baseline
        red, green, blue, _ = to_rgba(colour)
        solid = np.array([red, green, blue])
        faint = 0.7 * solid + 0.3  # the persons' points let the grid shine through
        near = [(abs(pixels - shade) < 0.02).all(axis=-1).sum() for shade in (solid, faint)]
        assert sum(near) > 50
    files = {path.name for path in file.parent.iterdir()}
    assert files == {file.name, f"{kind}.svg"}  # nothing left over


def test_a_picture_takes_the_place_of_the_old_one_in_one_step(tmp_path):
    file, old = tmp_path / "box.png", tmp_path / "old.png"
    file.write_text("old")
    old.hardlink_to(file)
    DRAW["box"](file)
    assert old.read_text() == "old"  # it would be new had the file been written over


def test_pictures_leave_no_figure_open_and_no_setting_changed(tmp_path):
    settings = dict(matplotlib.rcParams)
    for kind, draw in DRAW.items():
        draw(tmp_path / f"{kind}.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


def test_the_box_plot_has_a_point_per_person_at_the_mean_of_the_seeds(drawn, tmp_path):
    box_plot(make_cases(), "HSD", "cord", tmp_path / "box.png")
    (axes,) = drawn[0].axes
    for found, persons in zip(points(axes, 1), VALUES.values(), strict=True):
        expected = np.sort(persons) + 0.05  # seeds 0 and 1 add 0 and 0.1
        assert found == pytest.approx(expected[np.isfinite(expected)])
    # The medians of the persons 2, (1.1 + 2) / 2 and 1.5, plus 0.05.
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 2]
    assert medians == pytest.approx([2.05, 1.6, 1.55])


def test_the_box_plot_names_arms_in_their_order_with_n_and_undefined_persons(drawn, tmp_path):
    box_plot(make_cases(), "HSD", "cord", tmp_path / "box.png")
    (axes,) = drawn[0].axes
    assert ticks(axes.get_xticklabels()) == [
        "init=scratch\nn = 5",
        "init=other\nn = 4\n1 undefined",
        "init=best\nn = 5",
    ]
    assert axes.get_ylabel() == "HSD of cord (mm)"


def test_an_arm_without_any_value_keeps_its_place(drawn, tmp_path):
    other = make_cases({"init=other": [0.5]}, metric="DSC")
    nothing = make_cases({"init=best": [np.nan, np.nan]})
    cases = pd.concat([make_cases({BASELINE: [1.0]}), other, nothing])
    box_plot(cases, "HSD", "cord", tmp_path / "box.png")
    (axes,) = drawn[0].axes
    assert ticks(axes.get_xticklabels()) == [
        "init=scratch\nn = 1",
        "init=other\nn = 0",
        "init=best\nn = 0\n2 undefined",
    ]
    draw_pairs(cases, tmp_path / "paired.png")
    (axes,) = drawn[1].axes
    assert ticks(axes.get_yticklabels()) == [
        "init=other\nn = 0\n2 without a pair",
        "init=best\nn = 0\n2 without a pair",
    ]


def test_a_metric_without_a_unit_or_unknown_has_its_bare_name(drawn, tmp_path):
    for metric in ("DSC", "made_up"):
        box_plot(make_cases(metric=metric), metric, "cord", tmp_path / "box.png")
    assert [f.axes[0].get_ylabel() for f in drawn] == ["DSC of cord", "made_up of cord"]


def test_paired_differences_show_persons_mean_and_interval_of_the_table(drawn, tmp_path):
    cases = make_cases()
    draw_pairs(cases, tmp_path / "paired.png")
    (axes,) = drawn[0].axes
    other, best = points(axes, 0)
    assert other == pytest.approx([-1.0, -0.4, -0.2, 0.1])
    assert best == pytest.approx([-1.1, -1.0, -0.8, -0.5, -0.4])
    table = comparisons(cases, BASELINE).set_index("arm")
    shown = [line.get_xdata() for line in axes.lines[1:]]  # the first is the line at zero
    for arm, found in zip(["init=other", "init=best"], shown, strict=True):
        assert list(found) == list(table.loc[arm, ["low", "mean_difference", "high"]])
    assert ticks(axes.get_yticklabels()) == [
        "init=other\nn = 4\n1 without a pair",
        "init=best\nn = 5",
    ]
    assert axes.get_xlabel() == "HSD of cord: difference from\ninit=scratch (mm)"


def test_an_arm_has_one_colour_in_all_figures(drawn, tmp_path):
    box_plot(make_cases(), "HSD", "cord", tmp_path / "box.png")
    draw_pairs(make_cases(), tmp_path / "paired.png")
    training_curves(make_histories(), tmp_path / "curves.png", "val_dice")
    boxes, pairs = ([dots.get_facecolor()[0] for dots in f.axes[0].collections] for f in drawn[:2])
    keys = [line.get_color() for line in drawn[2].legends[0].get_lines()[:3]]
    assert [to_rgba(key, 0.7) for key in keys] == [tuple(colour) for colour in boxes]
    assert np.array_equal(boxes[1:], pairs)


def test_training_curves_have_a_line_per_cell_and_a_dot_at_the_epoch_kept(drawn, tmp_path):
    shuffled = make_histories().sample(frac=1, random_state=0)
    training_curves(shuffled, tmp_path / "curves.png", ["val_dice", "loss"])
    dice, loss = drawn[0].axes
    assert (dice.get_ylabel(), loss.get_ylabel(), loss.get_xlabel()) == (
        "val_dice",
        "loss",
        "epoch",
    )
    lines, dots = dice.lines[::2], dice.lines[1::2]
    assert len(lines) == len(dots) == 6  # three arms, two seeds
    assert all(list(line.get_xdata()) == [1, 2, 3, 4] for line in lines)
    assert all((dot.get_xdata(), dot.get_ydata()) == (3, pytest.approx(0.9)) for dot in dots)
    legend = ticks(drawn[0].legends[0].get_texts())
    assert set(legend) == {*(f"{arm} (n = 2 cells)" for arm in VALUES), "epoch of the weights kept"}


def test_arms_beyond_the_colours_differ_by_their_line(drawn, tmp_path):
    one = make_histories().query("arm == 'init=best' and seed == 0")
    many = pd.concat([one.assign(arm=f"k={i}") for i in range(14)])
    training_curves(many, tmp_path / "curves.png", "val_dice")
    keys = drawn[0].legends[0].get_lines()[:14]
    assert len({(key.get_color(), key.get_linestyle()) for key in keys}) == 14


def test_what_is_not_there_is_answered_with_what_is(tmp_path):
    cases, histories, file = make_cases(), make_histories(), tmp_path / "none.png"
    with pytest.raises(ConfigError, match=r"DSC of cord; there are \[\('HSD', 'cord'\)\]"):
        box_plot(cases, "DSC", "cord", file)
    with pytest.raises(ConfigError, match=r"'best' is no arm"):
        draw_pairs(cases, file, baseline="best")
    alone = cases[cases["arm"] == BASELINE]
    with pytest.raises(ConfigError, match="only arm with HSD of cord"):
        draw_pairs(alone, file)
    with pytest.raises(ConfigError, match=r"no column \['val_ap'\] in .*'val_dice'"):
        training_curves(histories, file, "val_ap")
    with pytest.raises(ConfigError, match="no epoch"):
        training_curves(histories.iloc[:0], file, "val_dice")
    assert not file.exists()
