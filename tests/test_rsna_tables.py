"""The challenge's tables: every place is what it was, whatever it is called; nothing vanishes."""

import logging
import shutil

import pandas as pd
import pytest

from spine_tasks.data import phantom_lumbar
from spine_tasks.data.grades import read_grades
from spine_tasks.data.phantom_lumbar import SERIES, grades_of
from spine_tasks.data.rsna_names import LEVELS
from spine_tasks.data.rsna_tables import row_id
from spine_tasks.errors import DataError

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `grading`)")

SUBJECTS = ("sub-s01", "sub-s02")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return phantom_lumbar.ensure(tmp_path_factory.mktemp("made") / "rsna", SUBJECTS)


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "rsna")
    return tmp_path / "rsna"


def change(file, edit):
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    edit(table).to_csv(file, index=False)


def with_value(line, column, value):
    def edit(table):
        table.loc[line, column] = value
        return table

    return edit


def test_a_study_has_25_places_with_its_grades_each_in_its_own_series(made):
    data = read_grades(made)
    assert data.levels == LEVELS
    assert [len(data.of_subjects([name])) for name in SUBJECTS] == [25, 25]
    for case in data.cases:
        [(condition, grade)] = case.grades.items()
        level = LEVELS.index(case.level)
        assert grade == grades_of(case.subject)[condition, case.side, level]
        assert case.id == row_id(case.study, condition, case.side, case.level)
        series = SERIES[phantom_lumbar.OF[condition]]
        assert case.series[0].parent.name == series.id
        assert len(case.series) == len(series.corners_mm)


def test_instances_are_in_the_order_of_their_numbers(made):
    for case in read_grades(made).cases:
        numbers = [int(file.stem) for file in case.series]
        assert numbers == sorted(numbers)
    [axial] = {case.series for case in read_grades(made).cases if "/sub-s01/3/" in str(case.series)}
    assert len(axial) == 15  # so that 10 comes after 9, not after 1


def test_other_spellings_are_read(folder):
    file = folder / "train_label_coordinates.csv"
    before = read_grades(folder).cases

    def respell(table):
        table["condition"] = table["condition"].str.lower().str.replace(" ", "_")
        table["level"] = table["level"].str.lower().str.replace("/", "_")
        return table

    change(file, respell)
    assert read_grades(folder).cases == before


@pytest.mark.parametrize(
    ("table", "line", "column", "value", "said"),
    [
        ("train_label_coordinates", 3, "level", "L6/S1", "line 5: no level 'L6/S1', did you mean"),
        (
            "train_label_coordinates",
            0,
            "condition",
            "Canal",
            "line 2: no condition 'Canal'; It has",
        ),
        ("train_label_coordinates", 0, "instance_number", "99", "/99.dcm; fetch the images"),
        ("train_label_coordinates", 0, "series_id", "7", "/7/"),
        ("train_label_coordinates", 0, "study_id", "gone", "gone"),
        ("train_label_coordinates", 0, "x", "left", "line 2: x and y must be px, got 'left'"),
        (
            "train",
            1,
            "spinal_canal_stenosis_l1_l2",
            "Bad",
            "study sub-s02, spinal_canal_st",
        ),
        ("train", 1, "study_id", "sub-s01", "study sub-s01 has two rows"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(folder, table, line, column, value, said):
    change(folder / f"{table}.csv", with_value(line, column, value))
    with pytest.raises(DataError) as error:
        read_grades(folder)
    assert said in str(error.value)


def test_a_place_that_is_there_twice_is_refused(folder):
    file = folder / "train_label_coordinates.csv"
    change(file, lambda table: pd.concat([table, table.iloc[[4]]]))
    with pytest.raises(DataError, match="line 52: a second place of sub-s01_"):
        read_grades(folder)


def test_places_without_a_grade_and_grades_without_a_place_are_counted(folder, caplog):
    change(folder / "train.csv", with_value(0, "spinal_canal_stenosis_l1_l2", ""))
    change(folder / "train_label_coordinates.csv", lambda table: table.drop(index=[1, 2]))
    with caplog.at_level(logging.WARNING):
        data = read_grades(folder)
    assert len(data.cases) == 48
    assert "1 places without a grade, which are only predicted, first sub-s01_spi" in caplog.text
    assert "2 grades left out, since their place is not known, first sub-s01_spi" in caplog.text
    [case] = [case for case in data.cases if None in case.grades.values()]
    assert case.id == "sub-s01_spinal_canal_stenosis_l1_l2"


def test_conditions_are_chosen_by_name(made):
    data = read_grades(made, ["subarticular_stenosis"])
    assert len(data.cases) == 20
    assert list(data.conditions) == ["subarticular_stenosis"]
    with pytest.raises(DataError, match=r"no condition 'subarticular', did you mean 'subarticular"):
        read_grades(made, ["subarticular"])


def test_a_missing_column_is_named(folder):
    change(folder / "train_label_coordinates.csv", lambda table: table.drop(columns="x"))
    with pytest.raises(DataError, match=r"train_label_coordinates\.csv: no column 'x'"):
        read_grades(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither train_label_coordinates\.csv .* nor grades\.csv"):
        read_grades(tmp_path)


def test_the_phantom_is_made_once_and_mended(folder, tmp_path):
    phantom_lumbar.ensure(folder, SUBJECTS)
    files = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    phantom_lumbar.ensure(folder, SUBJECTS[:1])
    assert files == {file: file.stat().st_mtime_ns for file in files}
    spoilt = folder / "train_images" / "sub-s01" / "1" / "1.dcm"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:100])
    phantom_lumbar.ensure(folder, SUBJECTS)
    assert spoilt.read_bytes() == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(DataError, match="is not a phantom data set"):
        phantom_lumbar.ensure(tmp_path / "other", SUBJECTS)
