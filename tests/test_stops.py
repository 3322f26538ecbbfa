"""When the same mistake in several cells stops the rest, and which nodes are left out."""

import json
import multiprocessing

import pytest

from spine_tasks.causes import (
    bad_nodes,
    forget_stop,
    repeated_failure,
    stop_the_rest,
    stopped,
)
from spine_tasks.files import append_line, read_json
from spine_tasks.run import Run, now

FAILED = {"event": "failed", "cause": "code", "error": "KeyError: 'dice' at gm.py:12"}
FAILED |= {"traceback_sha256": "d1", "time": "2026-11-22T10:00:00+00:00", "node": "gpu01"}
STARTED = {"event": "started", "time": "2026-11-22T10:01:00+00:00", "node": "gpu01"}


def write(experiment, cell, *records):
    for record in records:
        append_line(experiment / cell / "attempts.jsonl", record)


def fail_in(experiment, *cells, **changes):
    for cell in cells:
        write(experiment, cell, STARTED, FAILED | changes)


def test_three_cells_with_one_mistake_stop_the_rest_and_two_do_not(tmp_path):
    fail_in(tmp_path, "c", "a")
    stop_the_rest(tmp_path)
    assert stopped(tmp_path) is None
    fail_in(tmp_path, "b", error="KeyError: 'hsd' at gm.py:12")  # another value, the same line
    stop_the_rest(tmp_path)
    why = stopped(tmp_path)
    assert why.startswith("3 cells failed alike: KeyError: ")
    assert why.endswith("at gm.py:12; mend the code or its environment, then launch with "
                        "--retry-failed")  # fmt: skip
    written = read_json(tmp_path / "stopped.json")
    assert written["cells"] == ["a", "b", "c"]
    assert written["traceback_sha256"] == "d1"


def test_the_most_frequent_mistake_is_named(tmp_path):
    fail_in(tmp_path, "a", "b", "c", traceback_sha256="d2", error="first")
    fail_in(tmp_path, "d", "e", "f", "g", traceback_sha256="d3", error="second")
    assert repeated_failure(tmp_path).cells == ["d", "e", "f", "g"]
    assert repeated_failure(tmp_path).cause.why == "second"


@pytest.mark.parametrize("kind", ["host memory", "GPU memory", "node", "NaN loss", "disk", "time"])
def test_what_the_next_cell_may_not_meet_stops_nothing(tmp_path, kind):
    fail_in(tmp_path, *"abcd", cause=kind)
    assert repeated_failure(tmp_path) is None


@pytest.mark.parametrize("kind", ["settings", "missing data"])
def test_where_the_message_says_what_to_mend_it_must_be_the_same(tmp_path, kind):
    for cell in "abcd":  # such as: each starts from a cell that is not complete
        fail_in(tmp_path, cell, cause=kind, error=f"{cell}: no such file")
    assert repeated_failure(tmp_path) is None
    fail_in(tmp_path, *"efg", cause=kind, error="sub-01.nii.gz: no such file")
    assert repeated_failure(tmp_path).cells == ["e", "f", "g"]


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (STARTED, False),
        ({"event": "complete"}, False),
        ({"event": "interrupted"}, False),
        ({"event": "killed", "signal": 9}, False),
        ({"event": "refused", "error": "another attempt computes it"}, True),
        (FAILED | {"traceback_sha256": "d2"}, False),
    ],
)
def test_only_the_last_word_of_a_cell_counts(tmp_path, record, counts):
    fail_in(tmp_path, "a", "b", "c")
    write(tmp_path, "c", record)
    assert (repeated_failure(tmp_path) is not None) == counts


def test_one_cell_that_fails_three_times_is_one_cell(tmp_path):
    fail_in(tmp_path, "a", "a", "a", "b")
    assert repeated_failure(tmp_path) is None


def test_failures_that_a_person_has_forgiven_count_no_more(tmp_path):
    fail_in(tmp_path, *"abcde")
    stop_the_rest(tmp_path)
    forget_stop(tmp_path)
    assert stopped(tmp_path) is None
    # The first cell that is tried again meets another mistake: the old ones are no reason to stop.
    fail_in(tmp_path, "a", traceback_sha256="d2", time="2126-11-22T10:00:00+00:00")
    stop_the_rest(tmp_path)
    assert stopped(tmp_path) is None
    fail_in(tmp_path, "b", "c", traceback_sha256="d2", time="2126-11-22T10:00:00+00:00")
    stop_the_rest(tmp_path)
    assert read_json(tmp_path / "stopped.json")["cells"] == ["a", "b", "c"]
    forget_stop(tmp_path)
    forget_stop(tmp_path)  # where there is nothing to forget


def test_records_as_runs_write_them_are_understood(tmp_path):
    for cell in "abc":
        run = Run(tmp_path / cell)
        run.record_attempt("started")
        details = {key: FAILED[key] for key in ("cause", "error", "traceback_sha256")}
        run.record_attempt("failed", **details)
    assert repeated_failure(tmp_path).cells == ["a", "b", "c"]
    forget_stop(tmp_path)
    assert repeated_failure(tmp_path) is None
    assert now() > FAILED["time"]  # as text, in UTC


def test_spoilt_and_foreign_lines_are_left_out(tmp_path):
    fail_in(tmp_path, "a", "b", "c")
    junk = ['{"event": "fai', "[]", "null", "3", '{"event": null}', "\0\0\0"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "attempts.jsonl").write_text("\n".join(junk))
    (tmp_path / "slurm").mkdir()
    (tmp_path / "submissions.jsonl").write_text("{}\n")
    assert repeated_failure(tmp_path).cells == ["a", "b", "c"]
    assert bad_nodes(tmp_path) == []


def test_a_failure_of_an_older_version_without_a_digest_stops_nothing(tmp_path):
    for cell in "abcd":
        write(tmp_path, cell, {"event": "failed", "error": "x", "time": FAILED["time"]})
    assert repeated_failure(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_spoilt_stop_still_stops(tmp_path, text):
    (tmp_path / "stopped.json").write_text(text)
    assert "stopped.json" in stopped(tmp_path)


def test_a_spoilt_note_of_forgiveness_forgives_nothing(tmp_path):
    fail_in(tmp_path, "a", "b", "c")
    (tmp_path / "forgiven.json").write_text("")
    assert repeated_failure(tmp_path) is not None


def test_many_workers_that_stop_at_once_leave_one_whole_file(tmp_path):
    fail_in(tmp_path, *"abcd")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=stop_the_rest, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert json.loads((tmp_path / "stopped.json").read_text())["cells"] == list("abcd")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["stopped.json"]


def test_a_node_is_bad_after_two_failures_of_its_own(tmp_path):
    node = {"cause": "node", "error": "CUDA error: uncorrectable ECC error encountered"}
    fail_in(tmp_path, "a", node="gpu07", **node)
    fail_in(tmp_path, "a", node="gpu03", **node)
    assert bad_nodes(tmp_path) == []
    fail_in(tmp_path, "b", node="gpu07", **node)
    fail_in(tmp_path, *"cde", node="gpu01")  # the code's fault
    write(tmp_path, "f", *[STARTED | {"node": "gpu02", "cause": "node"}] * 3)
    assert bad_nodes(tmp_path) == ["gpu07"]
    fail_in(tmp_path, "c", "c", node="gpu05", **node)
    write(tmp_path, "c", {"event": "complete"})
    assert bad_nodes(tmp_path) == ["gpu05", "gpu07"]
