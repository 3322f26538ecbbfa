"""Files that are old or new after a crash, never half."""

import logging
import os
import subprocess
import sys

import pytest
from making import environment, python

from spine_tasks import files
from spine_tasks.errors import RunError
from spine_tasks.files import append_line, read_json, read_lines, replacing, write_json, write_text

ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from spine_tasks.errors import RunError
from spine_tasks.files import append_line, write_text
# A file larger than this fails as on a full disk; without the handler the process is killed.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    {}
except RunError as error:
    sys.exit(f"RunError: {{error}}")
"""

APPEND = """
import sys
from pathlib import Path
from spine_tasks.files import append_line
for number in range(300):
    append_line(Path(sys.argv[1]), {"writer": sys.argv[2], "number": number, "text": "x" * 500})
"""


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path):
    file = tmp_path / "deep" / "er" / "a.txt"
    write_text(file, "first")
    write_text(file, "ünd")
    assert file.read_text(encoding="utf-8") == "ünd"
    assert names(file.parent) == ["a.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail_half_way():
        with replacing(file) as partial:
            partial.write_text("ne")
            raise ValueError("the writer's own error")

    with pytest.raises(ValueError, match="the writer's own error"):
        fail_half_way()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_file_is_the_old_one_until_the_writer_has_ended(tmp_path):
    file = tmp_path / "a.nii.gz"
    file.write_text("old")
    with replacing(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
        assert partial.parent == file.parent  # else the replacement is no single step
        assert partial.name.endswith("a.nii.gz")
        assert partial.name.startswith(".")
    assert file.read_text() == "new"


def test_a_full_disk_is_told_with_the_file_and_leaves_no_half_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    answer = python(ON_A_FULL_DISK.format("write_text(Path(sys.argv[1]), 'x' * 10**6)"), file)
    assert answer.returncode == 1
    assert f"RunError: {file}: cannot be written: File too large" in answer.stderr
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_where_a_folder_should_be_is_told(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(RunError, match=r"results/a\.json: cannot be written: .*run the same"):
        write_json(tmp_path / "results" / "a.json", {})
    assert names(tmp_path) == ["results"]
    with pytest.raises(RunError, match=r"results/a\.jsonl: cannot be written"):
        append_line(tmp_path / "results" / "a.jsonl", {})


def test_a_value_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}


def test_json_is_the_same_text_whatever_the_order_of_its_keys(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [0.1, None]})
    write_json(tmp_path / "b", {"a": [0.1, None], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": [0.1, None], "b": 1}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}"])
def test_a_spoilt_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.json: not JSON .*launch again"):
        read_json(tmp_path / "a.json")


def test_appended_lines_come_back_in_order(tmp_path):
    file = tmp_path / "new" / "lines.jsonl"
    assert read_lines(file) == []
    records = [{"epoch": n, "text": "a\nb", "loss": 0.1 + 0.2} for n in range(3)]
    for record in records:
        append_line(file, record)
    assert read_lines(file) == records


def test_lines_of_writers_at_the_same_time_never_mix(tmp_path, caplog):
    file = tmp_path / "lines.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, file, name], env=environment())
        for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    records = read_lines(file)
    assert not caplog.records
    for name in "abc":
        mine = [record["number"] for record in records if record["writer"] == name]
        assert mine == list(range(300))


def test_a_line_cut_off_by_a_kill_spoils_no_other_and_is_logged(tmp_path, caplog):
    file = tmp_path / "lines.jsonl"
    append_line(file, {"epoch": 0})
    with file.open("a") as stream:
        stream.write('{"epoch": 1, "lo')
    append_line(file, {"epoch": 2})
    with caplog.at_level(logging.WARNING):
        assert read_lines(file) == [{"epoch": 0}, {"epoch": 2}]
    assert f"{file}, line 2: cut off by a kill" in caplog.text


def test_zeros_that_a_crashed_node_left_spoil_no_other_line(tmp_path):
    file = tmp_path / "lines.jsonl"
    append_line(file, {"epoch": 0})
    with file.open("ab") as stream:
        stream.write(bytes(40))
    append_line(file, {"epoch": 1})
    assert read_lines(file) == [{"epoch": 0}, {"epoch": 1}]


def test_a_line_is_text_that_a_kill_cannot_cut_within_a_character(tmp_path):
    append_line(tmp_path / "lines.jsonl", {"error": "größer"})
    assert (tmp_path / "lines.jsonl").read_bytes().isascii()
    assert read_lines(tmp_path / "lines.jsonl") == [{"error": "größer"}]


def test_a_line_that_the_disk_takes_in_part_only_is_told(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("x" * 99_990 + "\n")  # nine bytes are left
    answer = python(ON_A_FULL_DISK.format("append_line(Path(sys.argv[1]), {'epoch': 10})"), file)
    assert answer.returncode == 1
    assert f"RunError: {file}: cannot be written: No space left on device" in answer.stderr


def test_lines_that_replace_a_file_are_those_that_come_back(tmp_path):
    file = tmp_path / "lines.jsonl"
    append_line(file, {"epoch": 0})
    files.write_lines(file, [{"epoch": 5}, {"epoch": 6}])
    append_line(file, {"epoch": 7})
    assert [record["epoch"] for record in read_lines(file)] == [5, 6, 7]
    files.write_lines(file, [])
    assert read_lines(file) == []


def test_the_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert files.sha256(tmp_path / "a") == known


def test_two_processes_never_share_a_partial_file(tmp_path):
    with replacing(tmp_path / "a") as partial:
        partial.write_text("")
        assert str(os.getpid()) in partial.name
