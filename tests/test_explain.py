"""A number is traced to its persons, files, code and command."""

from dataclasses import replace

import pandas as pd
import pytest
from making import command

from spine_tasks.collect.explain import explain
from spine_tasks.collect.gathered import gather
from spine_tasks.errors import ConfigError
from spine_tasks.experiment import opened
from spine_tasks.files import read_json
from spine_tasks.stats.persons import by_person
from spine_tasks.stats.summary import summary

ARM = "init=pretrained augment=False"


@pytest.fixture(scope="module")
def gathered(launched_once):
    return gather(opened("gm_transfer", launched_once[0]))


def test_the_number_and_the_persons_are_those_of_the_tables(gathered):
    text = "\n".join(explain(gathered, ARM, "DSC"))
    own = gathered.cases[(gathered.cases["arm"] == ARM) & (gathered.cases["metric"] == "DSC")]
    assert f"mean {summary(own)['mean'][0]:.6g}" in text
    people = by_person(own)
    assert len(people) > 1
    for person in people.to_dict("records"):
        assert f"  {person['person']}: {person['value']:.6g} of {person['n_values']}\n" in text


def test_every_cell_of_the_arm_and_no_other_is_named_with_its_code_data_and_command(gathered):
    text = "\n".join(explain(gathered, ARM, "DSC"))
    for cell in gathered.arms:
        assert (f"{cell.id}/scores.csv" in text) == (cell.arm_name == ARM)
    [cell] = [cell for cell in gathered.arms if cell.arm_name == ARM]
    folder = gathered.experiment.run(cell).folder
    done = read_json(folder / "done.json")
    assert done["code_sha256"][:16] in text
    assert done["data_sha256"] in text
    assert " ".join(read_json(folder / "environment.json")["command"]) in text


def test_a_metric_of_another_kind_of_value_is_counted_by_person_too(gathered):
    per_slice = "\n".join(explain(gathered, ARM, "DSC_slice"))
    assert "of 1\n" not in per_slice  # a person has several slices


@pytest.mark.parametrize(
    ("arm", "metric", "said"),
    [
        ("init=pretraind augment=False", "DSC", f"did you mean {ARM!r}"),
        (ARM, "DCS", "did you mean 'DSC'"),
    ],
)
def test_a_misspelt_name_is_answered_with_those_there_are(gathered, arm, metric, said):
    with pytest.raises(ConfigError, match="--explain") as refused:
        list(explain(gathered, arm, metric))
    assert said in str(refused.value)


def test_the_command_prints_it_and_writes_nothing(launched_once):
    folder = launched_once[0] / "gm_transfer"
    before = {file.name for file in folder.iterdir()}
    answer = command(
        *("collect", "--grid", "gm_transfer", "--results", launched_once[0]),
        *("--explain", ARM, "DSC"),
    )
    assert answer.returncode == 0, answer.stderr
    assert "n = " in answer.stdout
    assert {file.name for file in folder.iterdir()} == before


def test_values_of_a_whole_set_are_listed_cell_by_cell(gathered):
    cases = gathered.cases.copy()
    rows = cases[cases["metric"] == "DSC"].drop_duplicates("cell")
    whole = rows.assign(case="*", person="*", metric="AP50", value=[0.25, 0.5, 0.75, 1.0])
    both = replace(gathered, cases=pd.concat([cases, whole]))
    text = "\n".join(explain(both, whole["arm"].iloc[1], "AP50"))
    assert "mean 0.5" in text
    assert "of 1 cells" in text
