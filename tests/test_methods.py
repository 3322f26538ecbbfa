"""The sentences for a methods section are true of the results they are made of."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy
from gathered_making import BASE, CROSSED, gathered, tables
from making import cell

import spine_tasks
from spine_tasks.collect.ensemble import NAME as ENSEMBLE
from spine_tasks.collect.generalization import GENERALIZATION, PAIRED, UNPAIRED
from spine_tasks.files import write_json
from spine_tasks.report import methods
from spine_tasks.report.methods import intervals, sentence, signed_rank
from spine_tasks.stats.intervals import interval
from spine_tasks.stats.unpaired import difference_interval

RNG = np.random.default_rng(0)


def scores(n, arms):
    return [RNG.uniform(0.4, 0.9, n) for _ in range(arms)]


def said(folder, n=8, arms=CROSSED, **changes):
    of = gathered(folder, {"DSC": scores(n, len(arms))}, arms, **changes)
    return sentence(of, tables(of))


def test_runs_arms_persons_and_split_are_counted(tmp_path):
    text = said(tmp_path)
    assert "4 models of 4 arms (init=scratch augment=False; init=scratch augment=True; " in text
    assert "on 1 fold of the split gm_phantom with 4 seeds" in text
    assert "(n = 8 tested)" in text
    assert "missing" not in text
    assert "nan" not in text


def test_missing_and_mixed_and_needed_runs_are_said(tmp_path):
    runs = pd.DataFrame({"role": ["needed", "arm", "arm", "arm", "arm"]})
    planned = [cell(seed=number) for number in range(6)]
    text = said(tmp_path, planned=planned, mixed=["different code"], runs=runs)
    assert "2 of 6 planned runs are missing." in text
    assert "not all computed with the same code or data" in text
    assert "1 further run made what others start from." in text


def test_what_was_not_done_is_not_said(tmp_path):
    of = gathered(tmp_path, {"DSC": scores(8, 1)}, CROSSED[:1])
    text = sentence(of, tables(of) | {"comparisons": pd.DataFrame()})
    for absent in ("compared", "Wilcoxon", "Holm", "Mann", "resamples of the persons of each fold"):
        assert absent not in text
    assert "Holm" not in said(tmp_path, arms=CROSSED[:2])  # one comparison needs no correction


def test_the_baseline_and_holms_family_are_named(tmp_path):
    text = said(tmp_path)
    assert f"Each arm was compared with {BASE}, paired by person" in text
    assert "over the 3 arms of one label and metric" in text


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (["best"], "Weights of the epoch with the best validation score (val_dice) predicted"),
        (["last"], "Weights of the last epoch predicted"),
        (["best", "last"], "(val_dice), or, by arm, of the last epoch predicted"),
    ],
)
def test_how_weights_were_chosen_is_what_the_cells_did(tmp_path, keep, expected):
    arms = [{"keep": one} for one in keep]
    of = gathered(tmp_path, {"DSC": scores(8, len(arms))}, arms)
    cells = [
        replace(one, config=cell({"keep": kept}).config)
        for one, kept in zip(of.arms, keep, strict=True)
    ]
    of = replace(of, arms=cells)
    made = tables(of) if len(arms) > 1 else tables(of) | {"comparisons": pd.DataFrame()}
    assert expected in sentence(of, made)


def test_an_ensemble_is_no_trained_model(tmp_path):
    text = said(tmp_path, arms=[*CROSSED[:2], ENSEMBLE])
    assert "2 models of 2 arms" in text
    assert "averages the probabilities" in text


@pytest.mark.parametrize(
    ("n", "method"), [(5, "Student's t (n = 5)"), (8, "bootstrap-t"), (60, "BCa bootstrap")]
)
def test_the_interval_is_the_one_in_the_table(tmp_path, n, method):
    text = said(tmp_path, n, CROSSED[:2])
    assert f"95 % intervals of means are by {method}" in text
    assert ("9,999 resamples" in text) == (n > 5)
    others = {"Student's t", "bootstrap-t", "BCa bootstrap"} - {method.partition(" (")[0]}
    assert not any(other in text for other in others)


def test_every_method_of_an_interval_has_words():
    samples = [RNG.uniform(size=n) for n in (3, 8, 60)]
    samples.append(np.repeat([1.0, 2.0, 4.0], 20) * 1e-120)  # of which BCa is undefined
    found = {interval(values).method for values in samples}
    found.add(difference_interval(samples[0], samples[1]).method)
    assert found == set(methods.INTERVALS)
    table = pd.DataFrame({"n": [5], "interval": ["jackknife"]})
    assert intervals(table).startswith("jackknife (n = 5)")


def test_persons_without_enough_values_have_no_method():
    table = pd.DataFrame({"n": [1, 0], "interval": ["", ""]})
    assert intervals(table) == "no method, as too few persons differ"


def test_the_test_is_exact_up_to_fifty_pairs():
    assert signed_rank(50).endswith("exact")
    assert "normal limit" in signed_rank(51)


def test_undefined_values_and_persons_without_a_pair_are_counted(tmp_path):
    values = scores(8, 2)
    values[1][:3] = np.nan
    of = gathered(tmp_path, {"DSC": values}, CROSSED[:2])
    text = sentence(of, tables(of))
    assert "Undefined values (3 over all metrics and arms)" in text
    assert "3 times that left a person without a value" in text
    assert "3 times a person had no pair" in text


def test_sets_are_resampled_and_not_tested(tmp_path):
    of = gathered(tmp_path, {"DSC": scores(8, 2)}, CROSSED[:2])
    text = sentence(of, tables(of) | {"sets": pd.DataFrame({"low": [0.1]})})
    assert "2,000 resamples of the persons of each fold's test part" in text
    assert "they were not tested" in text


def test_cords_are_told_by_their_own_tests_with_their_own_families(tmp_path):
    of_pairs = {"comparison": PAIRED, "n": 6, "interval": "t"}
    rows = [of_pairs | {"p": 0.1}, of_pairs | {"n": 0, "interval": "", "p": np.nan}]
    of_groups = {"comparison": UNPAIRED, "n": 6, "interval": "Welch's t"}
    rows += [of_groups | {"p": p} for p in (0.1, 0.2, 0.3)]
    found = pd.DataFrame(rows).reindex(columns=GENERALIZATION)
    of = gathered(tmp_path, {"DSC": scores(8, 2)}, CROSSED[:2])
    text = sentence(of, tables(of) | {"generalization": found})
    assert "over these 1 comparisons" in text  # an undefined p is no part of the family
    assert "over these 3 comparisons" in text
    assert "Mann and Whitney" in text
    assert "Welch's t" in text
    assert "Each arm was compared" not in text


def test_versions_are_those_in_use(tmp_path):
    of = gathered(tmp_path, {"DSC": scores(8, 2)}, CROSSED[:2])
    for one, tensorflow in zip(of.arms, ("2.21.0", "2.21.1"), strict=True):
        packages = {"tensorflow": tensorflow, "torch": "2.14"}  # installed, but not used
        write_json(of.experiment.run(one).folder / "environment.json", {"packages": packages})
    text = sentence(of, tables(of))
    assert f"scipy {scipy.__version__}" in text
    assert "trained with tensorflow 2.21.0, tensorflow 2.21.1." in text
    assert "torch 2.14" not in text
    assert text.endswith("Code aa; data bb (gm_phantom).")


def test_references_are_those_that_the_statistics_cite(tmp_path):
    sources = "".join(
        file.read_text() for file in (Path(spine_tasks.__file__).parent / "stats").glob("*.py")
    )
    constants = [*methods.INTERVALS.values(), methods.SIGNED_RANK, methods.RANK_SUM, methods.HOLM]
    cited = {
        link for text in constants for link in re.findall(r"doi:[^)\s]+|https://[^)\s]+", text)
    }
    assert len(cited) == 6
    assert all(link in sources for link in cited)
