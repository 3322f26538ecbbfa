"""The page: what it says is what is there, and text from outside stays text."""

import base64
import hashlib
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from page_making import (
    HOSTILE,
    HOSTILE_SEEN,
    PERSONS,
    Parsed,
    gathered,
    only,
    page,
    png,
    tables_of,
    with_svg,
)

from spine_tasks.causes.cause import Cause
from spine_tasks.files import append_line, write_json
from spine_tasks.report import page_figures
from spine_tasks.report.page_columns import cell_of, column_of
from spine_tasks.report.page_findings import cells_missing
from spine_tasks.report.page_provenance import facts, hours
from spine_tasks.report.page_tables import MOST_ROWS, shown
from spine_tasks.states import State

DASH = "\N{EN DASH}"


@pytest.fixture
def made(tmp_path):
    return gathered(tmp_path)


def parsed(made, folder, **more):
    return Parsed(page(made, folder, **more))


def ids(found):
    return {attributes["id"] for _, attributes in found.elements if "id" in attributes}


def test_a_complete_grid_says_what_was_found_and_of_how_many(made, tmp_path):
    found = parsed(made, tmp_path, methods="Trained for three epochs.")
    assert "4 of 4 cells complete · 8 persons tested" in found.text
    assert "init=pretrained augment=False: DSC 0.1" in found.text
    assert "Trained for three epochs." in found.text
    assert not {"partial", "mixed", "left_out", "figures"} & ids(found)
    assert {"findings", "summary", "comparisons", "convergence", "runs", "provenance"} <= ids(found)
    assert "cases" not in ids(found)
    assert ("a", {"href": "cases.csv"}) in found.elements


def test_numbers_are_those_of_the_table_and_sorted_by_all_their_digits(made, tmp_path):
    text = page(made, tmp_path)
    rows, _ = Parsed(text).body("summary")
    table = tables_of(made)["summary"].set_index(["metric", "arm"])
    assert len(rows) == len(table) == 8
    for row in rows:
        metric = row["metric"].split("\xa0")[0]
        assert row["mean"] == f"{table.loc[(metric, row['arm']), 'mean']:.3f}"
        assert row["n"] == "8"
    assert rows[0]["metric"] == "DSC\xa0↑"
    assert rows[4]["metric"] == "MSD\xa0mm\xa0↓"
    assert [row["arm"] for row in rows[:4]] == [cell.arm_name for cell in made.experiment.cells]
    for mean in table["mean"]:
        assert f'data-value="{mean!r}"' in text


def test_only_what_is_significant_after_holm_is_emphasised():
    table = pd.DataFrame({"arm": [*"abcd"], "p": [0.01, 0.01, 0.04, np.nan]})
    table["p_holm"] = [0.049, 0.05, 0.2, np.nan]
    rows = shown("comparisons", "", "", table).rows
    assert ["significant" in row.classes for row in rows] == [True, False, False, False]
    without = shown("sets", "", "", table.drop(columns="p_holm")).rows
    assert not any("significant" in row.classes for row in without)


def test_a_partial_view_says_so_and_what_to_do_with_each_cell(made, tmp_path):
    failed, waiting = made.arms[1], made.arms[2]
    out_of_memory = Cause("GPU memory", "OutOfMemoryError: 3 GiB at gm.py:12")
    partial = only(made, [0, 3])
    partial.states[failed.id] = State("failed", "why", cause=out_of_memory)
    partial.states[waiting.id] = State("waiting", "job 7, Priority")
    found = parsed(partial, tmp_path)
    assert "2 of 4 cells are complete" in found.text
    assert "1 failed, 1 waiting" in found.text
    assert f"{failed.arm_name}: 0 of 1 cells" in found.text
    assert made.arms[0].arm_name + ": " not in found.text.partition("What was found")[0]
    rows, _ = found.body("missing")
    assert [row["cell"] for row in rows] == [failed.id, waiting.id]
    assert rows[0]["cause"] == "GPU memory"
    assert rows[0]["message"] == out_of_memory.why
    assert rows[0]["what to do"] == out_of_memory.remedy
    assert rows[1]["message"] == "job 7, Priority"


@pytest.mark.parametrize(
    "state",
    [
        State("new"),
        State("interrupted", "stopped"),
        State("interrupted", "cancelled", cancelled=True),
        State("waiting"),
        State("running"),
        State("failed", "why", cause=Cause("code", "why")),
    ],
)
def test_every_state_has_something_to_do(made, state):
    partial = only(made, [0, 1, 2])
    partial.states[made.arms[3].id] = state
    (row,) = cells_missing(partial).to_dict("records")
    assert row["what to do"]


def test_mixed_results_and_left_out_cells_are_announced(made, tmp_path):
    mixed = replace(made, mixed=["different code:\n  aaaa: 1 cell, x"], left_out=["c1", "c2"])
    found = parsed(mixed, tmp_path)
    assert {"mixed", "left_out"} <= ids(found)
    assert "different code:\n  aaaa: 1 cell, x" in found.text
    assert "2 cells have a folder here" in found.text


def test_without_a_baseline_nothing_is_compared(made, tmp_path):
    found = parsed(only(made, [1, 2]), tmp_path)
    assert "No cell of the baseline is complete" in found.text
    assert "baseline none" in found.text
    assert "comparisons" not in ids(found)
    assert len(found.body("summary")[0]) == 4


def test_one_arm_alone_is_shown_without_a_comparison(made, tmp_path):
    found = parsed(only(made, [0]), tmp_path)
    assert "Only one arm has complete cells" in found.text
    assert "comparisons" not in ids(found)


def test_an_arm_that_never_met_the_baseline_is_in_no_sentence(made, tmp_path):
    # Its fold is another one: no pair, and no mark to reach.
    name = made.arms[3].arm_name
    histories = made.histories.assign(fold=(made.histories["arm"] == name).astype(int))
    found = parsed(replace(made, histories=histories), tmp_path)
    said = found.text.partition("What was found")[2].partition("n counts persons")[0]
    assert name not in said
    assert made.arms[2].arm_name in said


def test_undefined_is_a_dash_that_says_so_and_never_nan(made, tmp_path):
    text = page(replace(made, cases=made.cases.assign(value=np.nan)), tmp_path)
    found = Parsed(text)
    rows, classes = found.body("comparisons")
    assert {row["difference"] for row in rows} == {DASH}
    assert {row["95 % interval"] for row in rows} == {DASH}
    assert not any("significant" in one for one in classes)
    assert '<td class="number" data-missing title="undefined">' + DASH in text
    assert not re.search(r"\bnan\b", found.text)
    assert 'data-value="nan"' not in text


def test_hostile_text_stays_text(tmp_path):
    made = gathered(tmp_path, label=HOSTILE, question=HOSTILE)
    cells = [replace(cell, arm=cell.arm | {"init": HOSTILE}) for cell in made.experiment.cells]
    experiment = replace(made.experiment, name=HOSTILE, cells=cells)
    renamed = dict(zip((c.arm_name for c in made.arms), (c.arm_name for c in cells), strict=True))
    hostile = replace(
        made,
        experiment=experiment,
        arms=cells[:3],
        cases=made.cases.replace({"arm": renamed}),
        histories=made.histories.replace({"arm": renamed}),
        runs=made.runs.replace({"arm": renamed}).assign(cell=HOSTILE, commit=HOSTILE),
        mixed=[HOSTILE],
        baseline=renamed[made.baseline],
    )
    hostile.states[cells[3].id] = State("failed", HOSTILE, cause=Cause("code", HOSTILE))
    figure = png(tmp_path, title=HOSTILE)
    found = parsed(hostile, tmp_path, figures=[figure], methods=HOSTILE)
    assert [tag for tag, _ in found.elements if tag in ("script", "style")] == ["style", "script"]
    pictures = [attributes for tag, attributes in found.elements if tag == "img"]
    assert [one["alt"] for one in pictures] == [HOSTILE_SEEN, ""]
    assert not any(name.startswith("on") for _, one in found.elements for name in one)
    assert found.text.count(HOSTILE_SEEN) > 20
    assert "\u202e" not in found.text
    assert "{{7*7}}" in found.text
    assert found.body("missing")[0][0]["message"] == HOSTILE_SEEN


def test_a_name_that_is_no_unicode_does_not_prevent_the_page(made, tmp_path):
    found = parsed(replace(made, mixed=["a file \udcff\x00 of Latin-1"]), tmp_path)
    assert "a file \\udcff\\u0000 of Latin-1" in found.text


def test_the_policy_allows_this_style_and_script_and_no_network(made, tmp_path):
    text = page(made, tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy.replace("&#39;", "'").replace("&#43;", "+")


def test_persons_left_out_are_counted_and_not_named(made, tmp_path):
    some = made.cases["person"].isin(PERSONS[:2]) & (made.cases["arm"] == made.arms[1].arm_name)
    found = parsed(replace(made, cases=made.cases[~some].reset_index(drop=True)), tmp_path)
    rows, _ = found.body("comparisons")
    assert {row["dropped"] for row in rows} == {"0", "2"}
    assert not any(person in found.text for person in PERSONS)


def test_a_small_svg_is_preferred_and_a_large_one_is_not(made, tmp_path, monkeypatch):
    small = with_svg(png(tmp_path, "small.png"))
    large = with_svg(png(tmp_path, "large.png"), more="<g/>" * 100)
    monkeypatch.setattr(page_figures, "MOST_SVG", 300)
    taken, left_out = page_figures.pictures([small, large])
    assert [one.source[:15] for one in taken] == ["data:image/svg+", "data:image/png;"]
    assert not left_out
    assert base64.b64decode(taken[1].source.partition(",")[2]) == large.file.read_bytes()


def test_figures_that_do_not_fit_are_named(made, tmp_path, monkeypatch):
    figures = [png(tmp_path, f"{name}.png", title=f"figure {name}") for name in "abc"]
    size = len(base64.b64encode(figures[0].file.read_bytes())) + len("data:image/png;base64,")
    monkeypatch.setattr(page_figures, "MOST_LETTERS", 2 * size)
    found = parsed(made, tmp_path, figures=figures)
    assert "can be mailed: 1 of 3 figures" in found.text
    assert "figure c: c.png" in found.text
    assert sum(tag == "figure" for tag, _ in found.elements) == 2


def test_ten_thousand_runs_stay_a_page_that_can_be_mailed(made, tmp_path):
    runs = pd.concat([made.runs] * 2000, ignore_index=True)
    runs["cell"] = [f"gm_segmentation-gm_phantom-fold0-seed{n}-{n:08x}" for n in range(len(runs))]
    text = page(replace(made, runs=runs), tmp_path)
    found = Parsed(text)
    assert f"The first {MOST_ROWS} of 10000 rows; runs.csv has all." in found.text
    assert len(found.body("runs")[0]) == MOST_ROWS
    assert len(text) < 500_000


def test_the_runs_show_scores_time_and_versions_and_no_knob_with_a_metrics_name(made, tmp_path):
    runs = made.runs.assign(precision="float32", recall=0.25)
    rows, _ = parsed(replace(made, runs=runs), tmp_path).body("runs")
    needed, *arms = rows
    assert needed["role"] == "needed"
    assert needed["n"] == DASH  # which is tested on nobody
    assert [row["n"] for row in arms] == ["8"] * 4
    assert [row["recall\xa0↑"] for row in rows] == ["0.250"] * 5
    assert [row["hours"] for row in rows] == ["2.00"] * 5
    assert [row["cell"] for row in rows] == [cell[-8:] for cell in made.runs["cell"]]
    assert not any(head.startswith("precision") for head in needed)


def test_provenance_counts_what_differs_and_adds_up_hours(made, tmp_path):
    folders = [made.experiment.folder / cell for cell in made.runs["cell"]]
    for at, folder in enumerate(folders[:4]):  # the last one does not say
        said = {"packages": {"numpy": "2.4.6" if at else "2.3.0"}, "gpus": ["NVIDIA A100"] * 2}
        write_json(folder / "environment.json", said | {"partition": None})
    runs = made.runs.assign(gpu_hours_asked=[np.nan, 4, 4, 4, 4])
    said = dict(facts(replace(made, runs=runs)))
    assert said["numpy"] == ["2.4.6 (3 runs)", "2.3.0 (1 runs)", "not recorded (1 runs)"]
    assert said["GPU"] == ["2 x NVIDIA A100 (4 runs)", "not recorded (1 runs)"]
    assert said["code, SHA-256"] == ["a" * 64]
    assert "partition" not in said
    cost = dict(hours(replace(made, runs=runs)))
    assert cost["GPU-hours used"] == ["7.50"]
    assert cost["GPU-hours asked"] == ["16.00", "not recorded (1 runs)"]
    assert cost["computed"] == ["10.00 h, all attempts together"]
    assert "10.00 h, all attempts together" in parsed(replace(made, runs=runs), tmp_path).text


def test_failures_of_cells_that_are_complete_are_listed(made, tmp_path):
    cell = made.arms[2]
    file = made.experiment.folder / cell.id / "attempts.jsonl"
    failed = {"event": "failed", "cause": "node", "error": "the GPU is lost", "time": "yesterday"}
    for record in ({"event": "started"}, failed, {"event": "started"}, {"event": "complete"}):
        append_line(file, record)
    runs = made.runs.assign(attempts=[1, 1, 1, 2, 1])
    rows, _ = parsed(replace(made, runs=runs), tmp_path).body("overcome")
    assert rows == [
        {
            **{"cell": cell.id, "arm": cell.arm_name, "when": "yesterday"},
            **{"cause": "node", "message": "the GPU is lost"},
        }
    ]


def test_rows_of_other_metrics_are_there_and_come_later(made, tmp_path):
    more = [made.cases[made.cases["metric"] == "DSC"].assign(metric=name) for name in ("JI", "CC")]
    text = page(replace(made, cases=pd.concat([made.cases, *more], ignore_index=True)), tmp_path)
    rows, _ = Parsed(text).body("summary")
    assert [row["metric"].split("\xa0")[0] for row in rows] == [
        name for name in ("DSC", "MSD", "JI", "CC") for _ in range(4)
    ]
    assert text.partition('id="comparisons"')[0].count(" data-later") == 8


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.00099, "p", "<0.001"),
        (0.001, "p", "0.001"),
        (0.0496, "p", "0.0496"),
        (0.0504, "p", "0.0504"),
        (0.0312, "p", "0.031"),
        (0.5, "p", "0.50"),
        (1.0, "p", "1.00"),
        (0.04, "signed", "+0.040"),
        (12, "count", "12"),
        (2.5, "plain", "2.5"),
        (0.0006, "plain", "0.0006"),
        (5400.0, "hours", "1.50"),
        ("a" * 40 + "+changes", "digest", "aaaaaaaa+changes"),
        (True, "text", "yes"),
        (-math.inf, "number", "-∞"),
        (None, "text", DASH),
        (pd.NA, "count", DASH),
    ],
)
def test_values_are_written_as_their_kind(value, kind, text):
    assert cell_of(value, kind).text == text


@pytest.mark.parametrize(
    ("name", "values", "head", "kind"),
    [
        ("p_corrected", [0.1], "p corrected", "p"),
        ("disc_F1", [0.1], "disc F1\xa0↑", "number"),
        ("effect_low", [0.1], "effect 95 % interval", "number"),
        ("rater", ["a"], "rater", "text"),
        ("persons_left", [3], "persons left", "count"),
        ("learning_rate", [0.0006, None], "learning rate", "plain"),
        ("kappa_of_two", [0.61, None], "kappa of two", "number"),
        ("nothing", [math.nan], "nothing", "plain"),
        ("changed", [True, False], "changed", "text"),
    ],
)
def test_a_column_that_is_not_known_is_shown_by_its_values(name, values, head, kind):
    column = column_of(name, pd.Series(values))
    assert (column.head, column.kind) == (head, kind)
