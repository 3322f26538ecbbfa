"""The long table reads in one line, and what it does not allow is refused with file and line."""

import re

import pandas as pd
import pyarrow as pa
import pytest
from left_making import experiment_of
from pyarrow import parquet

from spine_tasks.collect import long_table
from spine_tasks.collect.gathered import gather
from spine_tasks.collect.long_table import load_cases, write_cases
from spine_tasks.collect.schema import COLUMNS, TEXTS
from spine_tasks.errors import DataError
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.summary import summary


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two grids of different arms and sizes with their long tables; not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    for name, seeds in (("one", 1), ("two", 40)):
        gather(experiment_of(folder, name, seeds)).keep()
    return folder


@pytest.fixture
def cases(results):
    return load_cases(results / "one" / "cases.parquet")


def test_both_files_hold_the_same(results, cases):
    pd.testing.assert_frame_equal(load_cases(results / "one" / "cases.csv"), cases)
    assert list(cases) == COLUMNS


def test_several_grids_are_read_in_one_line_with_pandas_alone(results):
    files = sorted(results.glob("*/cases.parquet"))
    together = pd.read_parquet(files)
    assert list(together) == COLUMNS
    one_by_one = [load_cases(file) for file in files]
    assert len(together) == sum(map(len, one_by_one))
    assert set(together["grid"]) == {"one", "two"}
    assert together.groupby("grid", observed=True)["cell"].nunique().to_dict() == {
        table["grid"].iloc[0]: table["cell"].nunique() for table in one_by_one
    }
    text = pd.concat(map(pd.read_csv, sorted(results.glob("*/cases.csv"))))
    assert list(text) == COLUMNS
    assert text["value"].tolist() == pytest.approx(together["value"].tolist(), nan_ok=True)


def test_values_keep_every_bit_in_text_too(cases, tmp_path):
    cases["value"] = [0.1 + 0.2, 5e-324, 1 / 3] * (len(cases) // 3)
    cases["metric"] = "MSD"
    cases["slice"] = float("nan")
    cases["case"] = [f"case-{number}" for number in range(len(cases))]
    write_cases(cases, tmp_path)
    for name in ("cases.csv", "cases.parquet"):
        assert load_cases(tmp_path / name)["value"].tolist() == cases["value"].tolist()


def test_text_is_in_categories_of_the_alphabet_which_all_occur(cases):
    for name in TEXTS:
        categories = list(cases[name].cat.categories)
        assert categories == sorted(set(cases[name]))


def test_a_large_table_has_no_text_and_an_old_one_goes(cases, tmp_path, monkeypatch):
    write_cases(cases, tmp_path)
    assert (tmp_path / "cases.csv").exists()
    monkeypatch.setattr(long_table, "CSV_ROWS", len(cases) - 1)
    monkeypatch.setattr(long_table, "ROWS_AT_ONCE", 7)
    write_cases(cases, tmp_path)
    assert not (tmp_path / "cases.csv").exists()
    pd.testing.assert_frame_equal(load_cases(tmp_path / "cases.parquet"), cases)


def test_a_table_of_no_rows_is_one(cases, tmp_path):
    write_cases(cases.iloc[:0], tmp_path)
    for name in ("cases.csv", "cases.parquet"):
        assert load_cases(tmp_path / name).empty


def test_tables_of_plain_text_are_written_too(cases, tmp_path):
    write_cases(cases.astype(dict.fromkeys(TEXTS, "str")), tmp_path)
    pd.testing.assert_frame_equal(load_cases(tmp_path / "cases.parquet"), cases)


WRONG = [
    ({"metric": "dice"}, "metric dice is not one of"),
    ({"value": 87.0}, "metric DSC is 0 to 1, got 87, which may be of another unit"),
    ({"value": float("inf")}, "value is infinite"),
    ({"label": ""}, "label is empty"),
    ({"grid": ""}, "grid is empty"),
    ({"seed": -1}, "seed is below 0"),
    ({"fold": -1}, "fold is below 0"),
    ({"slice": 1.0}, "metric DSC is of no single slice"),
    ({"case": "*"}, "metric DSC is of a case"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
@pytest.mark.parametrize("name", ["cases.csv", "cases.parquet"])
def test_what_a_row_must_not_hold_is_refused_with_its_place(cases, tmp_path, change, said, name):
    row = 4
    assert cases.loc[row, "metric"] == "DSC"
    cases = cases.astype(dict.fromkeys(TEXTS, "str"))
    for column, value in change.items():
        cases.loc[row, column] = value
    write_cases(cases, tmp_path)
    place = {"cases.csv": "line 6", "cases.parquet": "row 5"}[name]
    with pytest.raises(DataError, match=f"{re.escape(f'{tmp_path / name}, {place}: ')}.*") as no:
        load_cases(tmp_path / name)
    assert said in str(no.value)
    assert "jobs/collect.py" in str(no.value)


def test_a_value_that_is_there_twice_is_refused(cases, tmp_path):
    write_cases(pd.concat([cases, cases.iloc[[3]]]), tmp_path)
    with pytest.raises(DataError, match=f"row {len(cases) + 1}: a second value"):
        load_cases(tmp_path / "cases.parquet")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("grid,cell", "cell,grid", "line 1: the columns are cell, grid"),
        (",value", "", "line 1: the columns are"),
        (",DSC,0.0", ",DSC,zero", "line 2: not a row of scores .*invalid value 'zero"),
        (",DSC,", ",", "line 2: not a row of scores .*Expected 13 columns, got 12"),
    ],
)
def test_text_that_is_no_long_table_is_refused_with_its_line(results, tmp_path, old, new, said):
    file = tmp_path / "cases.csv"
    text = (results / "one" / "cases.csv").read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=said):
        load_cases(file)


def test_a_parquet_file_that_is_none_or_other_is_refused(cases, tmp_path):
    file = tmp_path / "cases.parquet"
    for content in (b"", b"PAR1 and no more"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="not a whole Parquet file"):
            load_cases(file)
    parquet.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(DataError, match="the columns are a, and a long table has exactly grid"):
        load_cases(file)
    table = pa.table({name: pa.array(["x"]) for name in COLUMNS})
    parquet.write_table(table, file)
    with pytest.raises(DataError, match="a column of another type"):
        load_cases(file)


def test_a_flipped_bit_of_a_parquet_file_never_gives_another_table(cases, tmp_path):
    write_cases(cases, tmp_path)
    file = tmp_path / "cases.parquet"
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 23):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            pd.testing.assert_frame_equal(load_cases(file), cases)  # it was of no value
        except DataError:
            refused += 1
    assert refused > 50


def test_statistics_of_categories_are_those_of_text(results):
    cases = load_cases(results / "two" / "cases.parquet")
    shuffled = cases.sample(frac=1, random_state=0).astype(dict.fromkeys(TEXTS, "str"))
    baseline = "init=scratch augment=False"
    for of, of_text in (
        (summary(cases), summary(shuffled)),
        (comparisons(cases, baseline), comparisons(shuffled, baseline)),
    ):
        texts = {name: "str" for name in of if name in TEXTS or name == "baseline"}
        pd.testing.assert_frame_equal(of.astype(texts), of_text.astype(texts), check_dtype=False)
