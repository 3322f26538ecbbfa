"""Event files: read back by TensorFlow, which checks each record's checksum."""

import json
import struct
import sys

import pytest
from making import attempt_on_node as record
from making import command, planned_grid, python

from spine_tasks.errors import ConfigError, RunError
from spine_tasks.experiment import create
from spine_tasks.tensorboard import EPOCHS, KNOBS, EventFiles, run_name

BEGUN = "2026-01-01T10:00:00+00:00"
BEGUN_S = 1767261600.0

READ = """
import json, sys
from tensorflow.compat.v1.train import summary_iterator
for file in sys.argv[1:]:
    for event in summary_iterator(file):
        for value in event.summary.value:
            kind = value.metadata.plugin_data.plugin_name
            print(json.dumps([event.step, event.wall_time, value.tag, value.simple_value, kind]))
"""


@pytest.fixture
def experiment(tmp_path):
    planned = planned_grid(tmp_path / "results", **{"epochs": 10})
    create(planned, [])
    return planned


@pytest.fixture
def events(experiment, tmp_path):
    return EventFiles(experiment, tmp_path / "events")


def train(experiment, cell, *epochs, **more):
    run = experiment.run(cell)
    if not run.attempts():
        record(run, "started", time=BEGUN)
    for epoch in epochs:
        named = {"loss": 1.0 / (epoch + 1), "val_dice": 0.1 * epoch} | more
        run.add_history(epoch=epoch, seconds=2.0, best_epoch=0, **named)


def folder_of(tmp_path, cell):
    return tmp_path / "events" / run_name(cell)


def steps(file):
    """The steps of a file's events by our own reading: fast, and without checking checksums."""
    from tensorboardX.proto.event_pb2 import Event

    content, at, found = file.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        found += [event.step] if event.HasField("summary") else []
        at += length + 16
    return found


def test_tensorflow_reads_every_named_number_by_epoch(experiment, events, tmp_path):
    pytest.importorskip("tensorflow", reason="the reader of event files is TensorFlow's")
    cell = experiment.cells[0]
    train(experiment, cell, 0, 1)
    events.update(experiment.everything)
    train(experiment, cell, 2, note="text")
    events.update(experiment.everything)
    folder = folder_of(tmp_path, cell)
    answer = python(READ, folder / KNOBS, folder / EPOCHS)
    assert answer.returncode == 0, answer.stderr
    read = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {tag for _, _, tag, _, kind in read if kind == "hparams"} == {
        *("_hparams_/experiment", "_hparams_/session_start_info")
    }
    scalars = {(step, tag): (when, value) for step, when, tag, value, kind in read if not kind}
    assert len(scalars) == 9 == len(read) - 2
    assert scalars[2, "loss"] == (BEGUN_S + 6, pytest.approx(1 / 3))
    assert scalars[1, "val_dice"] == (BEGUN_S + 4, pytest.approx(0.1))
    assert scalars[0, "seconds"] == (BEGUN_S + 2, 2.0)


def test_each_cell_is_a_run_of_its_own(experiment, events, tmp_path):
    for cell in experiment.everything[:-1]:
        train(experiment, cell, 0)
    events.update(experiment.everything)
    files = {file.parent for file in (tmp_path / "events").rglob(EPOCHS)}
    assert files == {folder_of(tmp_path, cell) for cell in experiment.everything[:-1]}
    assert len(files) == len(experiment.everything) - 1  # the last has not trained an epoch
    assert (tmp_path / "events/init=scratch augment=False/fold0/seed0").is_dir()


def test_writing_again_changes_nothing(experiment, events, tmp_path):
    cell = experiment.cells[0]
    train(experiment, cell, 0, 1, 2)
    events.update([cell])
    file = folder_of(tmp_path, cell) / EPOCHS
    before = file.read_bytes(), file.stat().st_mtime_ns
    EventFiles(experiment, tmp_path / "events").update([cell])  # as another process
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_new_epochs_are_added_to_the_same_file(experiment, events, tmp_path):
    cell = experiment.cells[0]
    train(experiment, cell, 0, 1)
    events.update([cell])
    file = folder_of(tmp_path, cell) / EPOCHS
    inode = file.stat().st_ino
    train(experiment, cell, 2)
    EventFiles(experiment, tmp_path / "events").update([cell])
    events.update([cell])
    assert steps(file) == [0, 1, 2]
    assert file.stat().st_ino == inode  # who has it open reads on


def test_a_file_that_a_kill_cut_off_is_completed(experiment, events, tmp_path):
    cell = experiment.cells[0]
    train(experiment, cell, 0, 1, 2)
    events.update([cell])
    file = folder_of(tmp_path, cell) / EPOCHS
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    EventFiles(experiment, tmp_path / "events").update([cell])
    assert file.read_bytes() == whole


def test_epochs_that_were_trained_anew_take_the_place_of_the_old(experiment, events, tmp_path):
    cell = experiment.cells[0]
    train(experiment, cell, 0, 1, 2)
    events.update([cell])
    experiment.run(cell).forget_history_from(1)
    train(experiment, cell, 1, loss=9.0)
    events.update([cell])
    assert steps(folder_of(tmp_path, cell) / EPOCHS) == [0, 1]


def test_what_is_not_a_number_is_nan(experiment, events, tmp_path):
    cell = experiment.cells[0]
    train(experiment, cell, 0, loss=float("nan"), val_dice=None)
    events.update([cell])
    assert steps(folder_of(tmp_path, cell) / EPOCHS) == [0]


def test_a_folder_that_cannot_be_written_to_is_told(experiment, tmp_path):
    (tmp_path / "events").write_text("a file")
    train(experiment, experiment.cells[0], 0)
    with pytest.raises(RunError, match="cannot be written"):
        EventFiles(experiment, tmp_path / "events").update(experiment.cells)


def test_without_the_package_the_command_to_install_it_is_said(experiment, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'spine_tasks\[tensorboard\]'"):
        EventFiles(experiment, tmp_path)


def test_status_writes_them_and_says_where_cells_stand(experiment, tmp_path):
    train(experiment, experiment.cells[0], 0)
    flags = ("--grid", experiment.name, "--results", experiment.folder.parent)
    answer = command("status", *flags, "--watch", "--tensorboard", tmp_path / "events")
    assert answer.returncode == 0, answer.stderr
    assert "interrupted" in answer.stderr
    assert steps(folder_of(tmp_path, experiment.cells[0]) / EPOCHS) == [0]
