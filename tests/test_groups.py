"""Groups: who is in which, and that each holds what the same cases alone would give."""

import numpy as np
import pandas as pd
import pytest
from making import planned_grid

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.groups import NONE, beside_baseline, grouped
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.splits import load_split
from spine_tasks.stats.rank_tests import holm, signed_rank_p

SUBJECTS = [f"s{n:02}" for n in range(12)]
ARMS = ["init=scratch augment=False", "init=pretrained augment=False"]  # the baseline first


def gathered_of(cases, experiment, predicts=None):
    """What complete cells would leave whose scores are these."""
    kind = Gathered if predicts is None else type("Other", (Gathered,), {"predicts": predicts})
    return kind(
        experiment=experiment,
        states={},
        arms=experiment.cells,
        cases=cases,
        histories=pd.DataFrame(),
        runs=pd.DataFrame(),
        baseline=ARMS[0],
        mixed=[],
        computed_with=[],
    )


def scores(case="sub-{}_T2w", label="gray_matter", metrics=("DSC",)):
    """A value a subject, metric and arm: arms differ by 0.01, 0.02 and so on."""
    rows = []
    for arm in ARMS:
        for n, name in enumerate(SUBJECTS):
            value = 0.5 + 0.02 * n + (arm != ARMS[0]) * 0.01 * (n + 1)
            rows += [
                {"cell": arm, "arm": arm, "split": "s", "fold": 0, "seed": 0, "person": f"p{name}",
                 "subject": name, "case": case.format(name), "slice": np.nan, "label": label,
                 "metric": metric, "value": value}
                for metric in metrics
            ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "bids"
    folder.mkdir()
    return folder


def experiment_of(tmp_path, data, split=None, **columns):
    """A grid on a split whose file says more of each subject."""
    parts = [*["train", "val"], *["test"] * 10]
    given = {"subject": SUBJECTS, "person": [f"p{one}" for one in SUBJECTS], "part": parts}
    file = tmp_path / "mine.csv"
    pd.DataFrame(given | columns).to_csv(file, index=False)
    return planned_grid(tmp_path / "results", **{"data": str(data), "split": str(split or file)})


def note(data, **columns):
    ids = {"participant_id": [f"sub-{one}" for one in SUBJECTS]}
    pd.DataFrame(ids | columns).to_csv(data / "participants.tsv", sep="\t", index=False)


def halves(one="here", other="there"):
    return [one] * 6 + [other] * 6


def row_of(table, group, arm=ARMS[1]):
    [row] = table[(table["group"] == group) & (table["arm"] == arm)].to_dict("records")
    return row


def test_a_group_has_what_its_cases_alone_would_give(tmp_path, data):
    experiment = experiment_of(tmp_path, data, site=halves())
    cases = scores(metrics=("DSC", "MSD"))
    table = grouped(gathered_of(cases, experiment), ["site"])
    assert list(table["group"].unique()) == ["here", "there"]
    for group, names in (("here", SUBJECTS[:6]), ("there", SUBJECTS[6:])):
        alone = beside_baseline(cases[cases["subject"].isin(names)], ARMS[0])
        mine = table[table["group"] == group].drop(columns=["by", "group", "p_holm"])
        expected = alone[[*mine.columns]].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), expected)


def test_numbers_are_those_of_arithmetic(tmp_path, data):
    experiment = experiment_of(tmp_path, data, site=halves())
    table = grouped(gathered_of(scores(), experiment), ["site"])
    row = row_of(table, "there")
    assert row["n"] == 6
    gain = 0.01 * np.arange(7, 13)
    assert row["difference"] == pytest.approx(gain.mean())
    assert row["mean"] == pytest.approx((0.5 + 0.02 * np.arange(6, 12) + gain).mean())
    assert row["p"] == 2 / 2**6  # Wilcoxon: all six of one sign
    assert np.isnan(row_of(table, "there", ARMS[0])["difference"])  # the baseline against itself


def test_p_are_corrected_over_the_groups_of_a_column(tmp_path, data):
    classes = ["a"] * 5 + ["b"] * 3 + ["c"] * 4
    experiment = experiment_of(tmp_path, data, kind=classes, site=halves())
    table = grouped(gathered_of(scores(), experiment), ["kind", "site"])
    p = pd.Series([2 / 2**5, 2 / 2**3, 2 / 2**4])
    mine = table[(table["by"] == "kind") & (table["arm"] == ARMS[1])]
    assert list(mine["p"]) == list(p)
    assert list(mine["p_holm"]) == list(holm(p))
    other = table[(table["by"] == "site") & (table["arm"] == ARMS[1])]
    assert list(other["p_holm"]) == [2 * 2 / 2**6] * 2
    assert signed_rank_p(np.ones(5)) == 2 / 2**5


def test_participants_are_found_with_or_without_sub(tmp_path, data, capsys):
    note(data, sex=["F", "M"] * 6)
    experiment = experiment_of(tmp_path, data)
    table = grouped(gathered_of(scores(), experiment), ["sex"])
    assert row_of(table, "F")["n"] == row_of(table, "M")["n"] == 6
    assert row_of(table, "F")["difference"] == pytest.approx(0.01 * np.arange(1, 13, 2).mean())
    assert capsys.readouterr().err == ""


def test_who_has_no_value_is_a_group_and_is_counted(tmp_path, data, capsys):
    note(data, sex=["F"] * 9 + ["n/a", "", "NA"])
    experiment = experiment_of(tmp_path, data)
    table = grouped(gathered_of(scores(), experiment), ["sex"])
    assert list(table["group"].unique()) == ["F", NONE]
    assert row_of(table, NONE)["n"] == 3
    said = capsys.readouterr().err
    assert "3 of 12 persons" in said
    assert "ps09, ps10, ps11" in said


def test_a_person_at_two_sites_is_in_both_groups(tmp_path, data):
    cases = scores()
    cases["person"] = "p" + cases["subject"].map(lambda name: str(int(name[1:]) % 6))
    experiment = experiment_of(tmp_path, data, site=halves())
    table = grouped(gathered_of(cases, experiment), ["site"])
    assert row_of(table, "here")["n"] == row_of(table, "there")["n"] == 6


def test_contrast_is_read_from_the_names_of_images(tmp_path, data):
    cases = pd.concat([scores(), scores(case="sub-{}_acq-ax_T1w")])
    table = grouped(gathered_of(cases, experiment_of(tmp_path, data)), ["contrast"])
    assert list(table["group"].unique()) == ["T1w", "T2w"]
    assert set(table["label"]) == {"gray_matter"}


@pytest.mark.parametrize(
    ("by", "groups"), [("contrast", ["T1w", "T2w"]), ("source", ["basel", "oslo"])]
)
def test_test_sets_of_cords_are_put_together(tmp_path, data, by, groups):
    pairs = ["basel T1w", "basel T2w", "oslo T2w"]
    cases = pd.concat([scores(case=f"{one}_{{}}", label=one) for one in pairs])
    experiment = experiment_of(tmp_path, data)
    table = grouped(gathered_of(cases, experiment, "cords"), [by])
    assert list(table["group"].unique()) == groups
    assert set(table["label"]) == {"cord"}
    assert set(table["n"]) == {12}  # persons, not persons times test sets


def test_categories_of_the_long_table_make_no_empty_groups(tmp_path, data):
    cases = pd.concat([scores(), scores(case="sub-{}_T1w")], ignore_index=True)
    texts = ["arm", "case", "subject", "person", "label", "metric"]
    cases = cases.astype(dict.fromkeys(texts, "category"))
    cases = cases[cases["case"].astype(str).str.endswith("T1w")]
    experiment = experiment_of(tmp_path, data, site=halves())
    table = grouped(gathered_of(cases, experiment), ["contrast", "site"])
    assert len(table) == 2 + 4
    assert set(table["n"]) == {12, 6}


def test_numbers_need_edges_and_are_cut_at_them(tmp_path, data):
    note(data, age=[*range(30, 41), "n/a"])
    gathered = gathered_of(scores(), experiment_of(tmp_path, data))
    with pytest.raises(ConfigError, match=r"11 numbers from 30 to 40 are no groups.*age:35"):
        grouped(gathered, ["age"])
    table = grouped(gathered, ["age:32,40"])
    assert list(table["group"].unique()) == ["< 32", "32 to < 40", ">= 40", NONE]
    at = [row_of(table, group)["n"] for group in table["group"].unique()]
    assert at == [2, 8, 1, 1]  # an edge belongs to the group above


def test_few_numbers_are_classes_in_their_order(tmp_path, data):
    note(data, field=[10, 3, 1.5] * 4)
    table = grouped(gathered_of(scores(), experiment_of(tmp_path, data)), ["field"])
    assert list(table["group"].unique()) == ["1.5", "3.0", "10.0"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("sexx", r"no column 'sexx', did you mean 'sex'\?.*contrast \(of the cases\).*site \(.*mine"
                 r".csv\); sex \(.*participants.tsv"),
        ("sex:1", "edges cut numbers"),
        ("age:40,30", "edges ascend"),
        ("age:40,old", "edges cut numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_grouped_by_is_refused(tmp_path, data, asked, message):
    note(data, sex=["F", "M"] * 6, age=[*range(30, 42)])
    gathered = gathered_of(scores(), experiment_of(tmp_path, data, site=halves()))
    with pytest.raises(ConfigError, match=message):
        grouped(gathered, [asked])


def test_tables_that_contradict_each_other_are_refused(tmp_path, data):
    note(data, site=["here"] * 11 + ["elsewhere"])
    gathered = gathered_of(scores(), experiment_of(tmp_path, data, site=["here"] * 12))
    with pytest.raises(DataError, match="site of sub-s11 is 'elsewhere', but 'here'"):
        grouped(gathered, ["site"])


def test_a_table_of_other_subjects_is_no_group_of_everybody(tmp_path, data):
    note(data, sex=["F"] * 12)
    file = data / "participants.tsv"
    file.write_text(file.read_text().replace("sub-s", "sub-other"))
    gathered = gathered_of(scores(), experiment_of(tmp_path, data))
    with pytest.raises(DataError, match="no value for any of the 12 persons"):
        grouped(gathered, ["sex"])


def test_a_group_without_the_baseline_has_no_difference(tmp_path, data):
    cases = scores()
    cases = cases[(cases["arm"] != ARMS[0]) | cases["subject"].isin(SUBJECTS[:6])]
    experiment = experiment_of(tmp_path, data, site=halves())
    table = grouped(gathered_of(cases, experiment), ["site"])
    assert row_of(table, "there")["n"] == 6
    assert np.isnan(row_of(table, "there")["difference"])
    assert row_of(table, "here")["difference"] > 0


def test_levels_are_those_of_the_graded_places(tmp_path):
    from spine_tasks.data.cases import grade_cases_of
    from spine_tasks.experiment import planned
    from spine_tasks.grid import configure, find_grid

    split = tmp_path / "three.csv"
    names = load_split("spine_phantom").part(0, "test")[:3]
    pd.DataFrame({"subject": names, "person": names, "part": ["train", "val", "test"]}).to_csv(
        split, index=False
    )
    grid = configure(find_grid("stenosis_levels"), None, {"seeds": 1, "split": str(split)})
    experiment = planned("levels", grid, tmp_path)
    places, _ = grade_cases_of(experiment.cells[0], "test", experiment.folder)
    person_of = load_split(experiment.cells[0].split).person_of
    rows = [
        {"cell": "c", "arm": ARMS[0], "split": "s", "fold": 0, "seed": 0, "slice": np.nan,
         "person": person_of[one.subject], "subject": one.subject, "case": one.id,
         "label": "canal", "metric": "right", "value": float(one.level == "L4/L5")}
        for one in places
    ]  # fmt: skip
    table = grouped(gathered_of(pd.DataFrame(rows), experiment), ["level", "condition"])
    means = table[table["by"] == "level"].set_index("group")["mean"]
    assert set(means.index) == {one.level for one in places}
    assert means["L4/L5"] == 1
    assert means.drop("L4/L5").eq(0).all()
    assert list(table[table["by"] == "condition"]["group"]) == ["canal"]
