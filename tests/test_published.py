"""Published tables: with their source, in our metrics' units, and never taken for ours."""

import csv

import numpy as np
import pandas as pd
import pytest

from spine_tasks.collect.published import BESIDE, COLUMNS, PUBLISHED, beside, published_for
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.metrics import METRICS

ROW = {
    "job": "gm_segmentation",
    "study": "a study",
    "source": "doi:10.1000/x-1",
    "table": "table 1",
    "arm": "theirs",
    "label": "gray_matter",
    "metric": "DSC",
    "value": "0.85",
    "mark": "V",
}
OURS = pd.DataFrame(
    {
        "arm": ["b", "a", "a", "a"],
        "label": ["gray_matter", "gray_matter", "other", "gray_matter"],
        "metric": ["DSC", "DSC", "DSC", "TNR"],
        "n": [4, 4, 4, 4],
        "mean": [0.7, 0.8, 0.9, 1.0],
        "sd": [0.1, 0.1, 0.1, 0.0],
        "median": [0.7, 0.8, 0.9, 1.0],
        "seeds": [1, 1, 1, 1],
    }
)


def write(folder, *rows, columns=COLUMNS, name="study.csv"):
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize(
    ("job", "study", "arm", "label", "metric", "value"),
    [  # of the studies' own tables
        (
            "gm_segmentation",
            "paediatric",
            "pretrained, augmented",
            "gray_matter",
            "DSC_slice_smoothed",
            0.883,
        ),
        ("gm_segmentation", "SCT", "nnU-Net 2D", "gray_matter", "DSC", 0.917),
        ("cord_nnunet", "general", "Aggregated", "Basel-MP2RAGE", "DSC", 0.850),
        ("cord_unet", "general", "sci-colorado", "Basel-MP2RAGE", "RVE", -0.809),
        ("disc_faster_rcnn", "healthy", "Faster R-CNN", "all", "F1_published", 0.795),
        ("cord_signal_detr", "DETR", "R50", "COCO", "AP", 0.420),
        ("stenosis_grading", "RSNA", "7th place", "all", "rsna", 0.401322),
        (
            "stenosis_grading",
            "six",
            "best constant",
            "spinal_canal_stenosis",
            "log_loss_weighted",
            0.80215,
        ),
    ],
)
def test_known_figures_are_there(job, study, arm, label, metric, value):
    table = published_for(job)
    starts = {"study": study, "arm": arm, "label": label}
    rows = table[table["metric"] == metric]
    for column, start in starts.items():
        rows = rows[rows[column].str.startswith(start)]
    assert rows["value"].iloc[0] == pytest.approx(value, abs=1e-9)


def test_every_job_of_a_table_can_ask_for_it():
    named = {
        job
        for file in PUBLISHED.glob("*.csv")
        for jobs in pd.read_csv(file)["job"]
        for job in jobs.split()
    }
    assert named == {
        *("gm_segmentation", "cord_signal_detr", "disc_faster_rcnn", "stenosis_grading"),
        *("cord_nnunet", "cord_unet"),
    }
    assert all(len(published_for(job)) for job in named)


def test_a_fraction_is_stored_as_one():
    for file in PUBLISHED.glob("*.csv"):
        table = pd.read_csv(file)
        bounded = [row for _, row in table.iterrows() if METRICS[row["metric"]].maximum == 1]
        assert all(abs(row["value"]) <= 1 for row in bounded), file
        assert not table["unit"].isin(["%"]).any()


def test_a_job_without_published_figures_has_a_table_without_rows():
    assert published_for("drill").empty
    assert list(published_for("drill")) == COLUMNS


def test_an_unknown_job_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no job 'segmentation'.*gm_segmentation"):
        published_for("segmentation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "Dice"}, r"study.csv, line 2: unknown metric 'Dice'"),
        ({"value": "85"}, r"value of DSC is 85, out of 0 to 1; percent must be fractions"),
        ({"value": "-0.1"}, "out of 0 to 1"),
        ({"median": "91"}, "median of DSC is 91"),
        ({"sd": "-0.1"}, "sd of DSC is -0.1"),
        ({"n": "0"}, "n of DSC is 0"),
        ({"value": "nan"}, "value is 'nan', no number"),
        ({"value": "inf"}, "no number"),
        ({"sd": ".04±"}, "sd is '.04±', no number"),
        ({"unit": "%"}, r"DSC in '%'; ours is in ''"),
        ({"metric": "HSD", "unit": "px"}, r"HSD in 'px'; ours is in 'mm'"),
        ({"source": ""}, "no source"),
        ({"source": "somewhere"}, r"source 'somewhere'; give `doi:10"),
        ({"value": ""}, "no value"),
        ({"arm": " "}, "no arm"),
        ({"mark": "M"}, "mark 'M'; marks are V, A, P"),
        ({"job": "gm_segmentation gm"}, "no job 'gm'"),
    ],
)
def test_what_cannot_be_trusted_is_refused(tmp_path, change, message):
    with pytest.raises((DataError, ConfigError), match=message):
        published_for("disc_faster_rcnn", write(tmp_path, ROW | change))


def test_one_figure_twice_is_refused(tmp_path):
    again = ROW | {"value": "0.9"}
    with pytest.raises(DataError, match="line 3: the same figure as in line 2"):
        published_for("gm_segmentation", write(tmp_path, ROW, again))


@pytest.mark.parametrize("columns", [COLUMNS[:-1], [*COLUMNS, "extra"], COLUMNS[::-1]])
def test_other_columns_are_refused(tmp_path, columns):
    folder = write(tmp_path, columns=columns)
    with pytest.raises(DataError, match="they must be"):
        published_for("gm_segmentation", folder)


def test_a_row_of_another_length_is_refused(tmp_path):
    file = write(tmp_path, ROW) / "study.csv"
    for line in ("gm_segmentation,a,b", ",".join(["x"] * 20)):
        file.write_text(f"{','.join(COLUMNS)}\n{line}\n")
        with pytest.raises(DataError, match="line 2: not 14 values"):
            published_for("gm_segmentation", tmp_path)


def test_numbers_that_a_study_does_not_give_are_undefined(tmp_path):
    (row,) = published_for("gm_segmentation", write(tmp_path, ROW)).to_dict("records")
    assert row["value"] == 0.85
    assert np.isnan([row["sd"], row["median"], row["n"]]).all()
    assert row["note"] == ""


def test_ours_come_first_and_theirs_say_where_they_are_from(tmp_path):
    theirs = [ROW, ROW | {"label": "cord", "arm": "a"}, ROW | {"metric": "PPV"}]
    table = beside(OURS, published_for("gm_segmentation", write(tmp_path, *theirs)))
    assert list(table) == BESIDE
    seen = table[["metric", "label", "arm", "mean", "published"]].to_numpy().tolist()
    assert seen == [
        ["DSC", "gray_matter", "b", 0.7, False],
        ["DSC", "gray_matter", "a", 0.8, False],
        ["DSC", "gray_matter", "theirs", 0.85, True],
        ["DSC", "other", "a", 0.9, False],
        ["DSC", "cord", "a", 0.85, True],  # a label that ours has not; PPV is no metric of ours
    ]
    assert (table["source"] != "").tolist() == table["published"].tolist()
    assert (table["mark"] != "").tolist() == table["published"].tolist()


def test_scores_of_whole_sets_stand_beside_theirs_too(tmp_path):
    ours = OURS.drop(columns=["n", "median", "seeds"]).assign(cells=3)
    table = beside(ours, published_for("gm_segmentation", write(tmp_path, ROW)))
    assert table["n"].isna().all()
    assert table["mean"].tolist() == [0.7, 0.8, 0.85, 0.9]


def test_without_a_metric_in_common_nothing_stands_beside(tmp_path):
    published = published_for("gm_segmentation", write(tmp_path, ROW | {"metric": "PPV"}))
    assert beside(OURS, published).empty
    assert beside(OURS, published.iloc[:0]).empty
