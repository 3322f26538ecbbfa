"""Scores are those of the predictions that made the run complete, whole, or made again."""

import csv
import shutil

import pytest
from making import cell, run_folder, small_data
from toy_task import train

from spine_tasks import score as under_test
from spine_tasks.configs import GmSegmentation
from spine_tasks.errors import RunError
from spine_tasks.files import read_json, write_json
from spine_tasks.run import Run
from spine_tasks.score import COLUMNS, score, spoilt

CHANGED = "scores.csv was cut off, changed, or is of other predictions"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A complete run with its scores; not to be changed."""
    folder = tmp_path_factory.mktemp("scored")
    data = small_data(folder / "bids", "gm_phantom")
    run = run_folder(folder / "results", cell({"data": str(data), "epochs": 1}))
    train(run.cell(), run)
    run.finish()
    score(run)
    return run


@pytest.fixture
def run(scored, tmp_path):
    folder = tmp_path / scored.folder.name
    shutil.copytree(scored.folder, folder)
    return Run(folder)


def test_scores_that_were_written_whole_are_used_as_they_are(run):
    assert spoilt(run) is None


def test_scores_are_plain_text_with_a_row_a_case_and_metric(run):
    with run.scores.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    volumes = [(row["case"], row["metric"]) for row in rows if row["slice"] == ""]
    assert len(volumes) == len(set(volumes)) > 12


def cut_in_a_line(text):
    return text[: len(text) // 2]


def cut_between_lines(text):
    return b"".join(text.splitlines(keepends=True)[:-7])


def without_a_case(text):
    lines = text.splitlines(keepends=True)
    case = lines[-1].split(b",")[2]
    return b"".join(line for line in lines if case not in line)


def another_header(text):
    return text.replace(b"person,subject", b"subject,person", 1)


def another_value(text):
    return text[:-2] + bytes([text[-2] ^ 1]) + text[-1:]


def twice(text):
    return text + text


@pytest.mark.parametrize(
    "spoil",
    [cut_in_a_line, cut_between_lines, without_a_case, another_header, another_value, twice]
    + [lambda _text, content=content: content for content in (b"", b"\0\xff\x00junk", b"\n")],
)
def test_spoilt_scores_are_noticed_and_made_again_the_same(run, spoil):
    whole = run.scores.read_bytes()
    assert spoil(whole) != whole
    run.scores.write_bytes(spoil(whole))
    assert spoilt(run) == CHANGED
    score(run)
    assert spoilt(run) is None
    assert run.scores.read_bytes() == whole


@pytest.mark.parametrize("content", [None, "", "{", "\0", "[]", '{"scores_sha256": 3}'])
def test_scores_without_a_whole_digest_are_made_again(run, content):
    record = run.folder / "scores.json"
    record.unlink()
    if content is not None:
        record.write_text(content)
    assert spoilt(run)
    score(run)
    assert spoilt(run) is None


def test_missing_scores_are_made(run):
    run.scores.unlink()
    assert spoilt(run) == "no scores.csv"


def test_scores_of_predictions_of_another_time_are_made_again(run):
    # Killed after the new done.json and before its scores: those there are of the old masks.
    done = read_json(run.folder / "done.json")
    name = sorted(done["predictions_sha256"])[0]
    done["predictions_sha256"][name] = "0" * 64
    write_json(run.folder / "done.json", done)
    assert spoilt(run) == CHANGED


def test_a_prediction_that_was_changed_is_named_and_never_scored(run):
    before = run.scores.read_bytes()
    masks = sorted(run.predictions.iterdir())
    masks[3].write_bytes(masks[4].read_bytes() + b"\0")
    with pytest.raises(RunError, match=f"{masks[3]} is not the file that made the run complete"):
        score(run)
    assert run.scores.read_bytes() == before


def test_a_prediction_that_done_json_does_not_list_is_not_scored(run):
    write_json(run.folder / "done.json", {})
    with pytest.raises(RunError, match="does not have the SHA-256 that done"):
        score(run)


def test_a_missing_prediction_is_named(run):
    mask = sorted(run.predictions.iterdir())[0]
    mask.unlink()
    with pytest.raises(RunError, match=f"{mask} is missing although the run is complete"):
        score(run)


def test_a_task_that_predicts_nothing_has_a_header_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(GmSegmentation, "predicts", "nothing")
    run = run_folder(tmp_path)
    write_json(run.folder / "done.json", {"predictions_sha256": {}})
    score(run)
    assert run.scores.read_text() == ",".join(COLUMNS) + "\n"
    assert spoilt(run) is None


def test_every_kind_of_prediction_of_a_task_can_be_scored():
    from spine_tasks.configs import TASKS

    assert {config.predicts for config in TASKS.values()} <= set(under_test.ROWS)
