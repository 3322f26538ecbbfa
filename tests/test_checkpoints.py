"""Checkpoints: bit for bit, and whatever is killed, one can be loaded."""

import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from making import environment

from spine_tasks import checkpoints
from spine_tasks.errors import RunError

SAVE_FOR_EVER = """
import itertools, sys
from pathlib import Path
import numpy as np
from spine_tasks import checkpoints
print("ready", flush=True)
for step in itertools.count():
    arrays = {f"layer{n}": np.full(20_000, step, np.float32) for n in range(20)}
    checkpoints.save(Path(sys.argv[1]), arrays, {"step": step})
"""


def save(folder, step):
    checkpoints.save(folder, {"weight": np.full(1000, step)}, {"step": step})


def spoil(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "dense/kernel:0": random.standard_normal((3, 4)).astype(np.float32),
        "half": random.standard_normal(5).astype(np.float16),
        "step": np.int64(2**53 + 1),
        "seed": np.array([2**32 - 1], np.uint32),
        "empty": np.zeros((0, 3)),
        "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
    }
    state = {"best": 0.1 + 0.2, "tiny": 5e-324, "epoch": 3, "wait": None, "order": [2, 1], "ü": ""}
    checkpoints.save(tmp_path / "new" / "folder", arrays, state)
    got, got_state = checkpoints.load(tmp_path / "new" / "folder")
    assert got_state == state
    assert set(got) == set(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def test_minus_infinity_as_the_best_so_far_comes_back(tmp_path):
    checkpoints.save(tmp_path, {}, {"best": float("-inf")})
    assert checkpoints.load(tmp_path) == ({}, {"best": float("-inf")})


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.load(tmp_path) is None
    assert checkpoints.load(tmp_path / "nowhere") is None


def test_the_last_of_many_is_loaded_and_one_more_is_kept(tmp_path):
    for step in range(4):
        save(tmp_path, step)
    assert checkpoints.load(tmp_path)[1] == {"step": 3}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.npz", "previous.npz"]
    (tmp_path / "last.npz").unlink()  # a kill between the two renames leaves it so
    assert checkpoints.load(tmp_path)[1] == {"step": 2}


def test_a_spoilt_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, caplog):
    save(tmp_path, 0)
    save(tmp_path, 1)
    spoil(tmp_path / "last.npz")
    with caplog.at_level(logging.WARNING):
        arrays, state = checkpoints.load(tmp_path)
    assert (state, arrays["weight"][0]) == ({"step": 0}, 0)
    assert f"{tmp_path / 'last.npz'} cannot be read" in caplog.text


def test_one_changed_bit_is_seen(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    content = bytearray((tmp_path / "last.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.npz").write_bytes(content)
    assert checkpoints.load(tmp_path)[1] == {"step": 0}


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100])
def test_a_file_that_is_no_checkpoint_falls_back_too(tmp_path, content):
    save(tmp_path, 0)
    save(tmp_path, 1)
    (tmp_path / "last.npz").write_bytes(content)
    assert checkpoints.load(tmp_path)[1] == {"step": 0}


def test_training_is_never_begun_anew_where_no_checkpoint_can_be_read(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    spoil(tmp_path / "last.npz")
    spoil(tmp_path / "previous.npz")
    with pytest.raises(RunError, match=r"no checkpoint can be read: .*last\.npz.*previous\.npz"):
        checkpoints.load(tmp_path)


def test_a_single_spoilt_checkpoint_is_an_error_too(tmp_path):
    save(tmp_path, 0)
    spoil(tmp_path / "last.npz")
    with pytest.raises(RunError, match=f"delete the folder {tmp_path} to train this cell"):
        checkpoints.load(tmp_path)


def test_after_a_fall_back_a_kill_within_the_next_save_loses_nothing(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    spoil(tmp_path / "last.npz")
    checkpoints.load(tmp_path)
    save(tmp_path, 1)
    (tmp_path / "last.npz").unlink()  # as a kill between the renames leaves it
    assert checkpoints.load(tmp_path)[1] == {"step": 0}


def test_a_kill_while_saving_leaves_a_checkpoint_that_loads(tmp_path):
    random = np.random.default_rng(0)
    last = -1
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOR_EVER, tmp_path],
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        while not (tmp_path / "last.npz").exists():
            time.sleep(0.01)
        time.sleep(random.uniform(0.01, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrays, state = checkpoints.load(tmp_path)
        assert all((array == state["step"]).all() for array in arrays.values())
        assert len(arrays) == 20
        last = max(last, state["step"])
    assert last > 0
