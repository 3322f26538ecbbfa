"""The evidence that two attempts did not write at once would show it if they had."""

import pytest
import witness

FIRST = "1.0 begin 0 0\n2.0 step 0 0\n2.1 saving 0 1\n2.2 saved 0 1\n3.0 step 0 1\n"
KILLED_IN_A_SAVE = FIRST + "3.1 saving 0 2\n"


def told(folder, *texts):
    for pid, text in enumerate(texts, start=1):
        (folder / f"cell-{pid}").write_text(text)
    return witness.attempts(folder, "cell")


@pytest.mark.parametrize(
    "texts",
    [
        (FIRST, "5.0 begin 0 1\n6.0 step 0 1\n7.0 end\n"),
        (KILLED_IN_A_SAVE, "5.0 begin 0 1\n"),
        (KILLED_IN_A_SAVE, "5.0 begin 0 2\n"),  # only its success was not told any more
        ("1.0 begin 0 0\n1.5 step 0 0\n", "5.0 begin 0 0\n"),  # killed before its first save
        (FIRST + "5.5 step 0 2\n", "5.0 begin 0 1\n"),  # it works on, but writes nothing
    ],
)
def test_one_attempt_after_the_other_is_no_problem(tmp_path, texts):
    assert witness.problems(told(tmp_path, *texts)) == []


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ((FIRST, "5.0 begin 0 0\n"), "2 began at (0, 0), not at one of [(0, 1)]"),
        ((FIRST, "5.0 begin 0 2\n"), "2 began at (0, 2)"),
        ((FIRST + "5.5 saved 0 2\n", "5.0 begin 0 1\n"), "1 wrote [Line(at=5.5, word='saved'"),
        ((FIRST + "5.5 history 0\n", "5.0 begin 0 1\n"), "1 wrote [Line(at=5.5, word='history'"),
    ],
)
def test_work_lost_work_invented_and_two_writers_are_told(tmp_path, texts, problem):
    found = witness.problems(told(tmp_path, *texts))
    assert any(one.startswith(problem) for one in found), found
