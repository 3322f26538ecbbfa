"""Tables to publish: every text escaped, nothing bold that is not significant."""

import csv
import re
import string
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from gathered_making import BASE, CROSSED, gathered, tables
from making import cell
from markdown_it import MarkdownIt

from spine_tasks.collect.ensemble import NAME as ENSEMBLE
from spine_tasks.collect.generalization import GENERALIZATION, PAIRED, UNPAIRED
from spine_tasks.report.publish import paper_tables, publish
from spine_tasks.report.typeset import (
    MINUS,
    NOTHING,
    PaperTable,
    latex,
    latex_text,
    markdown,
    markdown_text,
)

HOSTILE = [
    r"a|b_c%d#e&f<g>h\i^j~k{l}m$n",
    "*bold* `code` [link](http://x) ![x](y) <b>&amp;</b> ~~s~~",
    "[first in a row]",
    "*",
    "two--hyphens,,commas''and\nlines\twith\ttabs",
    "\\\\ \\| \\input{secret}",
    "é ö ł ñ ş ž Å 中 Ж 😀 \u2212 ± ≤ µ",
]
UP = np.array([0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.55, 0.65])
CLEAR = UP + np.arange(1, 9) / 50  # all higher: p = 2 / 2**8, Holm's times 3
MIXED = UP + np.array([1, -2, 3, -4, 5, -6, 7, -8]) / 100


def shown(of, made=None, form="mean"):
    return list(paper_tables(of, made or tables(of), form))


def crossed(folder, **changes):
    return gathered(folder, {"DSC": [UP, MIXED, CLEAR, UP], "HSD": [UP, UP, UP, UP]}, **changes)


def cells_read(text):
    """The texts of a Markdown table's cells, as a reader of GitHub's Markdown renders them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inside = [t for before, t in pairwise(tokens) if before.type in ("th_open", "td_open")]
    assert all(child.type == "text" for token in inside for child in token.children)
    return ["".join(child.content for child in token.children) for token in inside]


def unbraced(text):
    """LaTeX with its escaped characters gone, to count what is left."""
    return re.sub(r"\\.", "", text)


def tex_rows(text):
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    return [line for line in body.splitlines() if line.endswith(r"\\")]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_texts_in_markdown(name):
    table = PaperTable(name, ["arm", name], [[name, "1 ± 2"]], 1, [name])
    one_line = " ".join(name.split())
    assert cells_read(markdown(table)) == ["arm", one_line, one_line, "1 ± 2"]
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(table))
    kinds = [token.type for token in tokens if token.type.endswith("_open")]
    assert (
        kinds.count("heading_open")
        == kinds.count("table_open")
        == kinds.count("list_item_open")
        == 1
    )
    inline = [child.type for token in tokens for child in token.children or []]
    assert set(inline) == {"text"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_leave_latex_whole(name):
    text = latex(PaperTable(name, ["arm", name], [[name, "1 ± 2"], [name, NOTHING]], 1, [name]))
    assert text.isascii()
    bare = unbraced(text)
    assert bare.count("{") == bare.count("}")
    depth = np.cumsum([(c == "{") - (c == "}") for c in bare])
    assert depth.min() >= 0
    assert not set("%#~^<>|") & set(bare)
    assert [unbraced(row).count("&") for row in tex_rows(text)] == [1, 1, 1]
    # A bracket or a star at the start of a row would be an argument of the \\ before it.
    assert not any(row.startswith(("[", "*")) for row in tex_rows(text))
    assert bare.count("$") % 2 == 0


def test_every_command_in_escaped_latex_is_one_of_ours():
    escaped = latex_text(string.printable + "".join(HOSTILE))
    names = set(re.findall(r"\\([a-zA-Z]+)", escaped))
    assert names <= {
        *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater"),
        *("textbar", "pm", "le", "mu", "l", "c", "v", "r", "ldots"),
    }
    assert "input" not in names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é", r"\'{e}"),
        ("e\u0301", r"\'{e}"),  # the same letter in two characters
        ("ş", r"\c{s}"),
        ("中", "U+4E2D"),
        ("😀", "U+1F600"),
        ("a--b", "a-{}-b"),
        ("100%", r"100\%"),
        ("\\", r"\textbackslash{}"),
        (f"{MINUS}0.5 ± 1", r"$-$0.5 $\pm$ 1"),
        ("a\nb", "a b"),
    ],
)
def test_latex_of_single_characters(text, expected):
    assert latex_text(text) == expected


def test_what_a_terminal_would_obey_or_not_show_is_written_as_its_number():
    for spelt in (latex_text, markdown_text):
        assert spelt("a\x1b\u202e\u200bb") == "aU+001BU+202EU+200Bb"


def test_a_pipe_after_a_backslash_stays_in_its_cell():
    assert markdown_text("\\|") == "\\\\\\|"


def test_latex_is_set_with_booktabs_and_closes_what_it_opens(tmp_path):
    text = publish(of := crossed(tmp_path), tables(of), tmp_path)[2].read_text()
    opened, closed = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(opened) == sorted(closed)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    assert text.startswith("% needs \\usepackage{booktabs}")
    for block in text.split(r"\begin{table}")[1:]:
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", block)[1]
        assert {unbraced(row).count("&") + 1 for row in tex_rows(block)} == {len(columns)}


def test_crossed_arms_have_a_column_each_axis_and_the_grids_order(tmp_path):
    scores, changes = shown(crossed(tmp_path))
    assert scores.heads == ["init", "augment", "DSC ↑", "HSD (mm) ↓"]
    assert [row[:2] for row in scores.rows] == [
        ["scratch", "False"],
        ["scratch", "True"],
        ["pretrained", "False"],
        ["pretrained", "True"],
    ]
    assert [row[:2] for row in changes.rows] == [row[:2] for row in scores.rows[1:]]
    assert BASE in changes.title


def test_an_ensemble_beside_crossed_arms_makes_one_column_of_names(tmp_path):
    of = gathered(tmp_path, {"DSC": [UP] * 5}, arms=[*CROSSED, ENSEMBLE])
    scores, _ = shown(of)
    assert scores.heads == ["arm", "DSC ↑"]
    assert [row[0] for row in scores.rows][-1] == "ensemble"


def test_entries_say_mean_sd_and_n_or_median_and_quartiles(tmp_path):
    of = gathered(
        tmp_path,
        {"DSC": [[0.1, 0.2, 0.3, 0.4, 1.0], [0.4, np.nan, np.nan, np.nan, np.nan]]},
        CROSSED[:2],
    )
    assert [row[2] for row in shown(of)[0].rows] == ["0.400 ± 0.354 (5)", f"0.400 ± {NOTHING} (1)"]
    medians = shown(of, form="median")[0]
    assert [row[2] for row in medians.rows] == [
        "0.300 [0.200, 0.400] (5)",
        "0.400 [0.400, 0.400] (1)",
    ]
    assert "median [quartiles]" in medians.title


def test_only_what_is_significant_after_holm_is_bold(tmp_path):
    # One of three arms is better in every person: p = .0078, x 3 = .023. In the other metric the
    # same p is one of three equal ones that no correction spares, and a best mean alone is nothing.
    scores, changes = shown(crossed(tmp_path))
    assert scores.bold == frozenset()
    assert changes.bold == {(1, 2)}
    assert "p 0.023 (8)" in changes.rows[1][2]
    text = latex(changes)
    assert text.count(r"\textbf{") == 1
    assert markdown(changes).count("**") == 2


def test_a_p_that_only_holm_raises_above_the_level_is_not_bold(tmp_path):
    six = UP[:6]
    of = gathered(
        tmp_path,
        {"DSC": [six, six + np.arange(1, 7) / 50, six - np.arange(1, 7) / 50]},
        CROSSED[:3],
    )
    assert set(tables(of)["comparisons"]["p"]) == {2 / 2**6}  # .031 each, .062 corrected
    changes = shown(of)[1]
    assert changes.bold == frozenset()
    assert "With n = 6 no p after this correction can be below 0.062." in changes.notes


def test_undefined_is_a_dash_and_counted_in_a_note(tmp_path):
    gap = UP.copy()
    gap[:3] = np.nan
    of = gathered(tmp_path, {"DSC": [UP, gap], "HSD": [UP, UP * np.nan]}, CROSSED[:2])
    scores, changes = shown(of)
    assert scores.rows[1][3] == changes.rows[0][3] == NOTHING
    left_out = "init=scratch augment=True"
    assert (
        f"Persons without a defined value, left out: 3 (DSC, {left_out}); 8 (HSD, {left_out})."
        in scores.notes
    )
    assert (
        f"Persons without a pair, left out: 3 (DSC, {left_out}); 8 (HSD, {left_out})."
        in changes.notes
    )
    assert "nan" not in latex(scores) + latex(changes)


def test_a_preliminary_or_mixed_table_says_so(tmp_path):
    more = [cell(seed=9), *(cell(seed=n) for n in range(4))]
    of = crossed(tmp_path, planned=more, mixed=["different code"])
    for table in shown(of):
        assert "Preliminary: 4 of 5 runs are complete." in table.notes
        assert any("not all computed with the same code" in note for note in table.notes)
    assert not any(
        "reliminary" in note for table in shown(crossed(tmp_path)) for note in table.notes
    )


def test_one_arm_without_a_baseline_to_compare_with_has_scores_only(tmp_path):
    of = gathered(tmp_path, {"DSC": [UP]}, CROSSED[:1])
    made = tables(of) | {"comparisons": pd.DataFrame()}
    assert [table.title for table in shown(of, made)] == [
        "Scores of cord: mean ± sd over persons (n)"
    ]


def test_metrics_of_whole_sets_have_tables_of_their_own_and_are_never_bold(tmp_path):
    of = crossed(tmp_path)
    common = {"label": "cord", "metric": "AP50", "cells": 3, "n_undefined": 1, "sd": 0.1}
    ends = {"low": 0.4, "high": 0.6, "difference_low": -0.2, "difference_high": -0.1}
    rows = [
        common | ends | {"arm": BASE, "mean": 0.5, "difference": np.nan},
        common | ends | {"arm": "init=pretrained augment=True", "mean": 0.35, "difference": -0.15},
        common
        | ends
        | {"arm": BASE, "metric": "AP", "mean": 0.2, "low": np.nan, "difference": np.nan},
    ]
    *_, scores, changes = shown(of, tables(of) | {"sets": pd.DataFrame(rows)})
    assert scores.heads[2:] == ["AP50 ↑", "AP ↑"]
    assert scores.rows[0][2:] == ["0.500 [0.400, 0.600] (2)", "0.200 (2)"]
    assert [row[2:] for row in changes.rows] == [[f"{MINUS}0.150 [{MINUS}0.200, {MINUS}0.100]"]]
    assert not changes.bold
    assert "These differences were not tested." in changes.notes
    assert any("left out: 1 (AP50" in note for note in scores.notes)


def test_cords_have_the_tests_of_their_generalization(tmp_path):
    common = {"metric": "DSC", "n": 6, "n_other": 6, "n_dropped": 1, "dropped": "x", "mean": 0.9}
    common |= {"mean_other": 0.8, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.03}
    rows = [
        common | {"comparison": PAIRED, "model": "a|b", "where": "home", "p_holm": 0.04},
        common | {"comparison": PAIRED, "model": "c", "where": "home", "p_holm": 0.06},
        common | {"comparison": UNPAIRED, "model": "c", "where": "home against unseen", "n": 0},
    ]
    found = pd.DataFrame(rows).reindex(columns=GENERALIZATION)
    of = crossed(tmp_path)
    scores, paired, unpaired = shown(of, tables(of) | {"generalization": found})
    assert scores.title.startswith("Scores")
    assert paired.rows[0][2:] == ["0.900 (6)", "0.800 (6)", "+0.100 [0.050, 0.150], p 0.04"]
    assert paired.bold == {(0, 4)}
    assert unpaired.rows[0][2:] == [NOTHING, "0.800 (6)", NOTHING]
    assert any("Wilcoxon" in note for note in paired.notes)
    assert any("Mann and Whitney" in note for note in unpaired.notes)


def test_the_files_hold_the_same_entries(tmp_path):
    files = publish(of := crossed(tmp_path, label="a|b, c"), tables(of), tmp_path / "out")
    assert [file.name for file in files] == ["tables.csv", "tables.md", "tables.tex"]
    read = pd.read_csv(files[0], dtype=str)
    assert list(read) == ["table", "init", "augment", "DSC ↑", "HSD (mm) ↓"]
    assert len(read) == 4 + 3
    with files[0].open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.reader(stream))
    entries = cells_read(files[1].read_text().replace("**", ""))
    assert {text for row in rows[1:] for text in row[1:]} <= set(entries)
    for text in read["DSC ↑"]:
        assert latex_text(text) in files[2].read_text()


def test_a_second_time_gives_the_same_bytes(tmp_path):
    of = crossed(tmp_path)
    first, again = (
        [file.read_bytes() for file in publish(of, tables(of), tmp_path / name)] for name in "ab"
    )
    assert first == again
