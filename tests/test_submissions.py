"""The ledger of submissions, from whole, cut off and old files."""

import pytest

from spine_tasks.files import append_line, read_lines
from spine_tasks.submissions import (
    LEDGER,
    Submission,
    Tasks,
    begin,
    folder_of,
    note,
    read_tasks,
    submissions,
)

TWO = Tasks(cells=[["a"], ["b", "c"]], worker=["python"], mem_gb=2.0)


def test_before_anything_was_submitted_there_is_nothing(tmp_path):
    assert submissions(tmp_path) == []
    assert submissions(tmp_path / "nowhere") == []


def test_what_the_tasks_compute_is_on_disk_before_the_intent(tmp_path, monkeypatch):
    # Else a launcher killed in between leaves an intent of which nobody knows the cells.
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("spine_tasks.submissions.note", stop)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, "grid-1", TWO)
    assert read_tasks(folder_of(tmp_path, "grid-1")) == TWO
    assert submissions(tmp_path) == []


def test_tasks_are_read_as_they_were_written(tmp_path):
    tasks = Tasks(cells=[["a"]], worker=["x", "y z"], mem_gb=0.5, umask=7, stage_to="$SLURM_TMPDIR")
    assert read_tasks(begin(tmp_path, "grid-1", tasks)) == tasks


def test_a_submission_goes_from_its_intent_to_its_release(tmp_path):
    begin(tmp_path, "grid-1", TWO)
    assert submissions(tmp_path) == [Submission("grid-1", TWO)]
    assert submissions(tmp_path)[0].begun
    note(tmp_path, "grid-1", job="17")
    assert submissions(tmp_path) == [Submission("grid-1", TWO, job="17")]
    assert submissions(tmp_path)[0].begun
    note(tmp_path, "grid-1", released=True)
    assert submissions(tmp_path) == [Submission("grid-1", TWO, job="17", released=True)]
    assert not submissions(tmp_path)[0].begun


@pytest.mark.parametrize("end", ["released", "gone", "by_hand"])
def test_what_was_finished_denied_or_left_to_a_person_is_not_begun(tmp_path, end):
    begin(tmp_path, "grid-1", TWO)
    note(tmp_path, "grid-1", **{end: True})
    assert not submissions(tmp_path)[0].begun


def test_submissions_are_in_the_order_of_their_beginning(tmp_path):
    for name in ("grid-2", "grid-1"):
        begin(tmp_path, name, TWO)
    note(tmp_path, "grid-2", job="17")
    assert [one.name for one in submissions(tmp_path)] == ["grid-2", "grid-1"]


def test_an_intent_that_was_cut_off_by_a_kill_was_none_and_harms_no_other(tmp_path):
    begin(tmp_path, "grid-1", TWO)
    with (tmp_path / LEDGER).open("a") as ledger:
        ledger.write('{"name": "grid-2", "ti')
    assert [one.name for one in submissions(tmp_path)] == ["grid-1"]
    begin(tmp_path, "grid-3", TWO)
    assert [one.name for one in submissions(tmp_path)] == ["grid-1", "grid-3"]


def test_facts_of_later_versions_are_passed_over(tmp_path):
    begin(tmp_path, "grid-1", TWO, of_a_later_version=1)
    assert submissions(tmp_path) == [Submission("grid-1", TWO)]


def test_each_record_says_when(tmp_path):
    begin(tmp_path, "grid-1", TWO)
    note(tmp_path, "grid-1", job="17")
    assert all(record["time"].endswith("+00:00") for record in read_lines(tmp_path / LEDGER))


def test_a_note_alone_is_no_submission_of_another(tmp_path):
    # Two launchers never share a name: notes of one never finish another's submission.
    begin(tmp_path, "grid-1", TWO)
    begin(tmp_path, "grid-11", TWO)
    append_line(tmp_path / LEDGER, {"name": "grid-11", "gone": True})
    assert [one.begun for one in submissions(tmp_path)] == [True, False]
