"""Making splits: the laws that every made split keeps."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spine_tasks.errors import SplitError
from spine_tasks.given_splits import image_subjects, split_by_groups, split_by_parts
from spine_tasks.make_splits import make_split, read_participants, write_split
from spine_tasks.splits import DATA_SPLITS, PARTS, load_split


def participants(scans, sites=None):
    """`scans[i]` subjects of person i, at site `sites[i]`."""
    sites = sites or ["x"] * len(scans)
    return [
        {"participant_id": f"sub-{i:03d}s{j}", "who": f"p{i:03d}", "site": sites[i]}
        for i, number in enumerate(scans)
        for j in range(number)
    ]


def persons_in(rows, fold, part):
    return {row["person"] for row in rows if row["part"] == part and row["fold"] == str(fold)}


scans = st.lists(st.integers(1, 3), min_size=6, max_size=25)


@settings(max_examples=25, deadline=None)
@given(scans, st.integers(3, 6), st.integers(0, 99))
def test_k_folds_test_and_validate_every_person_once_and_cross_none(scans, folds, seed):
    rows = make_split(participants(scans), folds=folds, person="who", seed=seed)
    people = {f"p{i:03d}" for i in range(len(scans))}
    for part in ("test", "val"):
        times = Counter(p for fold in range(folds) for p in persons_in(rows, fold, part))
        assert times == dict.fromkeys(people, 1)
    for fold in range(folds):
        parts = [persons_in(rows, fold, part) for part in PARTS]
        assert set.union(*parts) == people
        assert sum(map(len, parts)) == len(people)
        assert all(parts)
        assert parts[1] == persons_in(rows, (fold + 1) % folds, "test")
        subjects = [row["subject"] for row in rows if row["fold"] == str(fold)]
        assert len(subjects) == len(set(subjects)) == sum(scans)
    sizes = [len(persons_in(rows, fold, "test")) for fold in range(folds)]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(4, 9), st.integers(4, 9), st.integers(4, 20)), st.integers(0, 99))
def test_strata_differ_by_one_person_at_most_between_test_parts(numbers, seed):
    sites = [site for site, number in zip("abc", numbers, strict=True) for _ in range(number)]
    made = participants([1 + i % 2 for i in range(len(sites))], sites)
    rows = make_split(made, folds=4, person="who", stratify="site", seed=seed)
    site_of = {row["who"]: row["site"] for row in made}
    assert all(row["site"] == site_of[row["person"]] for row in rows)
    for site in "abc":
        at = [sum(site_of[p] == site for p in persons_in(rows, f, "test")) for f in range(4)]
        assert max(at) - min(at) <= 1


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(5, 30), st.integers(5, 30)), st.integers(0, 99))
def test_a_holdout_has_the_fractions_and_the_strata_asked_for(numbers, seed):
    sites = ["a"] * numbers[0] + ["b"] * numbers[1]
    made = participants([1 + i % 2 for i in range(len(sites))], sites)
    fractions = (0.5, 0.25, 0.25)
    rows = make_split(made, holdout=fractions, person="who", stratify="site", seed=seed)
    parts = {part: persons_in(rows, 0, part) for part in PARTS}
    assert sum(map(len, parts.values())) == len(sites) == len(set.union(*parts.values()))
    for part, fraction in zip(PARTS, fractions, strict=True):
        assert abs(len(parts[part]) - fraction * len(sites)) <= 1
    at_a = {part: sum(sites[int(p[1:])] == "a" for p in parts[part]) for part in PARTS}
    assert abs(at_a["test"] - len(parts["test"]) * numbers[0] / len(sites)) <= 1
    rest = len(sites) - len(parts["test"])
    expected_val = len(parts["val"]) * (numbers[0] - at_a["test"]) / rest
    assert abs(at_a["val"] - expected_val) <= 1


@settings(max_examples=25, deadline=None)
@given(scans, st.randoms(use_true_random=False), st.sampled_from(["folds", "holdout"]))
def test_the_order_of_rows_plays_no_role(scans, order, way):
    chosen = {"folds": {"folds": 3}, "holdout": {"holdout": (0.6, 0.2, 0.2)}}[way]
    made = participants(scans)
    shuffled = order.sample(made, len(made))
    assert make_split(shuffled, person="who", **chosen) == make_split(made, person="who", **chosen)


@pytest.mark.parametrize("chosen", [{"folds": 5}, {"holdout": (0.6, 0.2, 0.2)}])
def test_the_seed_alone_decides(chosen):
    made = participants([1] * 20)
    first = make_split(made, seed=3, **chosen)
    assert make_split(made, seed=3, **chosen) == first
    assert make_split(made, seed=4, **chosen) != first


def test_as_many_folds_as_persons_leave_one_person_out():
    rows = make_split(participants([2, 1, 3, 1]), folds=4, person="who")
    assert [len(persons_in(rows, fold, "test")) for fold in range(4)] == [1, 1, 1, 1]


def test_without_a_person_column_every_subject_is_a_person():
    rows = make_split(participants([2, 2]), folds=4)
    assert {row["person"] for row in rows} == {"000s0", "000s1", "001s0", "001s1"}


def test_persons_written_with_and_without_prefix_are_one():
    made = [
        {"subject": s, "who": w} for s, w in (("1", "x"), ("2", "sub-x"), ("3", "y"), ("4", "z"))
    ]
    rows = make_split(made, folds=3, person="who")
    parts = {row["subject"]: row["part"] for row in rows if row["fold"] == "0"}
    assert parts["1"] == parts["2"]


def test_a_missing_stratum_is_a_stratum_of_its_own():
    rows = make_split(participants([1] * 8, ["a", "n/a"] * 4), folds=4, stratify="site")
    for fold in map(str, range(4)):
        tested = [r["site"] for r in rows if (r["fold"], r["part"]) == (fold, "test")]
        assert sorted(tested) == ["a", "n/a"]


@pytest.mark.parametrize(
    ("made", "chosen", "message"),
    [
        (participants([1] * 4), {"folds": 5}, r"5 folds need 5 persons.*got \{'all': 4\}"),
        (participants([3, 1]), {"folds": 3, "person": "who"}, "3 folds need 3 persons"),
        (participants([1] * 9), {"folds": 2}, "at least 3 folds, got 2"),
        (
            participants([1] * 9, ["a"] * 7 + ["b"] * 2),
            {"folds": 3, "stratify": "site"},
            r"3 folds need 3 persons of each stratum, got \{'b': 2\}",
        ),
        (participants([1] * 9, ["a"] * 8 + ["b"]), {"stratify": "site"}, r"'b': 1.*too few"),
        (participants([1] * 2), {}, "2 persons .* too few"),
        (participants([1] * 9), {"holdout": (0.6, 0.6, -0.2)}, "fractions above 0 of sum 1"),
        (participants([1] * 9), {"holdout": (0.6, 0.2, 0.1)}, "fractions above 0 of sum 1"),
        (participants([1] * 9), {"person": "patient"}, "no column patient; it has participant_id"),
        (participants([1] * 9), {"stratify": "sex"}, "cannot stratify by sex; give one of"),
        (participants([1] * 9) * 2, {}, "more than once: 000s0"),
        ([{"id": "a"}], {}, "no column participant_id or subject; it has id"),
        ([{"subject": "a", "who": "n/a"}], {"person": "who"}, "without a name"),
        (
            [{"subject": s, "who": "p", "site": s} for s in "ab"],
            {"person": "who", "stratify": "site"},
            "person p has site a and b",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(made, chosen, message):
    if "folds" not in chosen:
        chosen = {"holdout": (0.6, 0.2, 0.2)} | chosen
    with pytest.raises(SplitError, match=message):
        make_split(made, **chosen)


def test_folds_and_holdout_exclude_each_other():
    for chosen in ({}, {"folds": 3, "holdout": (0.6, 0.2, 0.2)}):
        with pytest.raises(SplitError, match="give either folds or holdout"):
            make_split(participants([1] * 9), **chosen)


def test_what_was_made_is_what_is_read(tmp_path):
    made = participants([2, 1, 1, 2], ["Oslo, north"] * 4)
    rows = make_split(made, folds=4, person="who", stratify="site")
    split = write_split(tmp_path / "new" / "made.csv", rows)
    assert [row for fold in split.folds for row in split.rows[fold]] == rows


def test_a_split_is_never_overwritten(tmp_path):
    file = tmp_path / "made.csv"
    file.write_text("old")
    with pytest.raises(SplitError, match=r"made\.csv: exists already"):
        write_split(file, make_split(participants([1] * 4), folds=3))
    assert file.read_text() == "old"


def test_rows_that_break_a_rule_are_not_written(tmp_path):
    rows = [{"subject": s, "person": "one", "part": p} for s, p in zip("abc", PARTS, strict=True)]
    with pytest.raises(SplitError, match="persons in more than one part"):
        write_split(tmp_path / "made.csv", rows)
    assert not list(tmp_path.iterdir())


def test_participants_are_read_from_tsv_and_csv(tmp_path):
    for name, text in (
        ("p.tsv", "participant_id\tage\nsub-1\t3\n"),
        ("p.csv", "subject,age\n1,3\n"),
    ):
        (tmp_path / name).write_text(text)
        assert read_participants(tmp_path / name)[0]["age"] == "3"
    with pytest.raises(SplitError, match=r"absent\.tsv: no such file"):
        read_participants(Path("absent.tsv"))


# Splits that are given


def images(folder, name, *listed):
    """An annotation file of some images, each a dict of further keys."""
    described = []
    for number, more in enumerate(listed):
        picture = f"{name}_{number}.png"
        Image.new("L", (8, 8)).save(folder / picture)
        described.append({"id": number, "file_name": picture, "width": 8, "height": 8} | more)
    categories = [{"id": 1, "name": "disc"}]
    text = json.dumps({"images": described, "annotations": [], "categories": categories})
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{name}.json").write_text(text)
    return folder


def table(folder, text):
    (folder / "folds.csv").write_text(text)
    return folder / "folds.csv"


def test_a_subject_of_many_images_is_one_row_with_the_keys_asked_for(tmp_path):
    folder = images(
        tmp_path,
        "train",
        {"patient": 12, "who": "x", "sequence": "t1"},
        {"patient": 3, "who": "x", "sequence": "t2"},
        {"patient": 12, "who": "x", "sequence": "t2"},
    )
    assert image_subjects(folder) == [{"subject": "12"}, {"subject": "3"}]
    assert image_subjects(folder, ["who"])[1] == {"subject": "3", "who": "x"}
    with pytest.raises(
        SplitError, match="subject 12 has sequence t1 and t2; choose a key with one"
    ):
        image_subjects(folder, ["sequence"])
    with pytest.raises(SplitError, match=r"image train_0 has no sex, but \['id', .*'who'"):
        image_subjects(folder, ["sex"])


def test_each_group_is_tested_once_and_validates_the_fold_before(tmp_path):
    made = participants([1, 1, 1, 1, 2])
    groups = {"000s0": 2, "001s0": 0, "002s0": 1, "003s0": 3, "004s0": 0, "004s1": 0, "zz": 1}
    text = "participant_id,fold\n" + "".join(f"sub-{who},{n}\n" for who, n in groups.items())
    rows, left_out = split_by_groups(made, table(tmp_path, text), person="who")
    assert left_out == ["zz"]
    of_group = [{"p001", "p004"}, {"p002"}, {"p000"}, {"p003"}]
    for fold in range(4):
        assert persons_in(rows, fold, "test") == of_group[fold]
        assert persons_in(rows, fold, "val") == of_group[(fold + 1) % 4]
    assert len(rows) == 4 * 6
    assert list(rows[0]) == ["subject", "person", "part", "fold"]
    assert write_split(tmp_path / "made.csv", rows).folds == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,fold\n000s0,0\n001s0,1\n", "2 of 4 subjects of the data are not in .*002s0;"),
        ("subject,group\n000s0,0\n", "needs the columns fold and one of subject, patient, "),
        ("who,fold\n000s0,0\n", "needs the columns fold .* it has who, fold"),
        ("{all}000s0,1\n", "one row and a fold from 0, got .*'000s0'"),
        ("{all}9,-1\n", "a fold from 0, got .*'-1'"),
        ("{all}9,1.0\n", "a fold from 0, got .*'1.0'"),
        ("{all}9,9\n", r"numbered 0, 1, 2 and so on, .* got \[0, 1, 2, 9\]"),
        ("{all}9,3\n", r"no subject of the data is in groups \[3\]"),
    ],
)
def test_groups_that_do_not_fit_the_data_are_refused(tmp_path, text, message):
    all_there = "subject,fold\n000s0,0\n001s0,1\n002s0,2\n003s0,2\n"
    text = text.replace("{all}", all_there)
    if "2 of 4" in message:  # reach that check: three groups
        text += "8,2\n"
    with pytest.raises(SplitError, match=message):
        split_by_groups(participants([1] * 4), table(tmp_path, text))


def test_two_groups_are_too_few_and_a_person_in_two_is_refused(tmp_path):
    made = participants([1, 1, 2])
    two = table(tmp_path, "subject,fold\n000s0,0\n001s0,1\n002s0,1\n002s1,1\n")
    with pytest.raises(SplitError, match="at least three"):
        split_by_groups(made, two)
    parted = table(tmp_path, "subject,fold\n000s0,0\n001s0,1\n002s0,1\n002s1,2\n")
    assert split_by_groups(made, parted)[1] == []
    with pytest.raises(SplitError, match=r"person p002 is in groups \[1, 2\]"):
        split_by_groups(made, parted, person="who")
    with pytest.raises(SplitError, match="no such file"):
        split_by_groups(made, tmp_path / "absent.csv")


def test_the_parts_of_annotation_files_are_kept_also_under_their_names_in_coco(tmp_path):
    folder = images(tmp_path, "train", {"patient": 2}, {"patient": 1}, {"patient": 2})
    images(folder, "instances_val2017", {"patient": 3})
    images(folder, "test", {"patient": 4})
    rows = split_by_parts(folder)
    assert [(row["subject"], row["part"], row["fold"]) for row in rows] == [
        ("1", "train", "0"),
        ("2", "train", "0"),
        ("3", "val", "0"),
        ("4", "test", "0"),
    ]


def test_parts_with_a_person_in_two_or_without_test_are_refused_with_what_to_do(tmp_path):
    folder = images(tmp_path, "train", {"patient": 1, "who": "x"})
    images(folder, "val", {"patient": 2, "who": "y"})
    with pytest.raises(SplitError, match=r"no annotations of test, .*knob `test_data`"):
        split_by_parts(folder)
    images(folder, "test", {"patient": 3, "who": "x"})
    assert [row["part"] for row in split_by_parts(folder)] == list(PARTS)
    with pytest.raises(SplitError, match=r"more than one part: x \(test and train\); deal anew"):
        split_by_parts(folder, person="who")
    images(folder, "test", {"patient": 2, "who": "y"})
    with pytest.raises(SplitError, match=r"more than one part: 2 \(test and val\)"):
        split_by_parts(folder)
    images(folder, "extra", {"patient": 9, "who": "z"})
    with pytest.raises(SplitError, match=r"extra\.json is named after no part"):
        split_by_parts(folder)


@pytest.mark.parametrize(
    ("name", "data"),
    [("spider_midsagittal", "spider-midsagittal"), ("spider_t2space", "spider-t2space-seg")],
)
@pytest.mark.skipif("SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder")
def test_the_splits_of_real_data_are_made_again(tmp_path, name, data):
    folder = Path(os.environ["SPINE_TEST_DATA"])
    rows, _ = split_by_groups(image_subjects(folder / data), folder / "spider_folds.csv")
    assert (
        write_split(tmp_path / "made.csv", rows).digest
        == load_split(DATA_SPLITS / f"{name}.csv").digest
    )
