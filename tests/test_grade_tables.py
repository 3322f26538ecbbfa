"""Grades from a plain table: places, conditions and the order of grades."""

import json
import logging

import pytest

from spine_tasks.data.grades import read_grades
from spine_tasks.errors import DataError

HEAD = "image,subject,level,condition,grade,x,y,width,height"


def write(folder, *rows, head=HEAD):
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    (folder / "grades.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_rows_of_one_place_are_one_case_with_several_grades(tmp_path):
    write(
        tmp_path,
        "a.png,7,2,pfirrmann,4,10,20,30,8",
        "a.png,7,2,narrowing,1,10,20,30,8",
        "a.png,7,10,pfirrmann,2,10,60,30,8",
        "a.png,7,10,narrowing,0,10,60,30,8",
        "b.png,8,2,pfirrmann,5,11,20,30,8",
    )
    data = read_grades(tmp_path)
    assert data.levels == ("2", "10")
    assert data.conditions == {"narrowing": ("0", "1"), "pfirrmann": ("2", "3", "4", "5")}
    assert [case.id for case in data.cases] == ["a_10", "a_2", "b_2"]
    disc = data.cases[1]
    assert disc.grades == {"pfirrmann": 2, "narrowing": 1}
    assert (disc.subject, disc.x, disc.y, disc.width, disc.height) == ("7", 10, 20, 30, 8)
    assert disc.series == (tmp_path / "a.png",)


def test_named_grades_need_an_order(tmp_path):
    write(tmp_path, "a.png,7,L1,stenosis,mild,1,2,,", "a.png,7,L2,stenosis,severe,1,2,,")
    with pytest.raises(DataError, match=r"stenosis: the order of its grades \['mild', 'severe'\]"):
        read_grades(tmp_path)
    (tmp_path / "grades.json").write_text(json.dumps({"stenosis": ["mild", "moderate", "severe"]}))
    data = read_grades(tmp_path)
    assert [case.grades["stenosis"] for case in data.cases] == [0, 2]
    assert data.cases[0].width is None
    assert tmp_path / "grades.json" in data.tables


def test_a_place_without_a_grade_is_counted(tmp_path, caplog):
    write(tmp_path, "a.png,7,1,p,1,1,2,,", "a.png,7,2,p,2,1,2,,", "a.png,7,3,p,,1,2,,")
    with caplog.at_level(logging.WARNING):
        data = read_grades(tmp_path)
    assert data.cases[2].grades == {"p": None}
    assert "1 places without a grade, which are only predicted, first a_3 p" in caplog.text


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["c.png,7,1,p,1,1,2,,"], "line 2: .*c.png is not there"),
        (["a.png,7,1,p,1,one,2,,"], "line 2: x must be px, got 'one'"),
        (["a.png,7,1,p,1,,2,,"], "line 2: needs x and y"),
        (["a.png,7,1,p,1,1,2,3,"], "width and height both or neither"),
        (["a.png,7,1,p,1,1,2,,", "a.png,7,1,p,2,1,2,,"], "line 3: two grades of p at one place"),
        (["a.png,7,1,p,1,1,2,,", "a.png,8,1,q,1,1,2,,"], "one place of two subjects, 7 and 8"),
        (["a.png,7,1,p,1,1,2,,", "a.png,7,1,p,2,5,2,,"], "two places called a_1"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, said):
    write(tmp_path, *rows, "b.png,9,1,p,1,1,2,,", "b.png,9,2,p,2,1,2,,", "b.png,9,2,q,1,1,2,,")
    (tmp_path / "grades.json").write_text(json.dumps({"p": ["1", "2"], "q": ["0", "1"]}))
    with pytest.raises(DataError, match=said):
        read_grades(tmp_path)


def test_an_unknown_grade_is_answered_with_the_nearest(tmp_path):
    write(tmp_path, "a.png,7,1,p,sevre,1,2,,")
    (tmp_path / "grades.json").write_text(json.dumps({"p": ["mild", "severe"]}))
    with pytest.raises(DataError, match="p: no grade 'sevre', did you mean 'severe'"):
        read_grades(tmp_path)


def test_a_condition_of_one_grade_is_refused(tmp_path):
    write(tmp_path, "a.png,7,1,p,1,1,2,,")
    with pytest.raises(DataError, match="p has one grade only, 1"):
        read_grades(tmp_path)


def test_a_missing_column_is_named(tmp_path):
    write(tmp_path, "a.png,7", head="image,subject")
    with pytest.raises(DataError, match="no column 'level'; it has image, subject"):
        read_grades(tmp_path)
