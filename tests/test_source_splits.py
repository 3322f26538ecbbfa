"""Splits of several sources: nobody is in two parts, and what is always test or train is that."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_tasks.errors import SplitError
from spine_tasks.make_splits import make_split, write_split
from spine_tasks.nnunet.pairs import find_pairs
from spine_tasks.nnunet.parts import parts_of
from spine_tasks.nnunet.sources import load_sources
from spine_tasks.source_splits import split_sources
from spine_tasks.splits import DATA_SPLITS, PARTS, load_split

PREPARE = Path(__file__).parents[1] / "jobs" / "prepare.py"
WAYS = {
    "folds": {"folds": 3},
    "holdout": {"holdout": (0.5, 0.25, 0.25)},
    "person": {"folds": "person"},
    "source": {"folds": "source"},
}


def cords(same=(), **numbers):
    """So many subjects of each source, each a person, but for groups of subjects in `same`."""
    person_of = {subject: f"p{i}" for i, group in enumerate(same) for subject in group}
    names = [(f"{s}_sub-{i:02d}", s) for s, number in numbers.items() for i in range(number)]
    return [
        {"subject": name, "person": person_of.get(name, name), "source": source, "contrasts": "T2w"}
        for name, source in names
    ]


def persons_in(rows, fold, part, source=None):
    return {
        row["person"]
        for row in rows
        if (row["fold"], row["part"]) == (str(fold), part) and source in (None, row["source"])
    }


def of_source(participants, *sources):
    return {row["person"] for row in participants if row["source"] in sources}


def folds_of(rows):
    return sorted({int(row["fold"]) for row in rows})


def check_laws(rows, participants):
    """Every subject is in each fold once, a person in one part, no part is empty."""
    for fold in folds_of(rows):
        mine = [row for row in rows if row["fold"] == str(fold)]
        assert sorted(row["subject"] for row in mine) == sorted(r["subject"] for r in participants)
        parts = [persons_in(rows, fold, part) for part in PARTS]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts))
    source_of = {row["subject"]: row["source"] for row in participants}
    assert all(row["source"] == source_of[row["subject"]] for row in rows)


sizes = st.integers(4, 9)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, st.integers(1, 5), st.integers(1, 3), st.sampled_from(sorted(WAYS)))
def test_in_every_way_test_only_is_always_test_and_train_only_always_train(a, b, t, n, way):
    made = cords(a=a, b=b, t=t, n=n)
    rows = split_sources(made, **WAYS[way], test_only=["t"], train_only=["n"])
    check_laws(rows, made)
    assert len(folds_of(rows)) == {"folds": 3, "holdout": 1, "person": a + b, "source": 2}[way]
    for fold in folds_of(rows):
        assert persons_in(rows, fold, "test", "t") == of_source(made, "t")
        assert persons_in(rows, fold, "train", "n") == of_source(made, "n")
    if way != "holdout":
        tested = Counter(p for f in folds_of(rows) for p in persons_in(rows, f, "test"))
        assert {tested[person] for person in of_source(made, "a", "b")} == {1}


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_dealt_sources_are_spread_over_the_parts_without_being_asked(a, b, seed):
    made = cords(a=a, b=b, t=3, n=1)
    rows = split_sources(made, folds=4, test_only=["t"], train_only=["n"], seed=seed)
    for source in "ab":
        for part in ("test", "val"):
            numbers = [len(persons_in(rows, fold, part, source)) for fold in range(4)]
            assert max(numbers) - min(numbers) <= 1
            assert min(numbers) >= 1
    asked = split_sources(
        made, folds=4, test_only=["t"], train_only=["n"], seed=seed, stratify="source"
    )
    assert asked == rows


@pytest.mark.parametrize("way", ["folds", "holdout"])
def test_the_others_are_dealt_as_if_what_is_fixed_were_not_there(way):
    rows = split_sources(cords(a=6, b=8, t=3, n=1), **WAYS[way], test_only="t", train_only="n")
    alone = make_split(cords(a=6, b=8), **WAYS[way], stratify="source", person="person")
    assert [row for row in rows if row["source"] in "ab"] == alone
    assert list(rows[0]) == ["subject", "person", "part", "fold", "source"]


def test_another_column_is_stratified_by_where_it_is_asked_for():
    made = [row | {"contrasts": "T1w" if i % 2 else "T2w"} for i, row in enumerate(cords(a=6, b=6))]
    rows = split_sources(made, folds=3, stratify="contrasts")
    assert list(rows[0])[-1] == "contrasts"
    for fold in range(3):
        tested = [r["contrasts"] for r in rows if (r["fold"], r["part"]) == (str(fold), "test")]
        assert sorted(tested) == ["T1w", "T1w", "T2w", "T2w"]


@pytest.mark.parametrize("way", sorted(WAYS))
def test_the_seed_alone_decides_and_the_order_of_rows_plays_no_role(way):
    made, fixed = cords(b=6, t=2, a=7, n=1), {"test_only": ["t"], "train_only": ["n"]}
    rows = split_sources(made, **WAYS[way], **fixed, seed=3)
    assert split_sources(made[::-1], **WAYS[way], **fixed, seed=3) == rows
    assert split_sources(made[5:] + made[:5], **WAYS[way], **fixed, seed=3) == rows
    assert split_sources(made, **WAYS[way], **fixed, seed=4) != rows


# One fold a source


def test_each_fold_tests_the_whole_of_one_source_by_name():
    made = cords(z=5, q=5, r=6, t=2, same=[("z_sub-00", "z_sub-01")])  # p0, before the others
    rows = split_sources(made, folds="source", test_only=["t"])
    for fold, source in enumerate("qrz"):
        assert persons_in(rows, fold, "test") == of_source(made, source, "t")


@pytest.mark.parametrize(
    ("persons", "in_val"), [(1, 0), (2, 1), (5, 1), (7, 1), (8, 2), (10, 2), (13, 3)]
)
def test_a_fifth_of_the_persons_of_each_other_source_is_in_val_the_same_in_all_folds(
    persons, in_val
):
    rows = split_sources(cords(a=4, b=4, c=persons), folds="source")
    first, second = (persons_in(rows, fold, "val", "c") for fold in (0, 1))
    assert len(first) == in_val
    assert first == second
    assert len(persons_in(rows, 0, "train", "c")) == persons - in_val
    assert len(persons_in(rows, 0, "val", "b")) == 1


def test_a_fold_without_anybody_for_val_is_refused_and_what_is_train_only_does_not_count():
    with pytest.raises(SplitError, match=r"without a, no source has two .*\{'a': 4, 'b': 1\}"):
        split_sources(cords(a=4, b=1), folds="source")
    with pytest.raises(SplitError, match="without a, no source has two persons to deal"):
        split_sources(cords(a=4, b=4), folds="source", train_only=["b"])
    check_laws(split_sources(cords(a=4, b=2, c=1), folds="source"), cords(a=4, b=2, c=1))


# Persons of several sources


def test_a_person_of_several_sources_is_dealt_as_one_of_the_smallest():
    made = cords(a=6, b=2, same=[("a_sub-00", "a_sub-01", "b_sub-01"), ("a_sub-02", "a_sub-03")])
    for stratify in (None, "source"):
        with pytest.raises(SplitError, match=r"3 folds need 3 persons .* got \{'b': 2\}"):
            split_sources(made, folds=3, stratify=stratify)
        more = [*made, *cords(b=3)[2:]]
        rows = split_sources(more, folds=3, stratify=stratify)
        check_laws(rows, more)
        assert all(len(persons_in(rows, fold, "test", "b")) == 1 for fold in range(3))


def test_train_only_takes_its_persons_other_subjects_along():
    made = cords(a=5, n=2, same=[("a_sub-00", "n_sub-00")])
    rows = split_sources(made, folds=3, train_only=["n"])
    check_laws(rows, made)
    assert all("p0" in persons_in(rows, fold, "train", "a") for fold in range(3))


def test_a_person_who_is_both_test_only_and_something_else_is_refused():
    made = cords(a=5, t=2, u=2, same=[("a_sub-00", "t_sub-00"), ("t_sub-01", "u_sub-01")])
    with pytest.raises(SplitError, match=r"--test-only: .*p0 \(a and t\), and would .*name all"):
        split_sources(made, folds=3, test_only=["t", "u"])
    apart = cords(a=5, t=2, u=2, same=[("t_sub-01", "u_sub-01")])
    with pytest.raises(SplitError, match=r"p0 \(t and u\)"):
        split_sources(apart, folds=3, test_only=["t"], train_only=["u"])
    rows = split_sources(apart, folds=3, test_only=["t", "u"])
    check_laws(rows, apart)
    assert all("p0" in persons_in(rows, fold, "test") for fold in range(3))


@pytest.mark.parametrize("fixed", [{}, {"train_only": ["c"]}])
def test_a_person_of_several_sources_cannot_be_left_out_with_one(fixed):
    made = cords(a=5, b=5, c=2, same=[("a_sub-00", "c_sub-00")])
    with pytest.raises(SplitError, match=r"--leave-source-out: .*p0 \(a and c\), .*; name all"):
        split_sources(made, folds="source", **fixed)
    within = cords(a=5, b=5, same=[("a_sub-00", "a_sub-01")])
    check_laws(split_sources(within, folds="source"), within)


def test_a_person_named_with_and_without_a_prefix_is_one():
    made = cords(a=5, t=2)
    made[0]["person"], made[5]["person"] = "sub-x", "x"
    with pytest.raises(SplitError, match=r"x \(a and t\)"):
        split_sources(made, folds=3, test_only=["t"])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"test_only": ["tt"]}, r"--test-only: no source 'tt', did you mean 't'\? It has a, b, t"),
        ({"train_only": ["xyz"]}, "--train-only: no source 'xyz'; It has a, b, t"),
        ({"test_only": ["t", "b"], "train_only": ["b", "a"]}, "both name b; choose one"),
        ({"test_only": ["t"], "train_only": ["b", "a"]}, "nobody is left to deal"),
        ({"test_only": ["a", "b"]}, r"3 folds need 3 persons of each stratum, got \{'t': 2\}"),
        ({}, r"3 folds need 3 persons of each stratum, got \{'t': 2\}"),
        ({"folds": "person", "test_only": ["a", "b"]}, "at least 3 folds, got 2"),
        ({"folds": "person", "stratify": "contrasts"}, "leave --stratify out"),
        ({"folds": "source", "stratify": "source"}, "leave --stratify out"),
        ({"stratify": "sex", "test_only": ["t"]}, "cannot stratify by sex; give one of"),
        ({"holdout": (0.5, 0.25, 0.25)}, "give either folds or holdout"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(chosen, message):
    with pytest.raises(SplitError, match=message):
        split_sources(cords(a=5, b=4, t=2), **{"folds": 3} | chosen)


def test_what_breaks_no_rule_can_be_written(tmp_path):
    for name, way in WAYS.items():
        rows = split_sources(cords(a=5, b=6, t=1, n=1), **way, test_only=["t"], train_only=["n"])
        assert write_split(tmp_path / f"{name}.csv", rows).folds == tuple(folds_of(rows))


# The command line


@pytest.fixture
def phantom(tmp_path):
    """A file of BIDS data sets with the names of the phantom's, and files without content."""
    for source, number in (("unseen", 3), ("siteB", 6), ("siteA", 6)):
        for i in range(1, number + 1):
            inside, name = f"sub-adult{i:02d}/anat", f"sub-adult{i:02d}_T2w"
            for file in (f"{inside}/{name}", f"derivatives/labels/{inside}/{name}_seg-manual"):
                made = tmp_path / source / f"{file}.nii.gz"
                made.parent.mkdir(parents=True, exist_ok=True)
                made.write_bytes(b"\x1f\x8b made up")
    given = "contrasts: [T2w], suffix: seg-manual"
    lines = [f"  {name}: {{path: {name}, {given}}}" for name in ("unseen", "siteB", "siteA")]
    (tmp_path / "cords.yaml").write_text("\n".join(["sources:", *lines, ""]))
    return tmp_path / "cords.yaml"


def split(sources, *words):
    output = sources.parent / "made.csv"
    command = [sys.executable, PREPARE, "split", "--sources", sources, "--output", output, *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False), output


def test_the_split_of_the_phantom_is_made_again(phantom):
    done, output = split(phantom, "--folds", 3, "--test-only", "unseen")
    assert done.returncode == 0, done.stderr
    assert "15 subjects of 15 persons, 3 folds" in done.stdout
    assert output.read_text() == (DATA_SPLITS / "cords_phantom.csv").read_text()


def test_in_the_split_of_the_phantom_each_site_is_in_every_part_and_unseen_in_test_alone():
    made = load_split("cords_phantom")
    for fold in made.folds:
        numbers = Counter((row["part"], row["source"]) for row in made.rows[fold])
        dealt = {(part, site): 2 for part in PARTS for site in ("siteA", "siteB")}
        assert numbers == dealt | {("test", "unseen"): 3}


def test_one_fold_a_source_reaches_the_cases(phantom):
    options = ("--leave-source-out", "--train-only", "unseen", "--seed", 1)
    done, output = split(phantom, *options)
    assert done.returncode == 0, done.stderr
    made = load_split(output)
    assert made.folds == (0, 1)
    pairs = [pair for one in load_sources(phantom).values() for pair in find_pairs(one)[0]]
    for fold, site in enumerate(("siteA", "siteB")):
        parts = parts_of(pairs, made, fold)
        assert Counter(pair.source.name for pair in parts["test"]) == {site: 6}
        other = {"siteA", "siteB"} - {site}
        assert {pair.source.name for pair in parts["val"]} == other
        assert Counter(pair.source.name for pair in parts["train"])["unseen"] == 3
        assert {pair.source.name for pair in parts["train"]} == other | {"unseen"}


def test_leaving_one_person_out_has_a_fold_for_each_who_is_dealt(phantom):
    done, output = split(phantom, "--leave-one-out", "--test-only", "unseen", "siteB")
    assert done.returncode == 0, done.stderr
    made = load_split(output)
    assert [len(made.part(fold, "test")) for fold in made.folds] == [1 + 3 + 6] * 6


def test_a_holdout_follows_the_same_lists(phantom):
    words = ("--holdout", 0.5, 0.25, 0.25, "--train-only", "unseen")
    done, output = split(phantom, *words)
    assert done.returncode == 0, done.stderr
    assert [len(load_split(output).part(0, part)) for part in PARTS] == [6 + 3, 3, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--folds", 3, "--test-only", "unsen"), "did you mean 'unseen'? It has siteA, siteB, un"),
        (("--folds-from", "x.csv", "--train-only", "unseen"), "--folds-from moves nobody"),
        (("--folds", 4), "4 folds need 4 persons of each stratum, got {'unseen': 3}"),
        (("--leave-source-out", "--stratify", "source"), "leave --stratify out"),
        (("--leave-source-out", "--folds", 3), "not allowed with argument"),
    ],
)
def test_a_wrong_command_is_refused_and_nothing_is_written(phantom, words, message):
    done, output = split(phantom, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_contrasts_are_spread_over_the_folds_where_each_has_enough_persons():
    people = cords(a=12, b=6)
    for at, row in enumerate(people[:12]):
        row["contrasts"] = "T1w+T2w" if at % 2 else "T2w"
    people[12]["contrasts"] = "dwi"  # too few: b is dealt as one
    rows = split_sources(people, folds=3)
    check_laws(rows, people)
    of = {row["subject"]: row["contrasts"] for row in people}
    for fold in range(3):
        tested = [
            row["subject"] for row in rows if (row["fold"], row["part"]) == (str(fold), "test")
        ]
        assert Counter(of[name] for name in tested if name.startswith("a_")) == {
            "T2w": 2,
            "T1w+T2w": 2,
        }
        assert sum(name.startswith("b_") for name in tested) == 2
