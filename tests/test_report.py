"""What is said of a comparison is no more than its numbers allow."""

import pandas as pd
import pytest
from rich.console import Console

from spine_tasks.report.console import conclusions
from spine_tasks.report.tables import new_table

SPEED = pd.DataFrame({"arm": ["base", "arm"], "epochs_to_mark": [44.0, 1.0]})


def sentence(speed=SPEED, **changes):
    row = {
        "metric": "DSC",
        "label": "cord",
        "arm": "arm",
        "baseline": "base",
        "n": 12,
        "mean_difference": 0.1,
    }
    row |= {"low": 0.05, "high": 0.2, "p": 0.01, "p_holm": 0.01, "smallest_p": 0.0005} | changes
    (said,) = conclusions([row], speed)
    return said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "DSC 0.100 higher than the baseline's at the end"),
        ({"mean_difference": -0.1}, "DSC 0.100 lower than the baseline's at the end"),
        ({"p_holm": 0.05}, "no difference in DSC shown at the end"),
        (
            {"p_holm": float("nan"), "n": 0, "smallest_p": float("nan")},
            "no difference in DSC shown",
        ),
        ({"p_holm": 0.125, "smallest_p": 0.125, "n": 4}, "of too few persons to be significant"),
    ],
)
def test_only_a_significant_difference_is_called_one(changes, said):
    assert said in sentence(**changes)


def test_too_few_persons_are_too_few_after_the_correction_too():
    # Of six pairs p is .031 at least, and of two arms .062 after Holm's correction.
    row = {"metric": "DSC", "label": "cord", "baseline": "base", "n": 6, "mean_difference": 0.1}
    row |= {"low": 0.05, "high": 0.2, "p": 0.03125, "p_holm": 0.0625, "smallest_p": 0.03125}
    both = list(conclusions([row | {"arm": "arm"}, row | {"arm": "other"}], SPEED))
    assert all("of too few persons to be significant" in one for one in both)


def test_an_arm_whose_speed_is_not_compared_yet_is_told_without_it():
    assert sentence(SPEED.iloc[:1]).endswith("n = 12).")


def test_speed_is_told_apart_from_the_end():
    assert sentence().endswith("best validation score in epoch 1, not 44.")
    never = SPEED.assign(epochs_to_mark=[44.0, float("nan")])
    assert sentence(never).endswith("never reached the baseline's best validation score.")


def test_other_metrics_are_left_to_the_tables():
    row = {"metric": "TPR", "label": "cord", "arm": "arm", "baseline": "base"}
    assert list(conclusions([row], SPEED)) == []


def test_in_a_narrow_terminal_names_go_on_in_a_next_line_and_no_number_loses_a_digit():
    table = new_table("title", "metric", "arm", "mean", "95 % interval")
    table.add_row("kappa", "backbone=swin_base_patch4_window7_224", "-0.185", "-0.388 to 0.012")
    console = Console(width=50, record=True)
    console.print(table)
    seen = console.export_text()
    assert "-0.388 to 0.012" in seen
    assert "…" not in seen
    assert "ndow7_224" in seen  # the end of its name
