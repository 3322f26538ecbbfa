"""Splits: the rules that reading checks, and the files of data_splits."""

import subprocess

import pytest

from spine_tasks.errors import SplitError
from spine_tasks.splits import DATA_SPLITS, PARTS, load_split

GOOD = "subject,person,part\na,a,train\nb1,b,val\nb2,b,val\nc,c,test\n"


def split_file(tmp_path, text):
    file = tmp_path / "made.csv"
    file.write_text(text)
    return file


def test_a_split_without_fold_column_has_fold_0(tmp_path):
    split = load_split(split_file(tmp_path, GOOD))
    assert split.folds == (0,)
    assert split.part(0, "train") == ("a",)
    assert split.part(0, "val") == ("b1", "b2")
    assert split.part(0, "test") == ("c",)
    assert split.person_of == {"a": "a", "b1": "b", "b2": "b", "c": "c"}


def test_folds_are_numbers_in_order_and_keep_their_own_parts(tmp_path):
    rows = "".join(
        f"{name},{name},{part},{fold}\n"
        for fold, names in ((10, "bca"), (2, "abc"))
        for name, part in zip(names, PARTS, strict=True)
    )
    split = load_split(split_file(tmp_path, "subject,person,part,fold\n" + rows))
    assert split.folds == (2, 10)
    assert (split.part(2, "train"), split.part(10, "train")) == (("a",), ("b",))


def test_a_person_may_change_part_from_fold_to_fold_but_not_within_one(tmp_path):
    text = "subject,person,part,fold\na,a,train,0\nb,b,val,0\nc,c,test,0\n"
    text += "a,a,test,1\nb,b,val,1\nc,c,train,1\n"
    assert load_split(split_file(tmp_path, text)).part(1, "test") == ("a",)
    with pytest.raises(SplitError, match=r"fold 1: persons in more than one part: c \(train and v"):
        load_split(split_file(tmp_path, text + "c2,c,val,1\n"))


def test_the_digest_is_the_sha256_of_the_file(tmp_path):
    file = split_file(tmp_path, GOOD)
    known = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
    assert load_split(file).digest == known.split()[0]


def test_a_byte_order_mark_and_blanks_around_values_are_no_part_of_a_name(tmp_path):
    file = split_file(tmp_path, "")
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(",", " , ").replace("\n", "\r\n").encode())
    assert load_split(file).person_of == {"a": "a", "b1": "b", "b2": "b", "c": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("person", "patient"), "no column person; it has subject, patient, part"),
        (GOOD.replace(",", ";"), "no column subject, person, part; it has subject;person;part"),
        (GOOD.replace("part", "person"), "two columns have one name"),
        (GOOD.replace("b2,b,val", "b2,b,dev"), r"unknown part \['dev'\]; parts are train, val"),
        (GOOD.replace("val", "Val"), r"unknown part \['Val'\]"),
        (GOOD.replace("b2", "b1"), "fold 0: subjects more than once: b1"),
        (GOOD.replace("b2", "sub-b1"), "fold 0: subjects more than once: b1"),
        (GOOD.replace("c,c,", "c,b,"), r"persons in more than one part: b \(val and test\)"),
        (GOOD.replace("c,c,", "c,sub-b,"), r"persons in more than one part: b \(val and test\)"),
        (GOOD + "a2,a,test\nb3,b,train\n", r"part: a \(train and test\), b \(train and val\)"),
        (GOOD.replace("c,c,test\n", ""), "fold 0: no subject in test"),
        (GOOD.replace("a,a,train\n", "").replace("test", "val"), "in train and test"),
        (GOOD.replace("c,c,", "c,,"), "no person in"),
        (GOOD.replace("c,c,", "c,n/a,"), "no person in"),
        (GOOD.replace("c,c,", ",c,"), "no subject in"),
        (GOOD.replace("c,c,test", "c,c"), r"\['c', 'c'\] has not the 3 values"),
        (GOOD.replace("c,c,test", "c,c,test,1"), "has not the 3 values"),
        ("subject,person,part\n", "no rows"),
        ("", "no rows"),
        (GOOD + 'd,"d,test\n', "not a text table"),
        ("subject,person,part,fold\na,a,train,-1\n", "a fold is a whole number from 0, got '-1'"),
        ("subject,person,part,fold\na,a,train,\n", "a fold is a whole number from 0, got ''"),
        ("subject,person,part,fold\na,a,train,0.5\n", "got '0.5'"),
    ],
)
def test_a_wrong_split_is_refused_with_its_file_and_reason(tmp_path, text, message):
    with pytest.raises(SplitError, match=rf"made\.csv.*{message}"):
        load_split(split_file(tmp_path, text))


def test_a_subject_of_two_persons_is_refused_across_folds(tmp_path):
    text = "subject,person,part,fold\na,a,train,0\nb,b,val,0\nc,c,test,0\n"
    text += "a,x,train,1\nb,b,val,1\nc,c,test,1\n"
    with pytest.raises(SplitError, match="subject a is person a and person x"):
        load_split(split_file(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "made.csv").write_bytes(b"\xff\xfe\x00s")
    with pytest.raises(SplitError, match="not a text table"):
        load_split(tmp_path / "made.csv")


@pytest.mark.parametrize("name", ["gm_phantm", "absent.csv", "folder/absent"])
def test_an_unknown_split_is_answered_with_the_known_ones(name):
    with pytest.raises(SplitError, match=rf"{name}.*no such split; data_splits has .*'gm_phantom'"):
        load_split(name)


def test_an_unknown_part_or_fold_is_answered_with_the_known_ones(tmp_path):
    split = load_split(split_file(tmp_path, GOOD))
    with pytest.raises(SplitError, match="no part 'valid'; parts are train, val, test"):
        split.part(0, "valid")
    with pytest.raises(SplitError, match=r"no fold 1; it has \[0\]"):
        split.part(1, "test")


# The files of data_splits


def test_every_split_is_recorded_and_unchanged():
    lines = (DATA_SPLITS / "SHA256SUMS").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split() for line in lines)}
    found = {file.name: load_split(file).digest for file in DATA_SPLITS.glob("*.csv")}
    assert found == recorded


@pytest.mark.parametrize(
    ("name", "counts", "persons"),
    [
        ("gm_paediatric_published", (41, 13, 14), 66),
        ("gm_phantom", (2, 2, 12), 16),
        ("gm_phantom_adult", (8, 2, 2), 12),
    ],
)
def test_a_published_split_has_the_stated_numbers(name, counts, persons):
    split = load_split(name)
    assert tuple(len(split.part(0, part)) for part in PARTS) == counts
    assert len(set(split.person_of.values())) == persons


def test_the_second_scans_of_the_paediatric_split_are_where_its_readme_says():
    split = load_split("gm_paediatric_published")
    second = {part: set() for part in PARTS}
    for part in PARTS:
        for subject in split.part(0, part):
            if subject.endswith("_second"):
                second[part].add(split.person_of[subject])
    assert second == {"train": {"162", "172", "166", "92"}, "val": {"179"}, "test": {"173"}}
    assert {"162", "172"} <= set(split.part(0, "train"))
    assert not {"166", "92", "179", "173"} & set(split.person_of)
    regions = {row["subject"]: row["region"] for row in split.rows[0]}
    assert all((regions[s] == "lumbar") == s.endswith("_second") for s in regions)


def test_the_challenge_split_tests_and_validates_each_of_four_people_once():
    split = load_split("gm_challenge")
    for part in ("test", "val"):
        people = [{split.person_of[s] for s in split.part(f, part)} for f in split.folds]
        assert sorted(next(iter(p)) for p in people) == ["9584", "9604", "9669", "9709"]
        assert all(len(p) == 1 for p in people)
    assert len(split.person_of) == 5
    assert split.person_of["sub-9709Ses1"] == split.person_of["sub-9709Ses2"]
